"""Solves steps: finds each by its keys or makes it, once for all builds that wait for it."""
