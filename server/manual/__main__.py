"""``python -m server.manual DIRECTORY``: writes the man pages and completions below a directory like ``/usr/share``."""

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

from server.manual.command import Command
from server.manual.completion import bash, fish, zsh
from server.manual.roff import man_page
from server.manual.wharf import wharf
from server.manual.wharfd import wharfd
from server.version import SERVER_VERSION

# The programs, with the sections of their man pages.
PROGRAMS: tuple[tuple[Command, int], ...] = ((wharfd(), 8), (wharf(), 1))


def write(root: Path) -> None:
    version = SERVER_VERSION.partition("+wharf.")[2]
    for command, section in PROGRAMS:
        name = command.name
        # Without a time in the header: the same sources make the same file.
        page = gzip.compress(man_page(command, section=section, version=version).encode(), mtime=0)
        for path, data in (
            (f"man/man{section}/{name}.{section}.gz", page),
            (f"bash-completion/completions/{name}", bash(command).encode()),
            (f"zsh/vendor-completions/_{name}", zsh(command).encode()),
            (f"fish/vendor_completions.d/{name}.fish", fish(command).encode()),
        ):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m server.manual", description=__doc__)
    parser.add_argument("directory", type=Path)
    write(parser.parse_args(arguments).directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
