"""Tasks: bundles, shims, the start and exit of processes, and recovery after a crash of the supervisor."""
