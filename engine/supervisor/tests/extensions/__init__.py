"""One suite over both ways: the extensions of our own supervisor, and the standard calls, on ours and on containerd."""
