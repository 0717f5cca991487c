"""Images: registries, archives, names, disk usage."""
