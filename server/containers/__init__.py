"""Containers: create, run, inspect and remove them, with Docker's semantics and no HTTP.

:class:`server.containers.service.Containers` is what routes and other services call. A package per group of verbs:
``create``, ``run``, ``mounts``, ``logs``, ``inspect``, ``stdio``, ``exec``, ``archive``. Below them: ``spec`` writes
the OCI spec, ``host`` has what this host offers, ``values`` checks single values of a request. ``context`` is the
object that all verbs share; ``model`` is the record of one container.
"""
