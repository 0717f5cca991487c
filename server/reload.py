"""SIGHUP: reads the configuration file again and applies the settings that dockerd reloads."""

import asyncio
import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.common.errors import WharfError
from server.access.caller import Caller
from server.app import EngineApp
from server.config import Config, ConfigError, reload
from server.config.flags import Given
from server.config.load import masked
from server.config.options import OPTIONS
from server.log import set_level
from server.wiring import Services

if TYPE_CHECKING:
    from server.access.gate import Gate
    from server.access.policy import Policy

log = logging.getLogger("wharfd")

_RELOADED = tuple(option for option in OPTIONS if option.reloads)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_shown(each)}" for key, each in sorted(value.items())) + "]"
    if isinstance(value, tuple):
        return "[" + ",".join(f'"{each}"' for each in value) + "]"
    return str(value)


class Reloader:
    """Applies a changed ``daemon.json`` to the running services."""

    def __init__(self, config: Config, given: Given, services: Services, app: EngineApp) -> None:
        self._config = config
        self._given = given
        self._services = services
        self._app = app
        # The look-up of a plugin may take seconds: an earlier signal must not win over a later one.
        self._lock = asyncio.Lock()

    async def reload(self) -> None:
        """Reload the file. An invalid file is logged, and nothing changes."""
        async with self._lock:
            await self._reload()

    async def _reload(self) -> None:
        log.info("Got signal to reload configuration, reloading from: %s", self._config.config_file)
        # A reload of the firewall has deleted our rules: restore them.
        await self._services.networks.restore()
        try:
            read = reload(self._given)
            gate = self._app.gate
            access = self._reread(gate) if gate is not None else None
            if read.authorization_plugins != self._config.authorization_plugins:
                await self._app.authorize(read.authorization_plugins)
        except ConfigError as error:
            log.error("%s", error)
            return
        except WharfError as error:
            log.error("failed to validate authorization plugin: %s", error.message)
            return
        fields = {option.attribute: getattr(read, option.attribute) for option in _RELOADED}
        self._config = replace(self._config, **fields, given=read.given)
        self._apply(self._config)
        if gate is not None and access is not None:
            # Also for an unchanged policy: the bound services have copies of settings.
            gate.reload(*access)
            if self._app.sessions is not None:
                self._app.sessions.end_all()
        attributes = {option.name: _shown(fields[option.attribute]) for option in _RELOADED}
        attributes["runtimes"] = " ".join(f"{name}:{runtime.path}" for name, runtime in self._config.runtimes.items())
        proxies = {"http-proxy": masked(read.http_proxy), "https-proxy": masked(read.https_proxy)}
        log.info("Reloaded configuration: %s", json.dumps({**attributes, **proxies, "no-proxy": read.no_proxy}))
        attributes["name"] = platform.node()
        self._services.events.publish("daemon", "reload", self._services.system.identity, attributes)

    def _reread(self, gate: "Gate") -> "tuple[Policy | None, dict[str, Caller]]":
        """:raises ConfigError: the policy is invalid or missing."""
        from server.access.setup import reread

        return reread(gate, self._config, self._app.endpoints)

    def _apply(self, config: Config) -> None:
        set_level(config)
        self._services.system.config = config
        self._services.images.transfer.reload(config)
        self._services.containers.reload(config)
