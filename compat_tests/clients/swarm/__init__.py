"""Swarm mode."""
