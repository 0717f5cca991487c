"""The merge of a request's configuration with its image's, by dockerd's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from api_models.container import ContainerConfig, HealthConfig
from engine.common.errors import invalid


def merge_config(config: ContainerConfig, image_config: Mapping[str, Any]) -> ContainerConfig:
    """``config`` completed by ``image_config``, the ``config`` object of the image's configuration.

    :raises WharfError: INVALID_ARGUMENT ``no command specified``.
    """
    if image_config:
        config = _merge(config, ContainerConfig.parse(image_config))
    if config.entrypoint == ("",):
        config = replace(config, entrypoint=None)
    if not config.entrypoint and not config.cmd:
        raise invalid("no command specified")
    return config


def _merge(config: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    cmd, entrypoint = config.cmd, config.entrypoint
    if not entrypoint:
        cmd = cmd or image.cmd
        entrypoint = image.entrypoint if entrypoint is None else entrypoint
    healthcheck = config.healthcheck
    if image.healthcheck is not None:
        healthcheck = _merge_health(healthcheck, image.healthcheck)
    own_labels = config.labels or {}
    env = merge_env(config.env, image.env)
    return replace(
        config,
        user=config.user or image.user,
        exposed_ports=(
            {**config.exposed_ports, **(image.exposed_ports or {})} if config.exposed_ports else image.exposed_ports
        ),
        env=None if env is None else tuple(env),
        # The container's labels override the image's. Without labels inspect shows an empty map.
        labels={
            **own_labels,
            **{key: value for key, value in (image.labels or {}).items() if key not in own_labels},
        },
        cmd=cmd,
        entrypoint=entrypoint,
        healthcheck=healthcheck,
        working_dir=config.working_dir or image.working_dir,
        volumes={**config.volumes, **(image.volumes or {})} if config.volumes else image.volumes,
        stop_signal=config.stop_signal or image.stop_signal,
    )


def merge_env(own: Sequence[str] | None, image: Sequence[str] | None) -> Sequence[str] | None:
    """The variables of ``own``, then the image's that ``own`` doesn't name. (A name without ``=`` unsets a
    variable.)"""
    if not own:
        return image
    names = {variable.partition("=")[0] for variable in own}
    return [*own, *(variable for variable in image or () if variable.partition("=")[0] not in names)]


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
