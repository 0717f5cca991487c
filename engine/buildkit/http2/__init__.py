"""gRPC on a connection that is open already: as much of HTTP/2 (RFC 9113) as gRPC needs, in both roles.

gRPC's core can neither serve a connected socket nor dial over one, which is all that a hijacked ``POST /grpc`` and
``POST /session`` are. :mod:`hpack` reads and writes header blocks, :mod:`connection` frames, :mod:`stream` one call,
:mod:`serving` joins plain objects to services.
"""
