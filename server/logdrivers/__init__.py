"""Log drivers and their options, for the daemon's configuration and for containers: ``drivers`` has a module for each.
Imports no models and no other package but ``server.units``, as the configuration is checked before they are loaded.
"""
