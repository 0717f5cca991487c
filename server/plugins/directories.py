"""The directories in which plugins are found by their names.

A plugin has a socket ``<name>.sock`` (or ``<name>/<name>.sock``) in ``/run/docker/plugins``, or a file in
``/etc/docker/plugins`` or ``/usr/lib/docker/plugins`` (or in ``<name>/`` there): ``<name>.spec`` with its address, or
``<name>.json`` (see :mod:`server.plugins.address`). ``WHARF_PLUGINS`` in the environment names another directory for
the sockets.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.common.errors import internal
from server.plugins.address import Address, read_json, read_spec

SOCKETS = (Path(os.environ.get("WHARF_PLUGINS", "/run/docker/plugins")),)
SPECS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
#: The longest name in bytes: with its suffix it is the name of a file.
_MAX_NAME = 250


class PluginDirectories:
    """Finds plugins. ``sockets``: directories of sockets, ``specs``: directories of ``.spec`` and ``.json`` files."""

    def __init__(self, sockets: Sequence[Path] = SOCKETS, specs: Sequence[Path] = SPECS) -> None:
        self._sockets = sockets
        self._specs = specs

    def names(self) -> Iterator[str]:
        """The names of all plugins, including those in their own directories."""
        sockets = [(directory, ".sock") for directory in self._sockets]
        files = [(directory, suffix) for directory in self._specs for suffix in (".spec", ".json")]
        for directory, suffix in sockets + files:
            try:
                entries = list(os.scandir(directory))
            except OSError:
                continue
            for entry in entries:
                if entry.name.endswith(suffix):
                    yield entry.name.removesuffix(suffix)
                elif entry.is_dir() and os.path.exists(f"{entry.path}/{entry.name}{suffix}"):
                    yield entry.name

    def find(self, name: str) -> Address | None:
        """The address of a plugin of any kind; None: there is no plugin of this name.

        :raises WharfError: INTERNAL: its file is malformed.
        """
        if "/" in name or name.startswith(".") or len(os.fsencode(name)) > _MAX_NAME:
            return None
        for directory in self._sockets:
            for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                if path.is_socket():
                    return Address(f"unix://{path}")
        for directory in self._specs:
            for parent in (directory, directory / name):
                for path, read in ((parent / f"{name}.spec", read_spec), (parent / f"{name}.json", read_json)):
                    if not path.is_file():
                        continue
                    try:
                        return read(path)
                    except (OSError, ValueError) as error:
                        raise internal(f'plugin "{name}": {path}: {error}') from error
        return None
