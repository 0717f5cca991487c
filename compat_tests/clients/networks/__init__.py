"""Networks: addresses, names, ports, the firewall."""
