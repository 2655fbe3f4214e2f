"""From where: catalogs by name, searches that are kept, addresses that are signed."""
