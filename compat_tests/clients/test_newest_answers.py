"""Answers at the newest API version compared with recorded ones of dockerd 29 (`golden/newest.json`): equal in the
strict mode; by default, answers also have what that version dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from compat_tests.clients import newest
from compat_tests.clients.test_inspect_list import differences
from compat_tests.support import engines
from compat_tests.support.engines import Engine

pytestmark = pytest.mark.root

#: Where the strict mode differs from dockerd, by the end of the place in the answers, each with the reason.
DIFFERENCES = (
    ".HostConfig.PortBindings",  # null as in the request, where dockerd 29 shows an empty object
    ".ImageManifestDescriptor.annotations",  # those of the archive that the image was loaded from
    "list.Ports",  # an exposed port has no "IP", where dockerd 29 shows an empty one
    ".df.ContainerUsage.Items",  # only with verbose: the lists are also in the answer
    ".df.ImageUsage.Items",
)


@pytest.fixture(scope="module")
def strict() -> Iterator[Engine]:
    with engines.wharf("strict", "--feature", "strict-api=true") as engine:
        engine.load_busybox()
        yield engine


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(newest.GOLDEN.read_text())


def test_answers_of_the_strict_mode_equal_dockerds(strict: Engine, recorded: Any) -> None:
    found = {**newest.answers(strict), "events": newest.events(strict)}
    assert not [line for line in differences(found, recorded) if not line.partition(": ")[0].endswith(DIFFERENCES)]
