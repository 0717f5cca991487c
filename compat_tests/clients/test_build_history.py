"""The history of builds: who built what, with what came of it and what the steps wrote; over restarts, too."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest

from compat_tests.clients.control import control
from compat_tests.clients.test_buildkit import build, context
from compat_tests.engines import Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/usr/libexec/docker/cli-plugins/docker-buildx"), reason="needs buildx"),
]


def test_builds_are_remembered_with_their_logs(own_engine: Engine, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM busybox\nRUN echo from-the-s''tep\n", "Bad": "FROM busybox\nRUN echo al''as; exit 5\n"}
    root = str(context(tmp_path, files))
    build(own_engine, "-t", "remembered:1", "--build-arg", "WHO=me", root)
    assert build(own_engine, "-f", str(tmp_path / "Bad"), root, check=False).status != 0
    with control(own_engine) as client:
        good, bad = client.history()
        assert good.FrontendAttrs["build-arg:WHO"] == "me"
        assert good.ExporterResponse["image.name"] == "docker.io/library/remembered:1"
        assert good.numTotalSteps == good.numCompletedSteps > 0
        assert not good.HasField("error")
        assert "exit code: 5" in bad.error.message
        assert [record.Ref for record in client.history(Filter=["status=error"])] == [bad.Ref]
        client.update(Ref=good.Ref, Pinned=True)
    own_engine.restart()
    with control(own_engine) as client:
        again = client.history()
        assert [record.Ref for record in again] == [good.Ref, bad.Ref]
        assert [record.pinned for record in again] == [True, False]
        assert "from-the-step" in client.logs(good.Ref)
        assert "alas" in client.logs(bad.Ref)
        client.update(Ref=bad.Ref, Delete=True)
        assert [record.Ref for record in client.history()] == [good.Ref]
        with pytest.raises(grpc.RpcError, match="no such build"):
            client.update(Ref="nothing", Delete=True)
