"""BuildKit's protocol as a front door of the builder: what ``docker build`` speaks when buildx is installed.

service.py    the connections: ``POST /grpc`` serves Control and the gateway, ``POST /session`` is a client's session
control.py    moby.buildkit.v1.Control
posted.py     ``POST /build?version=2``: the same builds, with the context in the body and the status in messages
gateway.py    moby.buildkit.v1.frontend.LLBBridge: the half of a build that runs in the client
job.py        one build: its status for whoever watches, its results, its end
frontend.py   ``dockerfile.v0``: options, sources, plan, solve
bases.py      base images
layouts.py    images in folders of the client
subrequests.py what is asked of a Dockerfile without building it (outline.py what a target may be given)
sources.py    contexts, secrets and agents from the client's session
mirrors.py    the folders of clients, kept between builds
inputs.py     results of other builds as contexts
caches.py     caches from and to images, registries, folders of the client
progress.py   vertexes, statuses, logs and warnings
export.py     results to images, archives and folders (wishes.py what is asked of them, assemble.py their documents)
provenance.py where an image comes from
history.py    builds that are over (records.py where they are kept)
platforms.py  what builds may be for
failure.py    errors with the lines they are about
"""
