"""Log drivers and their options, for the daemon's configuration and for containers. Imports no other room, as the
configuration is checked before they are loaded.
"""
