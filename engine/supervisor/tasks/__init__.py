"""Tasks: bundles, their shims, the start and end of their processes, and recovery after a crash of the supervisor."""
