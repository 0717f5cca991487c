"""The HTTP server of the Engine API."""

import sys

from engine.common.system.packages import skip_init

# Only uvicorn's protocol is used; its command line and process manager would cost 1.6 MiB.
skip_init("uvicorn")

from uvicorn.config import Config  # after skip_init  # noqa: E402

# Some of its modules import Config from the package.
vars(sys.modules["uvicorn"]).setdefault("Config", Config)
