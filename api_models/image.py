"""Images: the shapes of list and inspect (only commit has a JSON body, a ContainerConfig)."""

from typing import Annotated, Any

from pydantic import Field

from api_models.base import OMIT, Int64, Model, StringMap, Strings
from api_models.supported import Version
from api_models.versions import Adapted, Default, Dropped, Filled, Instead, Shown


def _size(document: dict[str, Any]) -> Any:
    return document.get("Size", 0)


def _untagged(document: dict[str, Any], version: Version) -> None:
    """Before 1.43, an image without a name is listed as ``<none>:<none>``."""
    if version < (1, 43) and not document.get("RepoTags") and not document.get("RepoDigests"):
        document["RepoTags"] = ["<none>:<none>"]
        document["RepoDigests"] = ["<none>@<none>"]


class ImageSummary(Model):
    """One element of ``GET /images/json``."""

    id: str = ""
    parent_id: str = ""
    repo_tags: Annotated[Strings, Adapted(_untagged)] = Field(default_factory=list)
    repo_digests: Strings = Field(default_factory=list)
    created: Int64 = 0
    size: Int64 = 0
    shared_size: Int64 = -1
    virtual_size: Annotated[Int64, OMIT, Instead((1, 44), _size)] = 0
    labels: StringMap | None = None
    containers: Annotated[Int64, Instead((1, 51), -1)] = -1
    descriptor: Annotated[dict[str, Any] | None, OMIT, Shown((1, 48))] = None
    manifests: Annotated[list[dict[str, Any]] | None, OMIT, Shown((1, 47))] = None


#: Fields of ``Config`` that 1.52 omits while they are empty, as the OCI image specification does.
_Optional = Annotated[Any, Dropped((1, 52), empty_only=True)]


class ImageConfig(Model):
    """``Config`` of an image's inspect: before 1.50, with the empty fields of a container's configuration."""

    cmd: _Optional = None
    entrypoint: _Optional = None
    env: _Optional = None
    labels: _Optional = None
    on_build: _Optional = None
    user: _Optional = ""
    volumes: _Optional = None
    working_dir: _Optional = ""
    hostname: Annotated[str, Filled((1, 50), "")] = ""
    domainname: Annotated[str, Filled((1, 50), "")] = ""
    attach_stdin: Annotated[bool, Filled((1, 50), value=False)] = False
    attach_stdout: Annotated[bool, Filled((1, 50), value=False)] = False
    attach_stderr: Annotated[bool, Filled((1, 50), value=False)] = False
    tty: Annotated[bool, Filled((1, 50), value=False)] = False
    open_stdin: Annotated[bool, Filled((1, 50), value=False)] = False
    stdin_once: Annotated[bool, Filled((1, 50), value=False)] = False
    image: Annotated[str, Filled((1, 50), "")] = ""


class ImageInspect(Model):
    """The answer of ``GET /images/{name}/json``."""

    id: str = ""
    repo_tags: Strings = Field(default_factory=list)
    repo_digests: Strings = Field(default_factory=list)
    parent: Annotated[str, Dropped((1, 52), empty_only=True)] = ""
    comment: Annotated[str, Dropped((1, 52), empty_only=True)] = ""
    created: Annotated[str, OMIT, Default((1, 44), "0001-01-01T00:00:00Z")] = ""
    container: Annotated[str, OMIT, Instead((1, 45), "")] = ""
    container_config: Annotated[dict[str, Any] | None, OMIT, Instead((1, 45), {})] = None
    docker_version: Annotated[str, Dropped((1, 52), empty_only=True)] = ""
    author: Annotated[str, Dropped((1, 52), empty_only=True)] = ""
    config: ImageConfig | None = None
    architecture: str = ""
    variant: Annotated[str, OMIT] = ""
    os: str = ""
    os_version: Annotated[str, OMIT] = ""
    size: Int64 = 0
    virtual_size: Annotated[Int64, OMIT, Instead((1, 44), _size)] = 0
    graph_driver: Annotated[dict[str, Any] | None, Dropped((1, 52))] = None
    root_fs: Annotated[dict[str, Any], Field(alias="RootFS")] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    descriptor: Annotated[dict[str, Any] | None, OMIT, Shown((1, 48))] = None
    manifests: Annotated[list[dict[str, Any]] | None, OMIT, Shown((1, 48))] = None
    identity: Annotated[dict[str, Any] | None, OMIT, Shown((1, 53))] = None
