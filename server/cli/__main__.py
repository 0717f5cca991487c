"""``wharf``: the entry point."""

import os
import signal
import sys
from collections.abc import Sequence

from server.cli.client import Failure
from server.cli.parser import make_parser


def main(words: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status: 1 for what the engine refuses, 2 for wrong arguments."""
    arguments = make_parser().parse_args(words)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except Failure as failure:
        print(f"wharf: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of the output has left. What is buffered must not be written at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
