"""Killed daemons and full disks: nothing is lost, and nothing is left behind."""
