"""Hostile input and races: containers, images and clients that try to access what is not theirs."""
