"""The daemon's configuration: dockerd's flags and ``daemon.json`` keys, merged and checked."""

from server.config.load import load, reload
from server.config.model import AddressPool, Config, ConfigError, Runtime, Ulimit

__all__ = ["AddressPool", "Config", "ConfigError", "Runtime", "Ulimit", "load", "reload"]
