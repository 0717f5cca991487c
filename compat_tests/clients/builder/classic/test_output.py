"""The classic builder's output compared with dockerd's: cached steps, triggers, ids, times, odd instructions,
contexts."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from datetime import datetime

import pytest

from compat_tests.clients.builder.builds import Case, classic
from compat_tests.support.engines import Dockerd, Engine

BASE = Case("FROM busybox\nONBUILD RUN echo tri''gger\nONBUILD ENV B=1\nONBUILD COPY f /f\n")
CASES = (
    Case("FROM lines:base\nRUN echo ch''ild\n", {"f": "x"}),
    Case("FROM lines:base\n", {"f": "x"}),
    Case("FROM busybox\nENV A=1\nARG X=1\nRUN echo r > /r\nCMD x\nUSER root\n", query={"labels": '{"l": "m"}'}),
    Case("FROM busybox AS a\nRUN echo a > /a\nENV A=1\nFROM busybox\nCOPY --from=a /a /b\nSTOPSIGNAL 9\n"),
    Case('FROM busybox\nCMD ["touch", "/made"]\nRUN []\nRUN ls /made\n'),
)
CONTAINER = re.compile(r" ---> (Running in|Removed intermediate container) .*\n")


def normalised(text: str) -> str:
    """Normalise the output: drop containers of metadata steps, which Wharf does not create; number the ids."""
    text = CONTAINER.sub("", text)
    for number, id in enumerate(dict.fromkeys(re.findall(r"\b[0-9a-f]{12}\b", text))):
        text = text.replace(id, f"id{number}")
    return text


def lines(engine: Engine, case: Case, nocache: int) -> str:
    text = ""
    for message in classic(engine, case, nocache=nocache).messages:
        text += message.get("stream", "") + message.get("error", "")
        if "aux" in message:
            text += f"aux {message['aux']['ID'].removeprefix('sha256:')[:12]}\n"
    return normalised(text)


def test_output_equals_dockerds(engine: Engine, oracle: Dockerd) -> None:
    for each in (engine, oracle):
        assert classic(each, BASE, t="lines:base").error == ""
    try:
        for case in CASES:
            for nocache in (1, 0, 1):
                assert lines(engine, case, nocache) == lines(oracle, case, nocache), (case, nocache)
        empty = Case("FROM scratch\nRUN []\n")
        assert classic(engine, empty).error == classic(oracle, empty).error == "no command specified"
    finally:
        oracle.api.delete("/images/lines:base", force=1)


def moment(engine: Engine, image: str) -> float:
    text = engine.api.get(f"/images/{image}/json").json()["Created"]
    return datetime.fromisoformat(text[:23] + "+00:00").timestamp()


def test_metadata_has_the_time_of_its_first_build(engine: Engine) -> None:
    began = time.time()
    text = f"FROM busybox\nENV A={began}\nLABEL b=c\n"
    first = classic(engine, Case(text), t="lines:1")
    assert began - 2 <= moment(engine, "lines:1") <= time.time() + 2
    assert "Using cache" not in first.text
    again = classic(engine, Case(text), t="lines:2")
    assert again.image == first.image
    assert again.text.count(" ---> Using cache\n") == 2
    longer = classic(engine, Case(f"{text}CMD x\n"), t="lines:3")
    assert longer.text.count(" ---> Using cache\n") == 2
    histories = [engine.api.get(f"/images/{name}/history").json() for name in ("lines:1", "lines:3")]
    times = [[entry["Created"] for entry in history] for history in histories]
    assert times[1][1:] == times[0]
    anew = classic(engine, Case(text), nocache=1)
    assert anew.image != first.image
    epoch = json.dumps({"SOURCE_DATE_EPOCH": "1700000000"})
    builds = [classic(engine, Case(text), buildargs=epoch, nocache=1) for _ in range(2)]
    assert builds[0].image == builds[1].image


def packed(*entries: tuple[str, str, str]) -> bytes:
    """Pack names with texts and, for hard links, targets."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text, target in entries:
            info = tarfile.TarInfo(name)
            info.size = len(text)
            if target:
                info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


SHOWS = ("Dockerfile", "FROM busybox\nCOPY . /all\nRUN cd /all && find . -type f | sort | xargs grep -H .\n", "")
#: Contexts, and the sentence with which dockerd 28 and newer refuse them.
CONTEXTS = (
    (packed(SHOWS, ("/top", "top\n", ""), ("a/../bar", "bar\n", ""), ("..c", "c\n", "")), ""),
    (packed(SHOWS, ("foo", "foo\n", ""), ("bar", "", "/foo")), ""),
    (packed(SHOWS, ("../foo", "foo\n", "")), 'invalid entry name "../foo"'),
    (packed(SHOWS, ("a/../../bar", "bar\n", "")), 'invalid entry name "a/../../bar"'),
    (packed(("../Dockerfile", SHOWS[1], "")), 'invalid entry name "../Dockerfile"'),
    (packed(SHOWS, ("foo", "foo\n", ""), ("bar", "", "../foo")), 'invalid hardlink target "../foo"'),
)


@pytest.mark.parametrize("number", range(len(CONTEXTS)))
def test_names_that_leave_the_context(engine: Engine, oracle: Dockerd, number: int) -> None:
    context, refusal = CONTEXTS[number]
    ours, theirs = (classic(each, Case(""), body=context, nocache=1) for each in (engine, oracle))
    assert ours.error == refusal
    # dockerd 26 accepts such names, as if the context were the root directory.
    assert theirs.error == ("" if oracle.api.get("/version").json()["ApiVersion"] < "1.51" else refusal)
    if not refusal:
        assert normalised(ours.text) == normalised(theirs.text)
