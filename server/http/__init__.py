"""HTTP, as the Engine API needs it."""

import sys

from engine.common.system.packages import skip_init

# uvicorn's protocol is used here; its command line and its processes would be 1.6 MiB of a daemon at rest.
skip_init("uvicorn")

from uvicorn.config import Config  # noqa: E402 - only now

# Some of its modules look for it here.
vars(sys.modules["uvicorn"]).setdefault("Config", Config)
