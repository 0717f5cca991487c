"""Exec: further processes in running containers."""
