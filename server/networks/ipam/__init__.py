"""Addresses: subnets from pools, the default bridge's subnet, allocation within a subnet."""
