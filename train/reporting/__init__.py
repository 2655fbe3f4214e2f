"""A run on one self-contained page: what went in, how it learned, what came out, and how to do it again."""
