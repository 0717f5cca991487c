"""firewalld on this host: puts our bridges in its zone ``docker``, as dockerd does.

Only firewalld may change its table (``NftablesTableOwner``), so it must be asked to accept the containers' traffic,
over D-Bus, by systemd's ``busctl``. All methods block: call them in a thread.
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
#: Traffic from elsewhere: firewalld itself accepts published ports, this accepts routed networks.
_FORWARDING_SETTINGS = (
    *("ingress_zones", "as", "1", "ANY", "egress_zones", "as", "1", _ZONE, "target", "s", "ACCEPT"),
    *("description", "s", "allow forwarding to the docker zone"),
)


_CODE = re.compile(r"\b([A-Z][A-Z_]+): ")


class Refused(Exception):
    """firewalld refused a call, with its own words (``NAME_CONFLICT: …``). ``code``: the first of them, "" if it has
    none: D-Bus has one error name for all of firewalld's refusals."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = _CODE.search(message)
        self.code = found[1] if found else ""


class Firewalld:
    """One engine's settings in firewalld."""

    def __init__(self) -> None:
        self._ours: set[str] = set()

    def assign(self, bridges: Collection[str]) -> bool:
        """Puts these bridges in the zone, and removes those of former calls. Returns False if there is nothing to do,
        or no firewalld."""
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
            # The bridge stays in an administrator's own zone.
            log.warning("firewalld: %s %s: %s", method, bridge, error)


def _make_zone() -> None:
    """Creates the zone permanently, as dockerd does: firewalld has no temporary zones. It is active after a reload."""
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
    """The strings of the answer.

    :raises Refused: firewalld refuses, or isn't running.
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
