"""The process wharf-shim: one per container, forked by ``zygote``; it outlives both daemons.

``shim`` serves the supervisor's requests. It calls the OCI ``runtime``, follows the processes of the ``container``, and
keeps their standard streams (``stdio``) and ``logs``. Beside a stock containerd, ``iohost`` has only streams and logs.
Both run on ``loop`` and speak ``protocol`` over the sockets of ``server``; ``kernel`` has the system calls.

It imports the standard library and this package only: what the zygote loads is memory of every shim.
"""
