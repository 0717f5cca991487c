"""Capabilities: their names, Docker's default set, and its changes by ``--cap-add`` and ``--cap-drop``."""

from collections.abc import Iterable, Sequence

from engine.common.errors import invalid

#: The names in the order of their numbers (include/uapi/linux/capability.h).
KNOWN: tuple[str, ...] = tuple(
    "CAP_" + name
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
        *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL"),
        *("SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ"),
        *("PERFMON", "BPF", "CHECKPOINT_RESTORE"),
    )
)

DEFAULT: tuple[str, ...] = tuple(
    "CAP_" + name
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP"),
        *("SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)

ALL = "ALL"
_KNOWN_SET = frozenset(KNOWN)


def normalize(names: Iterable[str] | None) -> list[str]:
    """The names in upper case with the prefix ``CAP_``, and ``ALL`` unchanged.

    :raises WharfError: INVALID_ARGUMENT: an unknown name.
    """
    result = []
    for name in names or ():
        upper = name.upper()
        if upper != ALL:
            if not upper.startswith("CAP_"):
                upper = "CAP_" + upper
            if upper not in _KNOWN_SET:
                raise invalid(f'unknown capability: "{upper}"')
        result.append(upper)
    return result


def tweak(add: Sequence[str], drop: Sequence[str], *, privileged: bool, available: Sequence[str]) -> tuple[str, ...]:
    """The capabilities of a container. ``available``: the daemon's bounding set.

    :raises WharfError: INVALID_ARGUMENT: an unknown name.
    """
    if privileged:
        return tuple(available)
    added, dropped = normalize(add), frozenset(normalize(drop))
    if ALL in added:
        return tuple(name for name in available if name not in dropped)
    base = [] if ALL in dropped else [name for name in DEFAULT if name not in dropped]
    return tuple(dict.fromkeys((*base, *added)))
