"""``wharfd``: the entry point; forks the zygote before it imports anything else.

Shims are forks of the zygote and share its pages, so the zygote must be as small as possible. Everything else is
imported by :mod:`server.boot`.
"""

import sys
from collections.abc import Sequence

from engine.shim import zygote


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status."""
    handle = zygote.start()
    try:
        from server.boot import boot  # after the fork

        return boot(sys.argv[1:] if arguments is None else arguments, handle)
    finally:
        handle.close()


if __name__ == "__main__":
    sys.exit(main())
