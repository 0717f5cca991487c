"""The database of wharfd: documents in one SQLite file. Each room stores its records in it (``store.py``)."""
