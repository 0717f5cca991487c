"""``docker commit``: creates an image from a container's changes and configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from api_models.container import ContainerConfig
from engine.common.errors import conflict
from server.containers.create.merge import merge_env
from server.containers.service import Containers
from server.images.service import Images
from server.registry.reference import Reference

#: The fields of a container's configuration that an image's configuration has.
_KEPT = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
)


def image_config(config: ContainerConfig) -> dict[str, Any]:
    """The image's configuration for a container's: the fields that both have, without empty ones."""
    document = config.wire()
    return {key: document[key] for key in _KEPT if document.get(key) not in (None, "", [], {}, False)}


def _merged(own: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """The request's configuration, completed by the container's."""
    result = {**container, **own}
    for key in ("ExposedPorts", "Volumes", "Labels"):
        if container.get(key) or own.get(key):
            result[key] = {**(container.get(key) or {}), **(own.get(key) or {})}
    if env := merge_env(own.get("Env"), container.get("Env")):
        result["Env"] = env
    if own.get("Entrypoint") and not own.get("Cmd"):
        result.pop("Cmd", None)
    elif own.get("Cmd") and not own.get("Entrypoint"):
        result["Entrypoint"] = container.get("Entrypoint")
    return {key: value for key, value in result.items() if value not in (None, "", [], {})}


async def commit(
    images: Images,
    containers: Containers,
    key: str,
    *,
    body: ContainerConfig | None,
    changes: Sequence[str] = (),
    author: str = "",
    comment: str = "",
    reference: Reference | None = None,
    pause: bool = True,
) -> str:
    """Commits a container and returns the new image's id.

    ``body``: fields that replace those of the container's configuration. ``changes``: Dockerfile instructions.
    ``pause``: pauses a running container meanwhile.

    :raises WharfError: NOT_FOUND: the container; CONFLICT: it is being removed; INVALID_ARGUMENT: a bad change.
    """
    container = containers.get(key)
    if container.state.dead:
        raise conflict(f"You cannot commit container {container.id} which is Dead")
    if container.state.removing:
        raise conflict(f"You cannot commit container {container.id} which is being removed")
    own = image_config(container.config)
    requested = image_config(body) if body is not None else {}
    changed = await images.apply_changes(requested or own, changes)
    config = _merged(changed, own) if requested else changed
    paused = pause and container.state.running and not container.state.paused and not container.state.restarting
    if paused:
        paused = await containers.pause_to_commit(container.id)
    try:
        image_id = await images.commit(
            container.id,
            container.image_id,
            config=config,
            author=author,
            comment=comment,
            created_by=" ".join(container.config.cmd or ()),
            reference=reference,
            manifest=(container.image_manifest or {}).get("digest", ""),
        )
        familiar = reference.tagged().familiar if reference else ""
        extra = {"comment": comment, "imageID": image_id, "imageRef": familiar}
        containers.context.publish(container, "commit", extra)
    finally:
        if paused and container.state.paused:
            await containers.unpause(container.id)
    return image_id
