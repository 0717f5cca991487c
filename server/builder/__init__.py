"""The builder: turns a Dockerfile into a graph of steps and solves it with the engine's snapshots, tasks and content.

The packages follow the stages of a build: ``dockerfile`` parses the text; ``plan`` applies instructions to image
configurations and emits steps; ``solver`` looks steps up by cache keys or runs them; ``operations`` create layers;
``cache`` stores results. Two front ends share them: ``classic`` (``POST /build``) and ``buildkit`` (what
``docker buildx`` speaks), with its ``jobs``, ``sources``, ``exporters``, ``history`` and wire protocol (``session``).

:class:`server.builder.service.Builds` is the entry; :mod:`server.builder.facade` loads it for the first build.
"""
