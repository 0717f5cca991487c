"""Snapshots: the records of all snapshotters, and the snapshotters' directories."""
