"""From files to chips: the truth of the pixels, each block read once."""
