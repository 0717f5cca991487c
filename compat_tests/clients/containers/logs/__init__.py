"""`docker logs`, rotation, and the log drivers."""
