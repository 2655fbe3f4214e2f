"""Models as pure functions of tensors: no data loading, no process launching, no files."""
