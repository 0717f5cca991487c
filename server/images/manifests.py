"""``Manifests`` of a list and of inspect: what an index has for each platform, local or not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.api.types import Platform
from server.images.model import ImageUser
from server.images.trees import Member, Tree
from server.registry import oci

Json = dict[str, Any]

_UNKNOWN = Platform("unknown", "unknown")


def used_manifests(users: Iterable[ImageUser]) -> Mapping[str, Sequence[str]]:
    """Return the ids of containers by the digest of the manifest that they were created from."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for user in users:
        if user.image_manifest:
            found[user.image_manifest.get("digest", "")].append(user.id)
    return found


def describe(
    tree: Tree, layers: Mapping[str, int], users: Mapping[str, Sequence[str]], *, identity: Json | None = None
) -> list[Json]:
    """Describe each manifest of a target. ``layers``: the sizes of unpacked layers by chain id. ``users``: see
    :func:`used_manifests`. ``identity``: ``Identity`` of the target, shown for images that are complete."""
    return [_describe(member, layers, users, identity) for member in tree.members]


def _describe(
    member: Member, layers: Mapping[str, int], users: Mapping[str, Sequence[str]], identity: Json | None
) -> Json:
    desc, facts = member.descriptor, member.facts
    unpacked = facts.unpacked(layers) if facts is not None else 0
    entry: Json = {
        "ID": desc.digest,
        "Descriptor": oci.to_json(desc),
        "Available": member.available,
        "Size": {"Content": member.size, "Total": member.size + unpacked},
        "Kind": "unknown",
    }
    if desc.annotations.get(oci.ATTESTATION):
        if of := desc.annotations.get(oci.ATTESTATION_OF):
            entry |= {"Kind": "attestation", "AttestationData": {"For": of}}
    elif desc.platform != _UNKNOWN and not member.no_image:
        platform = desc.platform or (facts.platform if facts is not None else Platform("", ""))
        data: Json = {
            "Platform": oci.platform_json(platform),
            "Containers": list(users.get(desc.digest, ())) or None,  # null, as dockerd shows it
            "Size": {"Unpacked": unpacked},
        }
        if identity is not None and member.available:
            data["Identity"] = identity
        entry |= {"Kind": "image", "ImageData": data}
    return entry
