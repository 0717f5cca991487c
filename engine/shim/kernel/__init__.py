"""What the shim asks of the kernel beyond ``os``: ``syscalls``, ``devices``, ``processes``, ``cgroups`` and the OOM
killer's events (``oom``).
"""
