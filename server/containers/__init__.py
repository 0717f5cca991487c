"""Containers: create, run, inspect and remove them, with Docker's semantics and no HTTP.

:class:`server.containers.service.Containers` is what routes and other services call. A package per group of verbs:
``create``, ``run``, ``mounts``, ``logs``, ``inspect``, ``stdio``, ``exec``, ``archive``; ``spec`` writes the OCI spec,
``host`` knows what this host offers. ``context`` is what all verbs work with; ``model`` is the record of one container.
"""
