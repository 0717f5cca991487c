"""Swarm mode: services, tasks, nodes, secrets, configs and the networks that nodes share.

Data travels one way: an operation of the API, or a controller, commits changes to the store; each commit reaches
``state``, the copy of the store in memory; controllers and the agent are woken by it, compare what is wanted with what
is there, and commit again.

=============  =====================================================================================================
``store``      keys with revisions: get, range, watch, transactions with conditions, leases
``model``      the objects, as they are stored
``state``      the copy in memory, with look-ups; transactions of objects
``operations`` what the API's routes call; no loop, no container
``controllers`` the leader's loops: tasks of services, updates, restarts, placement, addresses, ports, history
``agent``      runs the tasks of this node as containers; uses the swarm only through ``agent.dispatcher``
``remote``     how nodes speak with each other; ``server.swarmapi`` is the other side
``facade``     what the rest of the daemon imports; loads the others when this node is part of a swarm
=============  =====================================================================================================

The words are SwarmKit's: a service has tasks; a task has a desired state and an observed one; a slot is the number of a
replica; a node is a manager, a worker, or both.
"""
