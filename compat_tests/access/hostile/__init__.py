"""Hostile users: each tries to see, use, change or exhaust what belongs to another, through every way there is.

What each endpoint answers is tested from the route table in ``server/tests/api/test_hostile.py``; here real users
attack with real clients, over networks, registries, descriptors, namespaces and cgroups.
"""
