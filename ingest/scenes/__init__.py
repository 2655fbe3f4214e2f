"""What goes with what: items of catalogs as scenes, and which of them make a pair or a stack. Pure."""
