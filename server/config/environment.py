"""dockerd's environment variables that have the place of a flag.

Those of certificates (``DOCKER_CERT_PATH``, ``DOCKER_CONFIG``) and proxies are read where they are used. Variables that
dockerd reads for swarm, for the rootless mode and for its own tests have no effect on it otherwise, nor here.
"""

from collections.abc import Mapping
from dataclasses import replace

from server.config.check import check_minimum
from server.config.model import Config
from server.config.types import ConfigError

_REFUSED = {
    "DOCKER_BUILDKIT_RUNC_COMMAND": "name the runtime by default-runtime",
    "DOCKER_CONTAINER_LABELS_FILTER": "the engine sends no traces",
    "DOCKER_INSECURE_NO_IPTABLES_RAW": "the engine's rules are not in that table; see allow-direct-routing",
    "DOCKER_RAMDISK": "containers need a root file system that supports pivot_root",
    "DOCKER_TMPDIR": "temporary files are below the data root",
}


def apply(config: Config, environ: Mapping[str, str]) -> Config:
    """The configuration with the settings of the environment: a key of the file precedes ``DOCKER_MIN_API_VERSION``, as
    in dockerd, and ``DOCKER_DRIVER`` precedes flag and file.

    :raises ConfigError: an invalid value; a variable that this engine can't honour.
    """
    for name, reason in _REFUSED.items():
        if environ.get(name):
            raise ConfigError(f"the environment variable {name} is not supported: {reason}")
    if version := environ.get("DOCKER_MIN_API_VERSION"):
        try:
            check_minimum(version)
        except ConfigError as error:
            raise ConfigError(f"invalid DOCKER_MIN_API_VERSION: {error}") from None
        config = replace(config, min_api_version=config.min_api_version or version)
    if driver := environ.get("DOCKER_DRIVER"):
        config = replace(config, storage_driver=driver)
    return config
