"""The database of wharfd: documents in one SQLite file. Each package stores its records in it (``store.py``)."""
