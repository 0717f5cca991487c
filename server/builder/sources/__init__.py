"""Inputs of builds: contexts, base images, remote sources, OCI layouts, and imported caches."""
