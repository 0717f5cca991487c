"""From a Dockerfile's text to instructions.

``parse.parse(text)`` gives a :class:`~engine.build.dockerfile.instructions.Dockerfile`: stages of typed instructions,
each with its lines. Words are still unexpanded; ``expand.expand`` replaces variables when the builder knows them.
Errors are :class:`~engine.build.dockerfile.errors.DockerfileError` with the lines they speak of.

Reference: docs.docker.com/reference/dockerfile.
"""
