"""From a manifest to batches: which sample is read when (lanes), how (loader), and what happens to it (transforms)."""
