"""`docker exec`: the process, its streams, and refusals."""
