"""``--security-opt``: what the strings mean, checked at create with dockerd's sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.common.errors import internal

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """``seccomp`` and ``apparmor``: "" nothing said. ``no_new_privileges``: None nothing said (the daemon's
    default holds). ``labels``: SELinux label options such as ``disable`` or ``type:x``.
    """

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    writable_cgroups: bool | None = None


def parse(options: Sequence[str] | None) -> SecurityOptions:
    """Reads ``HostConfig.SecurityOpt``; ``key=value``, and ``key:value`` as in old times.

    :raises WharfError: INTERNAL, as dockerd has it, for one that isn't known.
    """
    labels: list[str] = []
    no_new_privileges: bool | None = None
    writable_cgroups: bool | None = None
    seccomp = apparmor = ""
    for option in options or ():
        if option in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
            no_new_privileges = True
            continue
        if option == "writable-cgroups":
            writable_cgroups = True
            continue
        if option == "disable":
            labels.append("disable")
            continue
        # The separator is the first that occurs: a seccomp profile's JSON is full of colons.
        key, found, value = option.partition("=")
        if not found:
            key, found, value = option.partition(":")
        if not found:
            raise internal(f'invalid --security-opt 1: "{option}"')
        match key:
            case "label":
                labels.append(value)
            case "apparmor":
                apparmor = value
            case "seccomp":
                seccomp = "" if value == "builtin" else value
            case "no-new-privileges":
                no_new_privileges = _boolean(option, value)
            case "writable-cgroups":
                writable_cgroups = _boolean(option, value)
            case _:
                raise internal(f'invalid --security-opt 2: "{option}"')
    return SecurityOptions(no_new_privileges, seccomp, apparmor, tuple(labels), writable_cgroups)


def _boolean(option: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise internal(f'invalid --security-opt 2: "{option}"')
