"""The builder: a Dockerfile becomes a graph of steps, solved on the snapshots, tasks and content of the engine.

The way of a build, one room for each stage: ``dockerfile`` parses the text; ``plan`` applies instructions to image
configurations and emits steps; ``solver`` looks steps up by their keys or makes them; ``operations`` are what makes
layers; ``cache`` keeps results. Two front ends share them: ``classic`` (``POST /build``) and ``buildkit`` (what
``docker buildx`` speaks), with its ``jobs``, ``sources``, ``exporters``, ``history`` and wire protocol (``session``).

:class:`server.builder.service.Builds` is the entry; :mod:`server.builder.facade` loads it when the first build arrives.
"""
