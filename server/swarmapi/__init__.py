"""What a node of a swarm serves to other nodes; the requests are listed in ``server.swarm.remote``. The composition
root imports this package only in a swarm."""
