"""BuildKit's protocol as a front door of the builder: what ``docker build`` speaks when buildx is installed.

service.py     the connections: ``POST /grpc`` serves Control and the gateway, ``POST /session`` is a client's session
control.py     moby.buildkit.v1.Control
posted.py      ``POST /build?version=2``: the same builds, with the context in the body and the status in messages
gateway.py     moby.buildkit.v1.frontend.LLBBridge: the half of a build that runs in the client
frontend.py    ``dockerfile.v0``: options, sources, plan, solve
subrequests.py what is asked of a Dockerfile without building it (outline.py what a target may be given)
platforms.py   what builds may be for

The builds themselves are ``jobs``. What they read is in ``sources``; what becomes of them is in ``exporters`` and
``history``.
"""
