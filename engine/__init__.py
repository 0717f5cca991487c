"""What runs below the gRPC API of containerd: the API itself (``api``), the supervisor, the shim, the calls of the OCI
runtime (``runtime``) and wharf-proxy (``proxy``). ``common`` is what these processes and wharfd both import.
"""
