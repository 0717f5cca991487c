"""A swarm of several hosts under random faults: ``python -m compat_tests.endurance.swarm``.

``workload`` makes, updates and removes services and remembers what the swarm must have; ``faults`` breaks hosts and
links; ``experiment`` runs one fault after the other and checks the swarm during and after each.
"""
