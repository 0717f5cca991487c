"""BuildKit's wire protocol: the messages of its Control, gateway and session services, the transport that carries
gRPC over a hijacked HTTP connection, and a client of the services that a CLI's session offers.

This package knows nothing of Dockerfiles.
"""
