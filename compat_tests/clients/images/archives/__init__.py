"""Archives: load, save, import and commit."""
