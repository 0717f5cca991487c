"""``--security-opt``: parses the options, with dockerd's sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.common.errors import internal

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """``seccomp`` and ``apparmor``: "" not set. ``no_new_privileges`` and ``writable_cgroups``: None not set."""

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""
    writable_cgroups: bool | None = None


def parse(options: Sequence[str] | None) -> SecurityOptions:
    """Parses ``HostConfig.SecurityOpt``: ``key=value``, or the older form ``key:value``. SELinux labels have no effect,
    as in a dockerd without ``--selinux-enabled``.

    :raises WharfError: INTERNAL, as in dockerd: an unknown or malformed option.
    """
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
        if option == "disable":  # a label
            continue
        # "=" first: the JSON of a seccomp profile contains colons.
        key, found, value = option.partition("=")
        if not found:
            key, found, value = option.partition(":")
        if not found:
            raise internal(f'invalid --security-opt 1: "{option}"')
        match key:
            case "label":
                continue
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
    return SecurityOptions(no_new_privileges, seccomp, apparmor, writable_cgroups)


def _boolean(option: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise internal(f'invalid --security-opt 2: "{option}"')
