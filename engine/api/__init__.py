"""containerd's gRPC API, the line between wharfd and the supervisor.

``protos`` are compiled to ``pb`` by ``generate``. For clients: ``client`` with the calls of ``services``, made by
``rpc``; ``stdio`` passes clients' sockets to shims. For servers: ``serving`` and ``filters``. Both sides use ``http2``,
``types``, ``event_types``, ``labels``, ``errors``, ``lean`` (messages encoded without copies) and ``extensions`` (what
our supervisor and shims have beyond containerd).
"""
