"""Messages of containerd's and BuildKit's APIs for the tests, which import nothing of the engine: they compile the
repository's ``.proto`` files themselves.
"""

import tempfile
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from compat_tests.support.images import ROOT

_FOLDERS = (ROOT / "engine/api/protos", ROOT / "server/builder/session/protos")


@cache
def _pool() -> DescriptorPool:
    from grpc_tools import protoc  # 30 MiB that only tests of these APIs need

    files = [str(path) for folder in _FOLDERS for path in sorted(folder.glob("*.proto"))]
    with tempfile.NamedTemporaryFile() as written:
        words = [f"-I{ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}", "--include_imports"]
        status = protoc.main(["protoc", *words, f"--descriptor_set_out={written.name}", *files])
        assert status == 0, f"protoc failed with status {status}"
        found = FileDescriptorSet.FromString(written.read())
    pool = DescriptorPool()
    for file in found.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


class Package:
    """The messages of a protobuf package as attributes, e.g. ``Package("moby.buildkit.v1").SolveRequest``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, message: str) -> Any:
        return GetMessageClass(_pool().FindMessageTypeByName(f"{self._name}.{message}"))
