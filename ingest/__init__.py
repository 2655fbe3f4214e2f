"""From an area of interest to a cube and shards. Read `build.py` first. Never imports torch."""
