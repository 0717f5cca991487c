"""Daemons that are killed and disks that are full: nothing is lost, nothing is left."""
