"""The standard streams of one process. ``streams`` reads its output for log and clients, ``stdin`` is its input.
A client is a ``sink``: a FIFO, a file, or the socket of a ``session`` that ``attach`` receives.
"""
