"""What both front ends share: the cache, steps that builds have in common, killed clients and daemons, a full disk."""
