"""What this host offers containers: the limits that its kernel enforces, its OCI runtimes."""
