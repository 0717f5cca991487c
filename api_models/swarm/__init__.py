"""Objects of swarm mode: the bodies of requests, and the specs that services, nodes, secrets and configs store.

Durations are in nanoseconds. A record's ``wire`` is its form in answers and in the swarm's store.
"""
