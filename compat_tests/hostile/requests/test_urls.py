"""Invalid URLs are the client's errors, wherever a request or a Dockerfile contains one."""

from __future__ import annotations

import pytest

from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.images import layer

URLS = ["http://[a-z", "http://[::1", "http://a:b/", "http://%zz/", "http://\x7fa/"]


@pytest.mark.parametrize("url", ["[a-z", *URLS])
def test_import_from_invalid_urls(engine: Engine, oracle: Dockerd, url: str) -> None:
    ours, theirs = (each.api.post("/images/create", fromSrc=url) for each in (engine, oracle))
    assert ours.error == theirs.error


@pytest.mark.parametrize("url", URLS)
def test_builds_from_invalid_urls(engine: Engine, oracle: Dockerd, url: str) -> None:
    ours, theirs = (each.api.post("/build", remote=url) for each in (engine, oracle))
    assert ours.status == theirs.status
    assert ours.message.partition(": parse")[2] == theirs.message.partition(": parse")[2] != ""


@pytest.mark.parametrize("url", [*URLS, "http://[zz]/x", "http://a:99999999/", "http://\u2100/"])
def test_no_internal_error(engine: Engine, url: str) -> None:
    archive = layer({"Dockerfile": f"FROM busybox\nADD {url} /x\n"})
    added = engine.api.request("POST", "/build", body=archive).lines()[-1]["error"]
    cloned = engine.api.post("/build", remote=f"{url}.git").message
    pulled = engine.api.post("/images/create", fromImage=f"{url}/x").message
    for message in (added, cloned, pulled):
        assert "internal error" not in message
