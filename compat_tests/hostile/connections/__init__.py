"""Clients in large numbers, clients that stall, and clients that send only costly messages."""
