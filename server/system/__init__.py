"""What the daemon reports about itself: version, information, disk usage, metrics, its ID."""
