"""The daemon: login, version, info, disk usage."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from api_models.base import OMIT, Model
from api_models.container import ContainerSummary
from api_models.image import ImageSummary
from api_models.record import Record
from api_models.supported import Version
from api_models.versions import Adapted, Dropped, Filled, Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig(Record):
    """Credentials: the body of ``POST /auth``."""

    go_name: ClassVar[str] = "registry.AuthConfig"

    username: Annotated[str, Field(alias="username"), OMIT] = ""
    password: Annotated[str, Field(alias="password"), OMIT] = ""
    auth: Annotated[str, Field(alias="auth"), OMIT] = ""
    email: Annotated[str, Field(alias="email"), OMIT] = ""
    # This object has lower-case keys.
    server_address: Annotated[str, Field(alias="serveraddress"), OMIT] = ""
    identity_token: Annotated[str, Field(alias="identitytoken"), OMIT] = ""
    registry_token: Annotated[str, Field(alias="registrytoken"), OMIT] = ""


def _commits(document: dict[str, Any], version: Version) -> None:
    """Before 1.48, ``Expected`` repeats the commit's id."""
    if version >= (1, 49):
        return
    for key in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        commit = document.get(key)
        if isinstance(commit, dict):
            commit.setdefault("Expected", commit.get("ID", ""))


def _runtimes(document: dict[str, Any], version: Version) -> None:
    """A runtime's features (``status``) are shown since 1.44."""
    if version < (1, 44):
        for runtime in (document.get("Runtimes") or {}).values():
            runtime.pop("status", None)


def _nondistributable(document: dict[str, Any], version: Version) -> None:
    """The lists of registries for foreign layers: empty, null since 1.48, absent since 1.49."""
    registry = document.get("RegistryConfig")
    if isinstance(registry, dict) and version < (1, 49):
        empty: list[str] | None = [] if version < (1, 48) else None
        registry.setdefault("AllowNondistributableArtifactsCIDRs", empty)
        registry.setdefault("AllowNondistributableArtifactsHostnames", empty)


def _security(document: dict[str, Any], version: Version) -> None:
    """Before 1.25, an option is its name only, and there is an execution driver."""
    if version < (1, 25):
        document["ExecutionDriver"] = "<not supported>"
        options = document.get("SecurityOptions") or []
        document["SecurityOptions"] = [option.split(",")[0].removeprefix("name=") for option in options]


class Info(Model):
    """The answer of ``GET /info``: only the fields that depend on the version; others are passed through."""

    kernel_memory: Annotated[bool | None, Filled((1, 42), value=False)] = None
    kernel_memory_tcp: Annotated[bool | None, Field(alias="KernelMemoryTCP"), OMIT, Dropped((1, 52))] = None
    bridge_nf_iptables: Annotated[bool | None, Field(alias="BridgeNfIptables"), Filled((1, 50), value=False)] = None
    bridge_nf_ip6tables: Annotated[bool | None, Field(alias="BridgeNfIp6tables"), Filled((1, 50), value=False)] = None
    default_address_pools: Annotated[list[dict[str, Any]] | None, OMIT, Shown((1, 41))] = None
    security_options: Annotated[list[str] | None, Adapted(_security)] = None
    runtimes: Annotated[dict[str, Any] | None, Adapted(_runtimes)] = None
    containerd_commit: Annotated[dict[str, str] | None, Adapted(_commits)] = None
    registry_config: Annotated[dict[str, Any] | None, Adapted(_nondistributable)] = None
    containerd: Annotated[dict[str, Any] | None, OMIT, Shown((1, 46))] = None
    firewall_backend: Annotated[dict[str, Any] | None, OMIT, Shown((1, 49))] = None
    discovered_devices: Annotated[list[dict[str, Any]] | None, OMIT, Shown((1, 50))] = None


def _build_cache_parent(document: dict[str, Any], version: Version) -> None:
    """Before 1.42, ``Parents`` is a single ``Parent``."""
    if version < (1, 42):
        parents = document.pop("Parents", None) or []
        document["Parent"] = parents[0] if parents else ""


class BuildCacheRecord(Model):
    id: Annotated[str, Adapted(_build_cache_parent)] = ""


class UsedImage(ImageSummary):
    """An image in the disk usage: every version has the number of its containers."""

    containers: int = -1


def _builder_size(document: dict[str, Any], version: Version) -> None:
    """Before 1.42, the total size of the build cache, unless it is 0."""
    size = sum(record.get("Size", 0) for record in document.get("BuildCache") or [])
    if size and version < (1, 42):
        document["BuilderSize"] = size


class _ImageUsage(Model):
    items: list[UsedImage] | None = None


class _ContainerUsage(Model):
    items: list[ContainerSummary] | None = None


class DiskUsage(Model):
    """The answer of ``GET /system/df``."""

    layers_size: int = 0
    images: list[UsedImage] | None = None
    containers: list[ContainerSummary] | None = None
    volumes: list[dict[str, Any]] | None = None
    build_cache: list[BuildCacheRecord] | None = None
    builder_size: Annotated[int, OMIT, Adapted(_builder_size)] = 0
    image_usage: Annotated[_ImageUsage | None, OMIT, Shown((1, 52))] = None
    container_usage: Annotated[_ContainerUsage | None, OMIT, Shown((1, 52))] = None
    volume_usage: Annotated[dict[str, Any] | None, OMIT, Shown((1, 52))] = None
    build_cache_usage: Annotated[dict[str, Any] | None, OMIT, Shown((1, 52))] = None
