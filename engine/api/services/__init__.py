"""The clients of containerd's services, one module for each. ``engine.api.client.Engine`` has one object of each class.

A method makes one call, or one stream of calls. It takes and returns the dataclasses of ``engine.api.types`` and raises
WharfError with the kind that the server answered.
"""
