"""The database of the API daemon: documents in one SQLite file. Each room keeps its records in it (``store.py``)."""
