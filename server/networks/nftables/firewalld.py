"""firewalld on this host: our bridges are in its zone ``docker``, where dockerd puts its own.

Its table belongs to it alone (``NftablesTableOwner``), so that it has to be asked to let containers through. It is
asked over D-Bus, by systemd's ``busctl``. All methods block and belong in a thread.
"""

import json
import logging
import re
from collections.abc import Collection

from engine.common.errors import WharfError
from engine.common.system.run import run_sync
from engine.common.timeouts import seconds

log = logging.getLogger(__name__)

_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_ZONE, _FORWARDING = "docker", "docker-forwarding"
_ZONE_SETTINGS = (
    *("version", "s", "1.0", "short", "s", _ZONE, "target", "s", "ACCEPT"),
    *("description", "s", "zone for docker bridge network interfaces"),
)
#: What comes from elsewhere: published ports are let in by firewalld itself, routed networks by this.
_FORWARDING_SETTINGS = (
    *("ingress_zones", "as", "1", "ANY", "egress_zones", "as", "1", _ZONE, "target", "s", "ACCEPT"),
    *("description", "s", "allow forwarding to the docker zone"),
)


_CODE = re.compile(r"\b([A-Z][A-Z_]+): ")


class Refused(Exception):
    """firewalld refused a call, in its own words (``NAME_CONFLICT: …``). ``code``: the first of them, "" if it has
    none: D-Bus has one error name for all of firewalld's refusals."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = _CODE.search(message)
        self.code = found[1] if found else ""


class Firewalld:
    """What one engine wants of firewalld."""

    def __init__(self) -> None:
        self._ours: set[str] = set()

    def assign(self, bridges: Collection[str]) -> bool:
        """Puts these bridges in the zone, and takes out those of former calls. False: nothing to do, or no firewalld
        to ask."""
        if not self._ours and not bridges:
            return False
        try:
            if _ZONE not in _call(f"{_NAME}.zone", "getZones"):
                _make_zone()
            there = _call(f"{_NAME}.zone", "getInterfaces", "s", _ZONE)
            for bridge in sorted(self._ours - set(bridges)):
                if bridge in there:
                    self._ask("removeInterface", bridge)
            for bridge in sorted(bridges):
                if bridge not in there:
                    self._ask("addInterface", bridge)
        except (WharfError, OSError, Refused) as error:
            log.debug("firewalld: %s", error)
            return False
        self._ours = set(bridges)
        return True

    def _ask(self, method: str, bridge: str) -> None:
        try:
            _call(f"{_NAME}.zone", method, "ss", _ZONE, bridge)
        except Refused as error:
            # An administrator's own zone for it stays.
            log.warning("firewalld: %s %s: %s", method, bridge, error)


def _make_zone() -> None:
    """Permanently, as dockerd does: firewalld makes no zones for the time being. They are in force after a reload."""
    config, path = f"{_NAME}.config", f"{_PATH}/config"
    for method, name, settings, count in (
        ("addZone2", _ZONE, _ZONE_SETTINGS, "4"),
        ("addPolicy", _FORWARDING, _FORWARDING_SETTINGS, "4"),
    ):
        try:
            _call(config, method, "sa{sv}", name, count, *settings, path=path)
        except Refused as error:
            if error.code != "NAME_CONFLICT":
                raise
    _call(_NAME, "reload")


def _call(interface: str, method: str, *arguments: str, path: str = _PATH) -> list[str]:
    """The answer's strings.

    :raises Refused: it does not want to, or isn't there.
    :raises WharfError, OSError: there is no bus.
    """
    deadline = seconds("firewalld.call")
    argv = ["busctl", "--system", "--auto-start=no", f"--timeout={deadline:g}", "--json=short", "call"]
    done = run_sync([*argv, _NAME, path, interface, method, *arguments], deadline=deadline + 5)
    if done.status != 0:
        raise Refused(done.stderr.decode(errors="replace").strip())
    answer = json.loads(done.stdout) if done.stdout.strip() else {}
    found = answer.get("data") or []
    return [str(each) for each in found[0]] if found and isinstance(found[0], list) else [str(each) for each in found]
