"""Where: areas, grids of cells, samples of them, and on which side of the split they are."""
