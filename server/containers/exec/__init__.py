"""Exec: further processes in running containers, and health checks, whose probes are execs."""
