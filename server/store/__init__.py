"""The database of wharfd: JSON documents in one SQLite file. Each service has its records in a table (``store.py``)."""
