"""The published description of the Engine API."""

from __future__ import annotations

import os
from pathlib import Path

# from Debian's package golang-github-docker-docker-dev
REFERENCES = Path(os.environ.get("WHARF_REFERENCES", "/usr/share/gocode/src"))
DESCRIPTION = REFERENCES / "github.com/docker/docker/api/swagger.yaml"
