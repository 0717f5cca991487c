"""The builder: a Dockerfile becomes a graph of steps, solved on the snapshots, tasks and content of the engine.

    dockerfile/     from text to instructions: directives, lines, heredocs, flags, expansion, .dockerignore, checks.
                    Pure functions of text; knows no engine and no client.
    imageconfig.py  the image's configuration and history, and what an instruction does to them
    steps.py        the operations that make layers, as data
    keys.py         their keys: by definition, known before anything runs, and by content
    plan.py         instructions and the bases' configurations → stages of steps (stage.py one stage, planned.py
                    the data); variables are replaced here
    wording.py      how instructions are shown in a history; checks of words
    select.py       which files of a source an operation means, and their checksums
    pack.py         those files as a layer (ownership, modes, what is there already)
    copying.py      one COPY, ADD or WORKDIR: its files, then its layer
    running.py      the mounts of one RUN
    difference.py   what a RUN changed, as a layer
    convert.py      a layer made anew: another compression, no time later than a given one
    cache.py        results by key: kept over restarts, held by leases, pruned; what definitions came to
    cacheconfig.py  a cache as a document that travels; remote.py what the solver asks of one
    llbkeys.py      the keys that BuildKit gives to the same steps; contenthash.py its hash of a context's files
    ground.py       base images, laid out when a step is made on them
    solve.py        solves what is needed, in parallel, each key once (shared.py)
    lookup.py       finds steps in caches; making.py makes those that are in none; failed.py how steps fail
    holding.py      what one build uses of the cache, and adds to it
    work.py         what the solver needs from around it: contexts, a runner of processes, progress

The front doors (``POST /build``, BuildKit's Control) are in ``server/services/build``; the wire of BuildKit is
``engine/buildkit``.
"""
