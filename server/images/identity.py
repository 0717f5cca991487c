"""``Identity``: where an image came from (API 1.53), as the daemon itself recorded it.

It is read from the labels of the blob that the image's names refer to:

* ``containerd.io/distribution.source.<registry>``: repositories from which it was pulled or to which it was pushed;
* ``moby/build.ref.<ref>``: builds that made it, by the reference of their record in the build history.

Both are dockerd's labels. The part ``Signature`` is absent: a verification needs trust roots of the internet.
"""

from collections.abc import Collection, Mapping
from typing import Any

from engine.api.client import Engine
from engine.common import jsontext
from engine.common.errors import Kind, WharfError
from server.images.timestamps import format_ns, parse_ns
from server.registry import oci
from server.registry.reference import parse

BUILD_REF = "moby/build.ref."
_SOURCE = oci.SOURCE + "."
_NO_TIME = "0001-01-01T00:00:00Z"


def build_label(ref: str, created_ns: int) -> dict[str, str]:
    """Return the label that records a build as the origin of its result."""
    return {BUILD_REF + ref: jsontext.dumps({"createdAt": format_ns(created_ns)}).decode()}


async def read(engine: Engine, digest: str) -> dict[str, Any] | None:
    """Return ``Identity`` of a target; ``None`` if nothing is known of its origin, or the blob is gone."""
    try:
        info = await engine.content.info(digest)
    except WharfError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise
    return from_labels(info.labels)


async def read_all(engine: Engine, digests: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what :func:`read` returns for several targets, by one call; those of unknown origin are left out."""
    found: dict[str, dict[str, Any]] = {}
    async for info in engine.content.walk():
        if info.digest in digests and (identity := from_labels(info.labels)) is not None:
            found[info.digest] = identity
    return found


def from_labels(labels: Mapping[str, str]) -> dict[str, Any] | None:
    """Return ``Identity`` from the labels of a blob; values that are none of dockerd's are left out."""
    pulled: dict[str, None] = {}
    built: list[dict[str, Any]] = []
    for label, value in sorted(labels.items()):
        if label.startswith(_SOURCE):
            pulled |= dict.fromkeys(_repositories(label.removeprefix(_SOURCE), value))
        elif label.startswith(BUILD_REF) and (created := _created(value)) is not None:
            built.append({"Ref": label.removeprefix(BUILD_REF), "CreatedAt": created})
    found: dict[str, Any] = {}
    if pulled:
        found["Pull"] = [{"Repository": name} for name in pulled]
    if built:
        found["Build"] = built
    return found or None


def _repositories(registry: str, paths: str) -> list[str]:
    names: list[str] = []
    for path in paths.split(","):
        try:
            names.append(parse(f"{registry}/{path}").name)
        except WharfError:
            continue
    return names


def _created(value: str) -> str | None:
    """Return the time of a build's label; ``None`` if the label is not valid."""
    try:
        document = jsontext.loads(value)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    created = document.get("createdAt")
    return created if isinstance(created, str) and parse_ns(created) is not None else _NO_TIME
