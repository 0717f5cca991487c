"""The daemon about itself: version, info, disk usage, its identity."""
