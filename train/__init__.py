"""From shards to a checkpoint. Read `croma.py`, then `loop.py`. Never imports a raster or catalog library."""
