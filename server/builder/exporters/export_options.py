"""Parses an exporter's attributes: annotations, media types, compression, times."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.common.errors import invalid, not_implemented
from engine.common.layers.compression import Compression
from server.registry import oci

_ANNOTATION = re.compile(
    r"annotation(?:-(?P<kind>manifest|index|manifest-descriptor|index-descriptor))?(?:\[(?P<platform>[^\]]*)\])?\.(?P<key>.+)"
)
COMPRESSIONS = {"gzip": Compression.GZIP, "zstd": Compression.ZSTD, "uncompressed": Compression.NONE}

#: Attributes that need no parsing here, or that an exporter reads itself.
_PLAIN = frozenset(
    (
        "name",
        "load",
        "push",
        "push-by-digest",
        "store",
        "unpack",
        "dangling-name-prefix",
        "name-canonical",
        "registry.insecure",
        "dest",
        "tar",
        "compression-level",
        "attestation-prefix",
        "prefer-nondist-layers",
    )
)
_KNOWN = _PLAIN | {
    "oci-mediatypes",
    "compression",
    "force-compression",
    "rewrite-timestamp",
    "source-date-epoch",
    "platform-split",
}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """``annotations``: by target (``manifest``, ``index``, ``manifest-descriptor``) and platform ("" for all)."""

    annotations: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    oci_types: bool = True
    compression: Compression | None = None
    force: bool = False
    rewrite_times: bool = False
    epoch_ns: int | None = None
    """A time that replaces the build's SOURCE_DATE_EPOCH."""
    split: bool = True
    """Write each platform's files to a directory of their own."""

    def annotations_of(self, what: str, platform: str = "") -> dict[str, str]:
        """Return the annotations of one target."""
        found = dict(self.annotations.get((what, ""), {}))
        return {**found, **(self.annotations.get((what, platform), {}) if platform else {})}


def _flag(attrs: Mapping[str, str], key: str, *, default: bool = False) -> bool:
    value = attrs.get(key, "").lower()
    if value in ("true", "1", "t") or (key in attrs and not value):
        return True
    if value in ("false", "0", "f"):
        return False
    if key not in attrs:
        return default
    raise invalid(f"non-bool value {attrs[key]!r} specified for {key}")


def read(kind: str, attrs: Mapping[str, str]) -> ExportOptions:
    """Parse attributes. Raises NOT_IMPLEMENTED for an unknown option, INVALID_ARGUMENT for an invalid value."""
    annotations: dict[tuple[str, str], dict[str, str]] = {}
    for key, value in attrs.items():
        match = _ANNOTATION.fullmatch(key)
        if match is not None:
            if match["kind"] == "index-descriptor":
                raise not_implemented("annotations of kind index-descriptor are not supported")
            subject = match["kind"] or "manifest", match["platform"] or ""
            annotations.setdefault(subject, {})[match["key"]] = value
        elif key not in _KNOWN and not key.startswith("attest:"):
            raise not_implemented(f"the exporter option {key} is not supported")
    compression = attrs.get("compression", "")
    if compression and compression not in COMPRESSIONS:
        raise not_implemented(f"the exporter option compression={compression} is not supported")
    epoch = attrs.get("source-date-epoch", "")
    if epoch and not epoch.isdecimal():
        raise invalid(f"invalid SOURCE_DATE_EPOCH: {epoch}")
    oci_types = _flag(attrs, "oci-mediatypes", default=True)
    if compression == "zstd" and not oci_types:
        raise invalid("zstd compression needs oci-mediatypes=true")
    return ExportOptions(
        annotations,
        oci_types,
        COMPRESSIONS.get(compression),
        _flag(attrs, "force-compression"),
        _flag(attrs, "rewrite-timestamp"),
        int(epoch) * 10**9 if epoch else None,
        _flag(attrs, "platform-split", default=True),
    )


DOCKER_TYPES = {
    oci.OCI_MANIFEST: oci.DOCKER_MANIFEST,
    oci.OCI_INDEX: oci.DOCKER_LIST,
    oci.OCI_CONFIG: oci.DOCKER_CONFIG,
    oci.OCI_LAYER: oci.DOCKER_LAYER,
    f"{oci.OCI_LAYER}+gzip": f"{oci.DOCKER_LAYER}.gzip",
}
