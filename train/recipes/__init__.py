"""A run is a value: each function here returns one frozen recipe."""
