"""What this host offers to containers: the limits that its kernel enforces, its OCI runtimes, mapped user ids."""
