"""The process wharf-supervisor, in containerd's place: content, images, snapshots, leases, containers, tasks and events
behind containerd's gRPC API.

``__main__`` starts it, ``wiring`` creates its parts, ``server`` serves them. ``rpc`` has the servicers, each of which
calls the module of its noun; ``snapshots`` and ``tasks`` are packages. All metadata is in the database of ``store``;
``gc`` removes what nothing references. ``shims`` forks the shims, which outlive this process.
"""
