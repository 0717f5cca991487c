"""dockerd's sentences for requests that need swarm mode, for all rooms: ``server.swarm`` is only loaded in a swarm."""

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    "to swarm and try again."
)
WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
NO_SWARM = "This node is not part of a swarm"
SWARM_EXISTS = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
JOIN_TIMEOUT = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the"
    ' "docker info" command to see the current swarm status of your node.'
)
