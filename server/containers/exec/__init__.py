"""Exec: further processes in running containers, and the health checks that run as such."""
