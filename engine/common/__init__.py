"""Code that both wharfd and the processes below the gRPC API import: errors, limits, time-outs, system calls, files,
layers.

Nothing here imports another package of ``engine``, or ``server``.
"""
