"""Log drivers and their options, for the daemon's configuration and for containers; ``drivers`` has a module for each.

This package imports no models, and of the server only ``server.units``: ``wharfd --validate`` and the start check the
configuration before they load the rest.
"""
