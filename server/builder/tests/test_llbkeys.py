"""Computed keys equal those that BuildKit wrote to the caches of images with the same steps."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from server.builder.cache import cache_config
from server.builder.operations.contenthash import content_digest
from server.builder.operations.interfaces import Context
from server.builder.operations.selection import Checksums
from server.builder.plan.llbkey import Key
from server.builder.plan.steps import Base, Copy, Origin, Run, Step, Workdir
from server.builder.solver.llbkeys import LlbKeys, record_digest
from server.builder.tests.test_documents import layer

DIFF = "sha256:028c2f1e1c3c1150af6727ec031e49b0f6e97206c905affa4853d62fc202f3ee"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT = "sha256:8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1"


class Files:
    """One directory as every context."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self, name: str) -> Context:
        return Context(str(self._path), Checksums())


def run(command: str, parent: Step, *env: str, cwd: str = "/") -> Step:
    names = tuple(item.partition("=")[0] for item in (PATH, *env))
    operation = Run(("/bin/sh", "-c", command), (PATH, *env), cwd, "", names=names, platform="linux/amd64")
    return Step(operation, parent, command)


def steps() -> list[Step]:
    """The steps of a source stage, and of the stage that copies from it."""
    base = Step(Base("busybox", "sha256:b", DIFF, ()), None, "FROM")
    workdir = Step(Workdir("/src"), base, "WORKDIR")
    copied = Step(Copy(("a",), "/src/", Origin()), workdir, "COPY")
    made = run("date +%N > /out && cat a >> /out", copied, cwd="/src")
    said = run("echo hi > /hi", base, "X=1")
    taken = Step(Copy(("/out",), "/out", Origin(made)), said, "COPY")
    return [base, workdir, copied, made, said, taken, run("cat /out > /out2", taken, "X=1")]


KEYS = (
    "af040a3bd7fd8f0a76f80b18edb15c3f4d25716d1fd4cea7f999aa0c430a40db",
    "57a5ab45ee83a930675514d2528c657cf1d5e669475f33931afc0e7c848c0e34",
    "f7167880bb57f2a42f6133a8be2fd08174aae2e1dd151525fd8cd728edc3f3fb",
    "89f65d7c71c6a74eac0129f36ae1f6014c693a06b882ccb3815bffade79f8eff",
    "ab4777b6e6146290f1023b851c5e6fc07e86a40945555b146e8e8dd87c335612",
    "83ca67c386cccae529ee520f9539841897ef0c293d4d2c433af5d9db2f3667b4",
    "f58530c7f3d2282c5ea9f8e6306351a3981f18ff18afc4e24bf58cb945da8c11",
)
CONTENT = "sha256:d9bbc07d27ae5f69fef43f29e6b42b3cb97b88c514516b9e4166bf30bc1a355e"
SELECTED = "sha256:a5bcd92e5ab3b071d95f7c842563c82ee88ccfdda4536ae94d6da4e6d4bece5d"


@pytest.fixture
def keys(tmp_path: Path) -> list[Key]:
    (tmp_path / "a").write_text("a\n")
    (tmp_path / "a").chmod(0o644)
    llb = LlbKeys(Files(tmp_path), plain=True)  # type: ignore[arg-type]

    async def every() -> list[Key | None]:
        return [await llb.get(step) for step in steps()]

    found = asyncio.run(every())
    assert None not in found
    return [key for key in found if key is not None]


def test_keys_are_buildkits(keys: list[Key]) -> None:
    assert [key.digests[0] for key in keys] == [f"sha256:{key}" for key in KEYS]
    _, workdir, copied, made, said, taken, _ = keys
    assert workdir.inputs[0].selectors == ("",)
    assert made.inputs[0].selectors == (ROOT,)
    assert copied.inputs[1].content is not None
    assert copied.inputs[1].content.digests == (CONTENT,)
    assert [item.key for item in taken.inputs] == [said, made]
    assert taken.inputs[1].selectors == (SELECTED,)


def test_document_of_buildkit_is_parsed(keys: list[Key]) -> None:
    names = [f"sha256:{key}" for key in KEYS]
    inputs: list[Any] = [
        [],
        [[{"link": 0}]],
        [[{"link": 1}], [{"link": 7}]],
        [[{"selector": ROOT, "link": 2}]],
        [[{"selector": ROOT, "link": 0}]],
        [[{"link": 4}], [{"selector": SELECTED, "link": 3}, {"link": 8}]],
        [[{"selector": ROOT, "link": 5}]],
    ]
    records = [{"digest": name, "inputs": item} for name, item in zip(names, inputs, strict=True)]
    for number, place in ((4, 1), (5, 2), (6, 3)):
        records[number]["layers"] = [{"layer": place, "createdAt": "2026-11-28T03:32:03.5Z"}]
    records += [{"digest": CONTENT}, {"digest": "sha256:other"}]

    layers = [layer(name) for name in ("base", "one", "two", "three")]
    data = json.dumps(records).encode()
    document = cache_config.read(data, layers)
    found = [document.llb(key) for key in keys]
    assert found[:4] == [[], [], [], []]
    for number, known in enumerate(found[4:], 1):
        assert [item.layer and item.layer.diff_id for item in known] == [layers[number].diff_id]
        assert known[0].lower_diff_ids == tuple(item.diff_id for item in layers[:number])
    # A changed file in the context invalidates all steps that depend on it.
    records[7]["digest"] = "sha256:changed"
    document = cache_config.read(json.dumps(records).encode(), layers)
    assert [bool(document.llb(key)) for key in keys[4:]] == [True, False, False]


def test_content_of_folders_and_links(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_text("f")
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "d" / "e" / "up").symlink_to("../f")
    root = str(tmp_path)
    assert content_digest(root, ["/l"]) == content_digest(root, ["/d"])
    assert content_digest(root, ["/d", "/d/f"]) == content_digest(root, ["/d"])
    assert content_digest(root, ["/d/e/up"]) == content_digest(root, ["/d/f"])
    assert content_digest(root, ["/none"]) == ""
    before = content_digest(root, ["/"])
    (tmp_path / "d" / "f").chmod(0o600)
    assert content_digest(root, ["/"]) != before
    assert record_digest("sha256:x", -1) != record_digest("sha256:x")


def test_layers_of_a_cache_come_from_its_manifest() -> None:
    # As BuildKit writes it: no annotations, and no zero numbers.
    layers = [layer("base"), layer("one"), layer("two")]
    document = {
        "layers": [
            {"blob": layers[0].descriptor.digest, "parent": -1},
            {"blob": layers[1].descriptor.digest},
            {"blob": layers[2].descriptor.digest, "parent": 1},
        ],
        "records": [{"digest": "sha256:k", "layers": [{"layer": 2}], "chains": [{"layers": [0, 2]}]}],
    }
    found = cache_config.read(json.dumps(document).encode(), layers).llb(Key(("sha256:older", "sha256:k")))
    diffs = [item.diff_id for item in layers]
    assert [item.lower_diff_ids for item in found] == [(diffs[0], diffs[1]), (diffs[0],)]
    assert cache_config.read(json.dumps(document).encode()).llb(Key(("sha256:k",))) == []
