"""``docker create`` and ``docker update``: a request is validated, merged with its image, and becomes a record.

Nothing is made before the whole request has been checked; the checks are in dockerd's order, with its sentences.
"""
