"""The firewall: the engine's nftables table, applied in one transaction per change, and firewalld's zone."""
