"""dockerd's sentences for requests that need swarm mode, for all rooms: ``server.swarm`` is only loaded in a swarm."""

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    "to swarm and try again."
)
WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
#: The manager begins, or continues with another store or role.
NOT_READY = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
NO_SWARM = "This node is not part of a swarm"
SWARM_EXISTS = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online."
    " Make sure more than half of the managers are online."
)
LAST_MANAGER = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
LOSES_QUORUM = (
    "Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm will be inaccessible. "
)
ONLY_NEW_CLUSTER = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use"
    " `--force` to suppress this message."
)
MAY_LOSE_CONSENSUS = "Doing so may lose the consensus of your cluster. " + ONLY_NEW_CLUSTER
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
JOIN_TIMEOUT = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the"
    ' "docker info" command to see the current swarm status of your node.'
)
CERTIFICATES_EXPIRED = "Swarm certificates have expired. To replace them, leave the swarm and join again."

#: A node has no valid token of the swarm that it wants to join. SwarmKit's, by gRPC.
TOKEN_NEEDED = "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"
