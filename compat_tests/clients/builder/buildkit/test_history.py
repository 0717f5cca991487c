"""The build history: records, results and logs of builds, also after restarts."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import grpc
import pytest

from compat_tests.clients.builder.buildx import build, needs_buildx, needs_git, write_context
from compat_tests.clients.builder.control import Control, control
from compat_tests.support.engines import Engine
from compat_tests.support.images import digest
from compat_tests.support.polling import until
from compat_tests.support.protos import Package
from compat_tests.support.servers.web import repository, serving

pytestmark = needs_buildx


def test_builds_are_remembered_with_their_logs(own_engine: Engine, tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM busybox\nRUN echo from-the-s''tep\n", "Bad": "FROM busybox\nRUN echo al''as; exit 5\n"}
    root = str(write_context(tmp_path, files))
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


@needs_git
def test_results_of_builds_can_be_read(own_engine: Engine, tmp_path: Path) -> None:
    """The image, provenance, log, and the error with its lines, read through containerd's content service."""
    dockerfile = "FROM busybox\nARG U\nCOPY f /f\nCOPY --from=named g /g\nADD $U /u\n"
    files = {"Dockerfile": dockerfile, "f": "f\n", "sub/Dockerfile": "FROM busybox\nCOPY f /f\n", "sub/f": "f\n"}
    main = repository(tmp_path, "main", files)
    named = repository(tmp_path, "named", {"g": "g\n"})
    (tmp_path / "file").write_bytes(b"fetched\n")
    with tarfile.open(tmp_path / "context.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "main-work" / "sub", arcname=".")
    sha256 = {path: hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() for path in ("file", "context.tar")}
    with serving(tmp_path) as url, control(own_engine) as client:

        def predicate() -> dict[str, Any]:
            """Return the provenance of the newest build."""
            (item,) = newest(client).Result.Attestations
            assert item.annotations["in-toto.io/predicate-type"] == "https://slsa.dev/provenance/v0.2"
            data = client.blob(item.digest)
            assert client.info(item.digest) == item.size == len(data)
            found: dict[str, Any] = json.loads(data)
            return found

        words = [f"--build-context=named={url}/named.git#main", f"--build-arg=U={url}/file"]
        build(own_engine, *words, "-t", "remembered:git", f"{url}/main.git")
        record = newest(client)
        image = own_engine.docker("image", "inspect", "-f", "{{.Id}}", "remembered:git").stdout.strip()
        assert record.Result.Results[0].digest == image
        assert digest(client.blob(image)) == image
        found = predicate()
        assert found["materials"][1:] == [
            {"uri": f"{url}/main.git", "digest": {"sha1": main}},
            {"uri": f"{url}/named.git#main", "digest": {"sha1": named}},
            {"uri": f"{url}/file", "digest": {"sha256": sha256["file"]}},
        ]
        source = {"uri": f"{url}/main.git", "digest": {"sha1": main}, "entryPoint": "Dockerfile"}
        assert found["invocation"]["configSource"] == source
        assert found["invocation"]["parameters"]["args"]["context:named"] == f"{url}/named.git#main"
        assert found["metadata"]["completeness"]["materials"] is True
        assert found["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] is True
        # the provenance omits the directory below a repository
        build(own_engine, f"{url}/main.git#main:sub")
        found = predicate()
        assert found["materials"][1:] == [{"uri": f"{url}/main.git#main", "digest": {"sha1": main}}]
        assert found["invocation"]["configSource"] == {"uri": f"{url}/main.git#main:sub", "entryPoint": "Dockerfile"}
        build(own_engine, f"{url}/context.tar")
        expected = {"sha256": sha256["context.tar"]}
        assert predicate()["invocation"]["configSource"]["digest"] == expected
        build(own_engine, "-", input=(tmp_path / "context.tar").read_bytes())
        assert predicate()["materials"][-1]["digest"] == expected

        assert build(own_engine, "-", input=b"FROM busybox\nRUN exit 4\n", check=False).status != 0
        record = newest(client)
        status = Package("google.rpc").Status.FromString(client.blob(record.externalError.digest))
        assert status.message == record.error.message
        assert {"Source+json", "Vertex+json"} <= {item.type_url.rpartition(".")[2] for item in status.details}
        client.update(Ref=record.Ref, Finalize=True)
        record = newest(client)
        assert client.info(record.logs.digest) == record.logs.size
        assert b"exit code: 4" in client.blob(record.logs.digest)
        with pytest.raises(grpc.RpcError, match="not found"):
            client.info(f"sha256:{'0' * 64}")
        client.update(Ref=record.Ref, Delete=True)
        assert until(lambda: is_deleted(client, record.externalError.digest), seconds=60)


def newest(client: Control) -> Any:
    return max(client.history(), key=lambda record: record.CreatedAt.ToNanoseconds())


def is_deleted(client: Control, digest: str) -> bool:
    try:
        client.info(digest)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
    return False
