"""Snapshots: the records of all snapshotters in one place, and what each does with directories."""
