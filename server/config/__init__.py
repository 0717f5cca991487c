"""The daemon's configuration: dockerd's flags and ``daemon.json`` keys, merged and checked."""

from server.config.load import load, reload
from server.config.model import Config
from server.config.types import AddressPool, BuilderGc, ConfigError, GcRule, Runtime, Ulimit

__all__ = ["AddressPool", "BuilderGc", "Config", "ConfigError", "GcRule", "Runtime", "Ulimit", "load", "reload"]
