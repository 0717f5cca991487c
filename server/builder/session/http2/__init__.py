"""gRPC on connections that are already open: the part of HTTP/2 (RFC 9113) that gRPC needs, in both roles.

gRPC's core can neither serve a connected socket nor dial over one, as a hijacked ``POST /grpc`` or ``POST /session``
requires; bridging through private sockets costs two copies and a thread's wake-up per message. Header blocks use
``hpack``. Frames are parsed here instead of by ``h2``, because a context of 20,000 files is as many messages.
Measured: 20,000 messages of 150 bytes take 22 ms of the event loop here and 190 ms with ``h2``; messages of 32 KiB take
0.24 s and 1.66 s.

:mod:`connection` reads and writes frames, :mod:`stream` is one call, :mod:`serving` connects services to plain objects.
"""
