"""The builder: a Dockerfile becomes a graph of steps, solved on the snapshots, tasks and content of the engine.

    dockerfile/   from text to instructions: directives, lines, heredocs, flags, expansion, .dockerignore, checks.
                  Pure functions of text; knows no engine and no client.
    (the graph, the solver and the cache follow here; the front doors are in ``server/services/build``)

The wire of BuildKit is ``engine/buildkit``.
"""
