"""gRPC on a connection that is open already: as much of HTTP/2 (RFC 9113) as gRPC needs, in both roles.

gRPC's core can neither serve a connected socket nor dial over one, which is all that a hijacked ``POST /grpc`` and
``POST /session`` are; over private sockets of its own each message cost two hops and a thread's wake-up. Header blocks
are python-hyper's ``hpack``. Frames are read here and not by its ``h2``: a context of 20,000 files is as many messages.
Measured: 20,000 messages of 150 bytes take 22 ms of the event loop here and 190 ms with ``h2``, while no other client
is served; messages of 32 KiB take 0.24 s and 1.66 s.

:mod:`connection` reads and writes frames, :mod:`stream` is one call, :mod:`serving` joins plain objects to services.
"""
