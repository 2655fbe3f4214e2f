"""HTML pages that need nothing beside themselves: what the page of a data set and the page of a run share."""
