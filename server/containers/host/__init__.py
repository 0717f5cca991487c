"""What this host gives to containers: the limits that its kernel enforces, its OCI runtimes, mapped user ids."""
