"""After and beside the build: looking at, checking, describing and re-cutting a data set."""
