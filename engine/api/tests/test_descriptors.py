"""Our protos match containerd's: every message, field and method of ours is in theirs, with the same numbers."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

OURS = Path(__file__).resolve().parents[1] / "protos"
SOURCES = Path(os.environ.get("WHARF_REFERENCES", "/usr/share/gocode/src"))
CONTAINERD = SOURCES / "github.com/containerd/containerd"
THEIRS = (
    "github.com/containerd/containerd/api/services",
    "github.com/containerd/containerd/api/types",
    "github.com/containerd/containerd/api/events",
    "github.com/containerd/containerd/runtime/v2/runc/options",
    "github.com/containerd/cgroups/cgroup1/stats",
    "github.com/containerd/cgroups/cgroup2/stats",
)
STATUS = SOURCES / "github.com/gogo/googleapis"

#: Packages that containerd's sources don't define.
FOREIGN = {"google.rpc", "grpc.health.v1"}


def compiled(files: list[str], *includes: Path, out: Path) -> list[FileDescriptorProto]:
    """Compiles in a separate process, as this process has our descriptors in its pool."""
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    well_known = str(resources.files("grpc_tools") / "_proto")
    paths = [f"-I{path}" for path in (*includes, well_known)]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *paths, f"--descriptor_set_out={out}", *files],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


Symbols = dict[str, dict[str, object]]


def symbols(files: list[FileDescriptorProto]) -> Symbols:
    """Full name → the properties that are visible on the wire."""
    found: Symbols = {}

    def message(prefix: str, proto: DescriptorProto) -> None:
        name = f"{prefix}.{proto.name}"
        found[name] = {
            field.name: (field.number, field.label, field.type, field.type_name.lstrip(".")) for field in proto.field
        }
        for nested in proto.nested_type:
            message(name, nested)
        for one in proto.enum_type:
            enum(name, one)

    def enum(prefix: str, proto: EnumDescriptorProto) -> None:
        found[f"{prefix}.{proto.name}"] = {value.name: value.number for value in proto.value}

    def service(prefix: str, proto: ServiceDescriptorProto) -> None:
        found[f"{prefix}.{proto.name}"] = {
            method.name: (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
            for method in proto.method
        }

    for file in files:
        for one in file.message_type:
            message(file.package, one)
        for two in file.enum_type:
            enum(file.package, two)
        for three in file.service:
            service(file.package, three)
    return found


@pytest.mark.skipif(not CONTAINERD.is_dir(), reason="needs Debian's golang-github-containerd-containerd-dev")
def test_our_protos_match_containerds(tmp_path: Path) -> None:
    root = OURS.parents[2]
    mine = compiled([str(path) for path in sorted(OURS.glob("*.proto"))], root, out=tmp_path / "ours")
    files = []
    for folder in THEIRS:
        names = sorted((SOURCES / folder).rglob("*.proto"))
        # not on gRPC, or without what they import on this system
        files += [str(path) for path in names if not {"ttrpc", "transfer", "sandbox", "streaming"} & set(path.parts)]
    includes = [SOURCES, *([STATUS] if STATUS.is_dir() else [])]
    files = [file for file in files if STATUS.is_dir() or "introspection" not in file]
    theirs = symbols(compiled(files, *includes, out=tmp_path / "theirs"))
    ours = symbols([file for file in mine if file.package not in FOREIGN])
    if not STATUS.is_dir():
        ours = {name: value for name, value in ours.items() if ".introspection." not in name}
    for name, parts in ours.items():
        assert name in theirs, f"containerd has no {name}"
        different = {part: value for part, value in parts.items() if theirs[name].get(part) != value}
        assert not different, f"{name}: {different} is {[theirs[name].get(part) for part in different]}"
        missing = set(theirs[name]) - set(parts)
        assert not missing, f"{name} lacks {missing}"


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """``python -m engine.api.generate`` was run after the last change of a proto."""
    import google.protobuf.descriptor_pool as pools

    from engine.api import client, pb  # brings the generated modules in  # noqa: F401

    mine = compiled([str(path) for path in sorted(OURS.glob("*.proto"))], OURS.parents[2], out=tmp_path / "ours")
    for file in mine:
        __import__(f"engine.api.pb.{Path(file.name).stem}_pb2")
        loaded = FileDescriptorProto()
        pools.Default().FindFileByName(file.name).CopyToProto(loaded)
        assert symbols([loaded]) == symbols([file]), file.name
