"""Hostile input and races: what a container, an image or a client does to reach what isn't its own."""
