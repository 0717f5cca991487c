"""The managers' side of ``server.swarm.agent.dispatcher``: computes assignments from the state, stores reports."""
