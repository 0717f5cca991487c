"""dockerd's sentence for requests that need swarm mode, which this engine lacks."""

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    "to swarm and try again."
)
