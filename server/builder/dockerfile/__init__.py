"""From a Dockerfile's text to instructions.

``parse.parse(text)`` gives a :class:`~server.builder.dockerfile.instructions.Dockerfile`: stages of typed instructions,
each with its lines. Words are still unexpanded; ``expand.expand`` replaces variables when the builder knows them.
Errors are :class:`~server.builder.dockerfile.errors.DockerfileError` with the lines they speak of.

Reference: docs.docker.com/reference/dockerfile.
"""
