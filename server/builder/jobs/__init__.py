"""The builds of BuildKit's front end.

job.py       a build: its status messages, its results, its end
options.py   the options of ``dockerfile.v0``
progress.py  vertexes, statuses, logs and warnings
inputs.py    results of other builds as contexts
failure.py   errors with Dockerfile lines
"""
