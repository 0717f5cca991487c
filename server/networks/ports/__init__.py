"""Published ports: allocation on the host, port mappings, and what inspect shows of them."""
