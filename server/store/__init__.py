"""The database of the API daemon: one module per noun on one SQLite file."""
