"""Swarm mode is not part of this engine: dockerd's sentence for who asks for it, in one place."""

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    "to swarm and try again."
)
