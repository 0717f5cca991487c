"""The controllers: loops of the swarm's leader. Each compares what is wanted with what is there and commits the
difference; it keeps nothing that matters in memory, so that another leader can continue at any moment.

================  ===================================================================================================
``runner``        the loop: collects the services that changes concern, commits what they need, keeps the timers
``plan``          one reconcile: the stages below in their order, on one ``draft`` of changes over the tables
``orchestrator``  which tasks a service has: slots, nodes, jobs, restarts, updates, the end of tasks
``allocator``     virtual addresses and published ports of services, addresses of tasks
``scheduler``     on which node a task runs
``nodes``         which nodes are alive, which managers become workers
================  ===================================================================================================
"""
