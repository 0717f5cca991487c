"""Parses a Dockerfile into instructions.

``parse.parse(text)`` returns a :class:`~server.builder.dockerfile.instructions.Dockerfile`: stages of typed
instructions, each with its lines. Words are unexpanded; ``expand.expand`` replaces variables once the builder knows
them. Errors are :class:`~server.builder.dockerfile.errors.DockerfileError` with the lines concerned.

Reference: docs.docker.com/reference/dockerfile.
"""
