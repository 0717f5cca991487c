"""BuildKit's front end: serves the protocol that ``docker build`` speaks when buildx is installed.

service.py       the connections: ``POST /grpc`` serves Control and the gateway, ``POST /session`` a client's session
control.py       moby.buildkit.v1.Control
gateway.py       moby.buildkit.v1.frontend.LLBBridge: the part of a build that runs in the client
post_build.py    ``POST /build?version=2``: the same builds, with the context in the body and the status in the response
frontend.py      ``dockerfile.v0``: options, sources, plan, solve
subrequests.py   queries about a Dockerfile that build nothing; outline.py: the arguments of a target
context_files.py the parts of contexts that plans read
platforms.py     the platforms that this host can build for

``jobs`` are the builds themselves, ``sources`` their inputs, ``exporters`` and ``history`` their results.
"""
