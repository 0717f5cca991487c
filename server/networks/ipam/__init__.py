"""Addresses: subnets from pools, allocation within a subnet."""
