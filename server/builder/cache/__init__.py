"""The build cache: results of steps by key, the documents by which caches travel, cache mounts, and pruning."""
