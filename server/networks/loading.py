"""Loads the code of networks that few engines have, at the first use."""

from typing import TYPE_CHECKING

from server.networks.context import NetworkContext
from server.networks.remotes import RemoteNetworks
from server.plugins.discovery import Plugins

if TYPE_CHECKING:
    from server.networks.overlay.service import SwarmOverlays


def load_remote(context: NetworkContext, plugins: Plugins) -> RemoteNetworks:
    """The networks that use plugins. An engine without any does not import their code."""
    from server.networks.remote.service import PluginNetworks

    return PluginNetworks(context, plugins)


def load_overlays(context: NetworkContext) -> "SwarmOverlays":
    """The networks of the swarm. An engine that is part of none does not import their code."""
    from server.networks.overlay.service import SwarmOverlays

    return SwarmOverlays(context)


def overlays_of(context: NetworkContext) -> "SwarmOverlays":
    """``NetworkContext.overlays``, with all methods."""
    from server.networks.overlay.service import SwarmOverlays

    overlays = context.overlays
    assert isinstance(overlays, SwarmOverlays)
    return overlays
