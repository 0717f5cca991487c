"""Shared test support: engines, registries, proxies, streams, leak checks."""
