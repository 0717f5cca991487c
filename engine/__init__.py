"""The processes below the gRPC API of containerd: the API itself (``api``), the supervisor, the shim and wharf-proxy
(``proxy``). ``runtime`` finds the host's OCI runtimes. ``common`` is what these processes and wharfd both import.
"""
