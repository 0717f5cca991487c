"""The OCI runtime that this host gets (``probe``), and the metrics of a container's cgroup."""
