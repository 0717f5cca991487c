"""``userns-remap``: the ids of containers (``default``, ``user``, ``user:group``, by names or numbers).

``/etc/subuid`` and ``/etc/subgid`` assign the ids to that user and group (subuid(5)). Each mapping has its own data
root, ``<root>/<uid>.<gid>`` of the container's root, as in dockerd. The sentences are dockerd's.
"""

import grp
import pwd
from dataclasses import replace
from pathlib import Path

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.common.ids import IdMapping, IdMaps
from engine.common.system import private
from server.config import subids
from server.config.model import Config
from server.config.subids import entries, ranges
from server.config.types import ConfigError

SUBUID, SUBGID = subids.SUBUID, subids.SUBGID
#: The user and group of ``default``; created if they are missing.
DEFAULT_USER = "dockremap"
#: The start of ranges for a user without one on the host (useradd(8), ``SUB_UID_MIN`` and ``SUB_UID_COUNT``).
_FIRST, _COUNT = 100_000, 65_536


def remapped(config: Config) -> Config:
    """The configuration with its mapping looked up and its data root created; unchanged without a mapping.

    :raises ConfigError: there is no such user or group, or it has no subordinate ids.
    """
    user, group = _names(config.userns_remap)
    if config.userns_remap == "default":
        _make_default()
    if user == "root":
        # Root stays root: no mapping, as in dockerd.
        return config
    maps = IdMaps(_ranges(SUBUID, user, _uid(user), "uid"), _ranges(SUBGID, group, _gid(group), "gid"))
    uid, gid = maps.root
    root = config.data_root / f"{uid}.{gid}"
    for directory in (config.data_root, root):
        private.restrict_directory(directory, 0o710, group=gid)
    _check_ways(config.data_root, uid, gid)
    return replace(config, data_root=root, id_maps=maps)


def _names(text: str) -> tuple[str, str]:
    """The names of user and group."""
    if text == "default":
        return DEFAULT_USER, DEFAULT_USER
    first, _, second = text.partition(":")
    try:
        user = pwd.getpwuid(int(first)).pw_name if first.isdecimal() else pwd.getpwnam(first).pw_name
    except KeyError:
        if first.isdecimal():
            raise ConfigError(f"Uid {first} has no entry in /etc/passwd") from None
        raise ConfigError(f'Error during uid lookup for "{first}": no such entry in /etc/passwd') from None
    group_text = second or user
    try:
        group = grp.getgrgid(int(group_text)).gr_name if group_text.isdecimal() else grp.getgrnam(group_text).gr_name
    except KeyError:
        if group_text.isdecimal():
            raise ConfigError(f"Gid {group_text} has no entry in /etc/group") from None
        raise ConfigError(f'Error during groupname lookup for "{group_text}": no such entry in /etc/group') from None
    return user, group


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _ranges(path: str, name: str, number: int, kind: str) -> tuple[IdMapping, ...]:
    """Maps container ids from 0 on to the ranges, in the host's order."""
    found = ranges(path, (name, str(number)))
    if not found:
        owner = {"uid": "user", "gid": "group"}[kind]
        raise ConfigError(f'Can\'t create ID mappings: no sub{kind} ranges found for {owner} "{name}" in {path}')
    mappings, inside = [], 0
    for first, size in found:
        mappings.append(IdMapping(inside, first, size))
        inside += size
    return tuple(mappings)


def _make_default() -> None:
    """Creates the user and group of ``default`` with their ranges."""
    try:
        pwd.getpwnam(DEFAULT_USER)
    except KeyError:
        _tool("useradd", "--system", "--shell", "/bin/false", "--user-group", DEFAULT_USER)
    for path, flag in ((SUBUID, "--add-subuids"), (SUBGID, "--add-subgids")):
        known = entries(path)
        if not any(owner == DEFAULT_USER for owner, _, _ in known):
            Path(path).touch(mode=0o644)  # usermod requires the file
            first = max([_FIRST, *(start + size for _, start, size in known)])
            _tool("usermod", flag, f"{first}-{first + _COUNT - 1}", DEFAULT_USER)


def _tool(name: str, *arguments: str) -> None:
    from engine.common.system.run import (
        run_sync,  # imports asyncio, which forks of this process should not contain
    )

    try:
        run_sync([name, *arguments], deadline=timeouts.seconds("program.run"), check=True)
    except FileNotFoundError:
        raise ConfigError(f"Can't create ID mappings: {name} is missing: create user {DEFAULT_USER} manually") from None
    except WharfError as error:
        raise ConfigError(f"Can't create ID mappings: {error.message}") from None


def _check_ways(root: Path, uid: int, gid: int) -> None:
    """Checks that the container's root can reach its files.

    :raises ConfigError: a directory above them is closed to it.
    """
    for part in (root, *root.parents):
        info = part.stat()
        own = info.st_mode & 0o100 and info.st_uid == uid
        if not (info.st_mode & 0o1 or own or (info.st_mode & 0o10 and info.st_gid == gid)):
            raise ConfigError(
                f"a subdirectory in your graphroot path ({root}) restricts access to the remapped root uid/gid; "
                "please fix by allowing 'o+x' permissions on existing directories"
            )
