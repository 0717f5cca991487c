"""``wharfd``: the process begins here, and forks the zygote before it knows anything else.

Shims are forks of the zygote and share its pages, so it has to be as small as it can; all the rest is imported by
:mod:`server.boot`.
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
