"""python -m compat_tests.clients.builder.record: records the answers of Debian's dockerd to the corpus.

A dockerd of the newest API (from Debian unstable) records only inspect and list.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from compat_tests.clients import test_inspect_list
from compat_tests.clients.builder import builds
from compat_tests.clients.builder.corpus import BAD, CASES, MORE, MORE_BAD
from compat_tests.clients.builder.corpus_buildkit import BUILDKIT, BUILDKIT_BAD
from compat_tests.support import engines

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "classic_build.json"
BUILDKIT_GOLDEN = GOLDEN.with_name("buildkit_build.json")


def main() -> int:
    images: dict[str, object] = {}
    errors: dict[str, object] = {}
    with engines.dockerd("record") as dockerd:
        dockerd.load_busybox()
        if dockerd.api.get("/version").json()["ApiVersion"] == test_inspect_list.NEWEST:
            record_inspect_list(dockerd)
            return 0
        for name, case in {**CASES, **MORE}.items():
            built = builds.classic(dockerd, case)
            images[name] = classic_facts(dockerd, built)
        for name, case in {**BAD, **MORE_BAD}.items():
            built = builds.classic(dockerd, case, forcerm=1)
            assert built.error, f"{name}: {built.text}"
            errors[name] = [built.answer.status, built.error]
        record_buildkit(dockerd)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"images": images, "errors": errors}, indent=1, sort_keys=True) + "\n")
    print(f"{len(images)} images and {len(errors)} refusals are in {GOLDEN}")
    return 0


def classic_facts(engine: engines.Engine, built: builds.Built) -> object:
    """Return an image's configuration and files, or the error."""
    if built.error:
        return built.error
    return {"config": builds.config(engine, built.image), "tree": builds.tree(engine, built.image)}


def record_inspect_list(dockerd: engines.Dockerd) -> None:
    versions = (test_inspect_list.NEWEST,)
    found = {
        name: test_inspect_list.answers_through_life(dockerd, name, versions) for name in test_inspect_list.REQUESTS
    }
    test_inspect_list.GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"the answers about {len(found)} containers are in {test_inspect_list.GOLDEN}")


def record_buildkit(dockerd: engines.Dockerd) -> None:
    """Record the corpus by buildx, with the history, and the cases for BuildKit only."""
    images: dict[str, object] = {}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="wharf-record-") as name:
        for case_name, case in {**CASES, **MORE, **BUILDKIT}.items():
            done = builds.by_buildx(dockerd, case, Path(name) / case_name, "-t", f"recorded:{case_name}")
            assert done.status == 0, f"{case_name}: {done.stderr}"
            images[case_name] = builds.facts(dockerd, f"recorded:{case_name}")
        for case_name, case in BUILDKIT_BAD.items():
            done = builds.by_buildx(dockerd, case, Path(name) / f"bad-{case_name}")
            assert done.status, f"{case_name}: {done.stderr}"
            errors[case_name] = builds.sentence(done)
    BUILDKIT_GOLDEN.write_text(json.dumps({"images": images, "errors": errors}, indent=1, sort_keys=True) + "\n")
    print(f"{len(images)} images and {len(errors)} refusals are in {BUILDKIT_GOLDEN}")


if __name__ == "__main__":
    sys.exit(main())
