"""gRPC over HTTP/2: the part of RFC 9113 that gRPC needs, in both roles.

It carries containerd's API between wharfd and the supervisor, and the calls of BuildKit's clients on hijacked
connections of ``POST /grpc`` and ``POST /session``. gRPC's core library can neither serve a connected socket nor dial
over one, has threads of its own, which no fork survives, and needs 14 MiB in each process. Header blocks use
``hpack``. Frames are parsed here instead of by ``h2``, because a context of 20,000 files is as many messages.

Measured: a call takes 0.15 ms, and 0.4 to 0.7 ms with grpc.aio; 20,000 messages of 150 bytes take 22 ms of the event
loop here and 190 ms with ``h2``; messages of 32 KiB take 0.24 s and 1.66 s.

:mod:`connection` reads and writes frames, :mod:`headers` their header blocks, :mod:`stream` is one call.
:mod:`engine.api.serving` connects services to plain objects, :mod:`engine.api.rpc` calls them.
"""
