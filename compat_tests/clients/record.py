"""python -m compat_tests.clients.record: asks Debian's dockerd what it makes of the corpus, and keeps the answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from compat_tests import engines
from compat_tests.clients import builds
from compat_tests.clients.corpus import BAD, CASES

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "classic_build.json"


def main() -> int:
    images: dict[str, object] = {}
    errors: dict[str, object] = {}
    with engines.dockerd("record") as dockerd:
        dockerd.load_busybox()
        for name, case in CASES.items():
            built = builds.classic(dockerd, case)
            assert built.error == "", f"{name}: {built.error}"
            images[name] = {"config": builds.config(dockerd, built.image), "tree": builds.tree(dockerd, built.image)}
        for name, case in BAD.items():
            built = builds.classic(dockerd, case, forcerm=1)
            assert built.error, f"{name}: {built.text}"
            errors[name] = [built.answer.status, built.error]
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"images": images, "errors": errors}, indent=1, sort_keys=True) + "\n")
    print(f"{len(images)} images and {len(errors)} refusals are in {GOLDEN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
