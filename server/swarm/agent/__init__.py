"""The agent: runs the tasks that are assigned to this node. ``dispatcher`` is all that it knows of the swarm.

Data travels one way: assignments → ``worker`` → a ``runner`` for each task, which makes the container by
``taskcontainer``, pulls by ``images`` and writes ``files`` → ``reports`` → the managers. ``neighbours`` are the
services of this engine; ``failover`` chooses the manager on a manager's node. The agent stores nothing: after a restart
it finds its containers by their labels.
"""
