"""BuildKit's wire: the messages of its Control, gateway and session services, the transport that carries
gRPC over a hijacked HTTP connection, and a client of the services that a CLI's session offers.

What a build does lives in ``server/builder`` and ``server/builder``; nothing here knows Dockerfiles.
"""
