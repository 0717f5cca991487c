"""Costly Dockerfiles, and concurrent builds on the same cache mounts."""
