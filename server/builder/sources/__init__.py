"""What builds read: contexts, base images, remote sources, layouts, and caches that clients or registries provide."""
