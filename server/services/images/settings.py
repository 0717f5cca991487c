"""What the daemon's configuration says about registries."""

from engine.registry.hosts import Settings
from server.config import Config


def registry_settings(config: Config) -> Settings:
    return Settings(
        mirrors=tuple(config.registry_mirrors),
        insecure=tuple(config.insecure_registries),
        http_proxy=config.http_proxy,
        https_proxy=config.https_proxy,
        no_proxy=config.no_proxy,
        downloads=config.max_concurrent_downloads,
        uploads=config.max_concurrent_uploads,
        attempts=config.max_download_attempts,
    )
