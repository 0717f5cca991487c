"""The agent: runs the tasks that are assigned to this node. ``dispatcher`` is all that it knows of the swarm."""
