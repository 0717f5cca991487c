"""The state of the swarm's nodes: which of them are alive, and which managers become workers."""
