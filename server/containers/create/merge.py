"""The request's config merged with the image's (``dockerd``'s rules: what the request leaves open)."""

from collections.abc import Mapping
from typing import Any

from api_models.container import ContainerConfig, HealthConfig
from engine.common.errors import invalid


def merge_config(config: ContainerConfig, image_config: Mapping[str, Any]) -> None:
    """Fills ``config`` in place. ``image_config`` is the ``config`` object of the image's configuration.

    :raises WharfError: INVALID_ARGUMENT ``no command specified``.
    """
    if image_config:
        _merge(config, ContainerConfig.model_validate(dict(image_config)))
    if config.entrypoint == [""]:
        config.entrypoint = None
    if not config.entrypoint and not config.cmd:
        raise invalid("no command specified")


def _merge(config: ContainerConfig, image: ContainerConfig) -> None:
    config.user = config.user or image.user
    if not config.exposed_ports:
        config.exposed_ports = image.exposed_ports
    else:
        config.exposed_ports = {**config.exposed_ports, **(image.exposed_ports or {})}
    config.env = merge_env(config.env, image.env)
    # What the container says wins; a missing map becomes an empty one, as clients see it in inspect.
    config.labels = {
        **(config.labels or {}),
        **{key: value for key, value in (image.labels or {}).items() if key not in (config.labels or {})},
    }
    if not config.entrypoint:
        if not config.cmd:
            config.cmd = image.cmd
        if config.entrypoint is None:
            config.entrypoint = image.entrypoint
    if image.healthcheck is not None:
        config.healthcheck = _merge_health(config.healthcheck, image.healthcheck)
    config.working_dir = config.working_dir or image.working_dir
    config.volumes = {**config.volumes, **(image.volumes or {})} if config.volumes else image.volumes
    config.stop_signal = config.stop_signal or image.stop_signal


def merge_env(own: list[str] | None, image: list[str] | None) -> list[str] | None:
    """The own variables, then those of the image that aren't set (nor named alone, to unset them)."""
    if not own:
        return image
    names = {variable.partition("=")[0] for variable in own}
    return own + [variable for variable in image or () if variable.partition("=")[0] not in names]


def _merge_health(own: HealthConfig | None, image: HealthConfig) -> HealthConfig:
    if own is None:
        return image
    return HealthConfig(
        test=own.test or image.test,
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
    )
