"""One build of BuildKit's front end, below all that takes part in it.

job.py       its status for whoever watches, its results, its end
options.py   what its client asks for
progress.py  vertexes, statuses, logs and warnings
inputs.py    results of other builds as contexts
failure.py   errors with the lines they are about
"""
