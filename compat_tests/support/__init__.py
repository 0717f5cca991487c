"""What the tests share: engines, registries, gates, streams, leak checks."""
