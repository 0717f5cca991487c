"""Published ports: allocation on the host, port mappings, and their form in inspect."""
