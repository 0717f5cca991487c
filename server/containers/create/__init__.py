"""``docker create`` and ``docker update``: validates a request, merges it with its image, and makes or changes a
record.

The whole request is checked before anything is made. The checks have dockerd's order and sentences.
"""
