"""The operations that create layers, as data. Steps with equal keys have equal results.

A key is the digest of the operation, the keys of its inputs, and the checksums of the files used (with ownership and
modes, without times). Stages that produce the same files in different ways share results. ``keys.py`` computes keys.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from engine.api.types import Descriptor
from server.builder.dockerfile.errors import Span
from server.builder.dockerfile.instructions import Mount
from server.builder.plan.imageconfig import CreatedBy
from server.builder.plan.llbkey import Key

FILES = "\0files\0"
CACHE_FORMAT = "2"
"""Part of every key. Increase it when the result of an operation changes."""


@dataclass(frozen=True, slots=True)
class Base:
    """The layers of a base image. ``ref``: the name in the Dockerfile; only the digest is part of the key."""

    ref: str
    digest: str
    chain_id: str
    layers: tuple["Layer", ...]
    platform: str = ""
    """The requested ``os/arch[/variant]``."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a result. ``created_ns``: its creation time, which cached layers keep."""

    descriptor: Descriptor
    diff_id: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class Run:
    """``RUN``. ``args`` are final; ``files``: here-documents, mounted under ``/dev/pipes``."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple["ResolvedMount", ...] = ()
    network: str = "default"
    security: str = "sandbox"
    files: tuple[tuple[str, str], ...] = ()
    hidden_env: tuple[str, ...] = ()
    """Set for the process but not part of the key: the host's proxies."""
    volumes: tuple[str, ...] = ()
    """Paths whose changes are discarded after the process: in the classic builder, the image's volumes."""
    names: tuple[str, ...] = ()
    """Names in the environment, in the order of their last assignment; not part of the key."""
    platform: str = ""
    """``os/arch[/variant]``; not part of the key, which the base determines."""


@dataclass(frozen=True, slots=True)
class ResolvedMount:
    """A ``--mount`` with expanded variables. ``origin``: the stage, image or named context of ``from=``."""

    options: Mount
    origin: "Origin | None" = None


@dataclass(frozen=True, slots=True)
class Copy:
    """``COPY`` and ``ADD`` of files."""

    sources: tuple[str, ...]
    target: str
    origin: "Origin | None" = None
    """The source of the files; ``None`` if all sources are here-documents or URLs."""
    files: tuple[tuple[str, str], ...] = ()
    """Here-documents: name and content."""
    urls: tuple[str, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    """``ADD`` extracts a local archive."""
    checksum: str = ""
    keep_git_dir: bool = False
    add: bool = False
    may_match_nothing: bool = False
    """A wildcard may match no file: BuildKit's rule; the classic builder fails."""


@dataclass(frozen=True, slots=True)
class Workdir:
    """Creates the directory if it is missing. ``user``: its owner, as in BuildKit; empty for root."""

    path: str
    user: str = ""


Operation = Base | Run | Copy | Workdir


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of files: another step's result, or a context by name (``""`` is the build's own)."""

    step: "Step | None" = None
    context: str = ""


@dataclass(eq=False, slots=True)
class Step:
    """A node of the graph, compared by identity: the same instruction in two stages is two steps with equal keys."""

    operation: Operation
    parent: "Step | None"
    name: str
    """The name in the progress display: ``[build 2/5] RUN make``."""
    span: Span | None = None
    no_cache: bool = False
    stage: str = ""
    progress_id: str = ""
    created_by: CreatedBy = field(default_factory=CreatedBy)
    """The history of an image that ends with this step, as the classic builder writes it; ``FILES`` is a placeholder
    for the copied files."""

    @property
    def description(self) -> str:
        """The description of the result in cache listings, as in BuildKit."""
        if isinstance(self.operation, Run):
            return f"mount / from exec {' '.join(self.operation.args)}"
        return self.name

    @property
    def inputs(self) -> Sequence["Step"]:
        """The steps whose results this one needs, its parent first."""
        found: list[Step] = [] if self.parent is None else [self.parent]
        operation = self.operation
        origins: list[Origin | None] = []
        if isinstance(operation, Copy):
            origins.append(operation.origin)
        elif isinstance(operation, Run):
            origins.extend(mount.origin for mount in operation.mounts)
        for origin in origins:
            if origin is not None and origin.step is not None and origin.step not in found:
                found.append(origin.step)
        return found


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a step: a chain of layers; its snapshot is committed as ``chain_id`` (empty for scratch)."""

    key: str
    chain_id: str
    layers: tuple[Layer, ...]
    cached: bool = False
    files: str = ""
    """Of a copy: the files as in the classic builder's history (``file:<checksum>``)."""
    definition: str = ""
    """The definition-based key (``keys.py``); ``key`` is the content-based one."""
    llb: Key | None = None
    """BuildKit's key, if requested (``llbkeys.py``)."""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)


SCRATCH = Result("scratch", "", (), definition="scratch")


def digest_of(kind: str, parts: Mapping[str, object]) -> str:
    """Compute a key: the digest of named parts."""
    text = json.dumps({"format": CACHE_FORMAT, "kind": kind, **parts}, sort_keys=True, default=_plain)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mount):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} can not be part of a key")
