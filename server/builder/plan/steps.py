"""The operations that make layers, as data. A step's key says what it will give: equal keys, equal results.

A key is made of the operation, the keys of what it builds on, and the checksums of the files it uses
(ownership and modes included, times not). Two stages that come to the same thing by different ways share one result.
``keys.py`` makes them.
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
"""Part of every key: raise it when the same operation comes to give another result."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base image's layers. ``ref`` is what the Dockerfile says; the digest is what counts."""

    ref: str
    digest: str
    chain_id: str
    layers: tuple["Layer", ...]
    platform: str = ""
    """``os/arch[/variant]`` that was asked for."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a result. ``created_ns``: when it was made (cached layers keep it)."""

    descriptor: Descriptor
    diff_id: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class Run:
    """``RUN``. ``args`` final; ``files``: here-documents that the process finds under ``/dev/pipes``."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple["ResolvedMount", ...] = ()
    network: str = "default"
    security: str = "sandbox"
    files: tuple[tuple[str, str], ...] = ()
    hidden_env: tuple[str, ...] = ()
    """Given to the process but no part of the key: the proxies of the host."""
    volumes: tuple[str, ...] = ()
    """Paths that the process may change for itself alone: the classic builder gives it the image's volumes."""
    names: tuple[str, ...] = ()
    """Of the environment, in the order in which they were set last; no part of the key."""
    platform: str = ""
    """``os/arch[/variant]``; the base decides what the key is, not this."""


@dataclass(frozen=True, slots=True)
class ResolvedMount:
    """A ``--mount`` with variables replaced. ``origin`` is the stage, image or named context of ``from=``."""

    options: Mount
    origin: "Origin | None" = None


@dataclass(frozen=True, slots=True)
class Copy:
    """``COPY`` and ``ADD`` of files."""

    sources: tuple[str, ...]
    target: str
    origin: "Origin | None" = None
    """Where the sources are; ``None`` when all of them are here-documents or URLs."""
    files: tuple[tuple[str, str], ...] = ()
    """Here-documents: name and content."""
    urls: tuple[str, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    """``ADD`` of a local archive extracts it."""
    checksum: str = ""
    keep_git_dir: bool = False
    add: bool = False
    may_match_nothing: bool = False
    """A wildcard that fits no file is no error: BuildKit's rule, not the classic builder's."""


@dataclass(frozen=True, slots=True)
class Workdir:
    """Makes the directory if it is missing. ``user`` owns it, as BuildKit has it; empty for root."""

    path: str
    user: str = ""


Operation = Base | Run | Copy | Workdir


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from: another step's result, or a context by name (``""`` is the build's own)."""

    step: "Step | None" = None
    context: str = ""


@dataclass(eq=False, slots=True)
class Step:
    """A node of the graph. Identity counts: the same instruction in two stages is two steps with one key."""

    operation: Operation
    parent: "Step | None"
    name: str
    """What progress shows: ``[build 2/5] RUN make``."""
    span: Span | None = None
    no_cache: bool = False
    stage: str = ""
    progress_id: str = ""
    created_by: CreatedBy = field(default_factory=CreatedBy)
    """The history of an image that ends with this step, as the classic builder writes it; ``FILES`` stands for what
    was copied."""

    @property
    def description(self) -> str:
        """What lists of the cache call the result, as BuildKit does."""
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
    """What a step gives: a chain of layers whose snapshot is committed under ``chain_id`` (empty for scratch)."""

    key: str
    chain_id: str
    layers: tuple[Layer, ...]
    cached: bool = False
    files: str = ""
    """Of a copy: what was copied, as the classic builder's history names it (``file:<checksum>``)."""
    definition: str = ""
    """The key by definition (``keys.py``); ``key`` is the one by content."""
    llb: Key | None = None
    """BuildKit's key, where it is wanted (``llbkeys.py``)."""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)


SCRATCH = Result("scratch", "", (), definition="scratch")


def chain_id(parent: str, diff_id: str) -> str:
    """The chain id of a layer on a parent chain (OCI image-spec, config.md, "Layer ChainID")."""
    if not parent:
        return diff_id
    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest()


def digest_of(kind: str, parts: Mapping[str, object]) -> str:
    """A key: the hash of named parts."""
    text = json.dumps({"format": CACHE_FORMAT, "kind": kind, **parts}, sort_keys=True, default=_plain)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mount):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is no part of a key")
