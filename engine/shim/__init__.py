"""The process wharf-shim: one per container, forked by ``zygote``; it outlives both daemons.

It calls the OCI runtime (``oci``, ``runner``), and keeps the container's standard streams (``stdio``) and ``logs``.
It imports the standard library and this package only: what the zygote loads is memory of every shim.
"""
