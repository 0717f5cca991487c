"""Validates the configuration's values before the daemon starts, with dockerd's sentences where it has them."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from api_models.supported import MAXIMUM, MINIMUM, parse_version, spelled
from engine.common.errors import WharfError
from server.config.genericresources import parse_generic_resources
from server.config.hosts import parse_host, parse_page
from server.config.model import Config
from server.config.swarmstore import check_swarm_store
from server.config.types import ConfigError
from server.config.values import parse_size
from server.logdrivers.drivers import DRIVERS
from server.logdrivers.options import check_log_options as check_container_log_options

_LEVELS = frozenset({"panic", "fatal", "error", "warn", "info", "debug", "trace"})
_DOMAIN = re.compile(r"(?=.{1,255}\Z)(\.|([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.?)+)\Z")
_SNAPSHOTTERS = ("overlayfs", "overlay2", "native")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


def check(config: Config) -> Config:
    """The configuration with normalized values.

    :raises ConfigError: an invalid value.
    """
    if config.log_level.lower() not in _LEVELS:
        raise ConfigError(f"invalid logging level: {config.log_level}")
    if config.log_format not in ("text", "json"):
        raise ConfigError(f"invalid log format: {config.log_format}")
    _check_daemon(config)
    _check_network(config)
    _check_images(config)
    check_log_options(config.log_driver, config.log_opts)
    _check_containers(config)
    return replace(config, log_level=config.log_level.lower(), dns_search=tuple(map(_search, config.dns_search)))


def _check_daemon(config: Config) -> None:
    if "policy-file" in config.given and config.policy_file and not config.has_policy:
        raise ConfigError(f"policy file {config.policy_file}: no such file")
    for text in config.hosts:
        host = parse_host(text)
        if host.mode & 0o007 and not host.scope and not config.has_policy:
            raise ConfigError(
                f"{text}: a socket for everybody needs a policy: without one, each client has root's power"
            )
    seen: dict[str, str] = {}
    for label in config.labels:
        key, separator, value = label.partition("=")
        if not separator or not key:
            raise ConfigError(f"bad attribute format: {label}")
        if seen.setdefault(key, value) != value:
            raise ConfigError(f"conflict labels for {key}={value} and {key}={seen[key]}")
    parse_generic_resources(config.node_generic_resources)
    check_swarm_store(config)
    for number, name in (
        (config.mtu, "default MTU"),
        (config.max_concurrent_downloads, "max concurrent downloads"),
        (config.max_concurrent_uploads, "max concurrent uploads"),
        (config.max_download_attempts, "max download attempts"),
        (config.default_stop_timeout, "default stop timeout"),
    ):
        if number < 0:
            raise ConfigError(f"invalid {name}: {number}")
    if config.min_api_version:
        try:
            check_minimum(config.min_api_version)
        except ConfigError as error:
            raise ConfigError(f"invalid min-api-version: {error}") from None
    if config.metrics_addr:
        _host_port(config.metrics_addr, "metrics-addr")
    if config.ui:
        parse_page(config.ui)
    elif config.ui_names:
        raise ConfigError("ui-name needs ui: the engine serves no page")
    if config.otlp_endpoint and not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", config.otlp_endpoint):
        raise ConfigError(f"invalid otlp-endpoint: {config.otlp_endpoint}: use http://host:port or https://host:port")
    _check_snapshotters(config)
    if config.tlsverify and not config.tlscacert and "tlscacert" in config.given:
        raise ConfigError("--tlsverify requires --tlscacert")


def _check_snapshotters(config: Config) -> None:
    proxies = config.proxy_snapshotters
    if proxies and not config.embedded:
        raise ConfigError("proxy-snapshotters are configured in the containerd that --containerd names")
    for name, address in proxies.items():
        if not _NAME.match(name) or name in _SNAPSHOTTERS:
            raise ConfigError(f'invalid name of a proxy snapshotter: "{name}"')
        if not os.path.isabs(address):
            raise ConfigError(f'proxy snapshotter {name}: "{address}" is not the absolute path of a unix socket')
    # A stock containerd has snapshotters that its own configuration adds.
    if config.embedded and config.storage_driver not in ("", *_SNAPSHOTTERS, *proxies):
        raise ConfigError(
            f'storage driver "{config.storage_driver}" is not supported: use overlayfs, native or a proxy snapshotter'
        )


def check_minimum(version: str) -> None:
    """Checks the oldest API version that clients may name.

    :raises ConfigError: this engine does not know it.
    """
    if version[0] in "vV":
        raise ConfigError('API version must be provided without "v" prefix')
    if not re.fullmatch(r"\d+\.\d+", version):
        raise ConfigError(version)
    if parse_version(version) < MINIMUM:
        raise ConfigError(f"minimum supported API version is {spelled(MINIMUM)}: {version}")
    if parse_version(version) > MAXIMUM:
        raise ConfigError(f"maximum supported API version is {spelled(MAXIMUM)}: {version}")


def parse_mark(text: str) -> tuple[int, int | None]:
    """Parse a firewall mark and its mask, ``mark[/mask]``, each decimal, octal (0 or 0o), hexadecimal or binary.

    :raises ConfigError: no such numbers of 32 bits.
    """
    mark, separator, mask = text.partition("/")
    numbers = []
    for word, what in ((mark, "mark"), (mask, "mask"))[: 2 if separator else 1]:
        try:
            numbers.append(int(f"0o{word[1:]}" if re.fullmatch(r"0[0-7]+", word) else word, 0))
        except ValueError:
            numbers.append(-1)
        if not 0 <= numbers[-1] < 1 << 32:
            raise ConfigError(f'invalid bridge-accept-fwmark: invalid firewall {what} "{text}"')
    return numbers[0], numbers[1] if separator else None


def _host_port(text: str, name: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or not int(port) < 65536:
        raise ConfigError(f"invalid {name}: {text}: must be host:port")
    return host.strip("[]"), int(port)


def _address(text: str, name: str, version: int | None = None) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ConfigError(f"invalid {name}: invalid IP address: {text}") from None
    if version is not None and address.version != version:
        raise ConfigError(f"invalid {name}: {text}: not an IPv{version} address")


def _interface(text: str, name: str, version: int) -> "ipaddress.IPv4Interface | ipaddress.IPv6Interface":
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise ConfigError(f"invalid {name}: invalid CIDR address: {text}") from None
    if "/" not in text or interface.version != version:
        raise ConfigError(f"invalid {name}: invalid CIDR address: {text}")
    return interface


def _check_network(config: Config) -> None:
    if config.bridge_accept_fwmark:
        parse_mark(config.bridge_accept_fwmark)
    if config.bridge and config.bridge != "none" and config.bip:
        raise ConfigError("You specified -b & --bip, mutually exclusive options. Please specify only one")
    bridge = None
    if config.bip:
        bridge = _interface(config.bip, "bip", 4)
        if bridge.network.prefixlen < 31 and bridge.ip in (bridge.network[0], bridge.network[-1]):
            raise ConfigError(f"invalid bip: {config.bip}: not the address of a host")
    if config.bip6:
        _interface(config.bip6, "bip6", 6)
    if config.fixed_cidr:
        fixed = _interface(config.fixed_cidr, "fixed-cidr", 4)
        if bridge is not None and not fixed.network.subnet_of(bridge.network):  # type: ignore[arg-type]
            raise ConfigError(f"fixed-cidr {config.fixed_cidr} is not inside the bridge's network {bridge.network}")
    if config.fixed_cidr_v6:
        _interface(config.fixed_cidr_v6, "fixed-cidr-v6", 6)
    for text, name, version in (
        (config.default_gateway, "default-gateway", 4),
        (config.default_gateway_v6, "default-gateway-v6", 6),
        (config.ip, "ip", None),
    ):
        if text:
            _address(text, name, version)
    for server in config.dns:
        _address(server, "dns")
    for address in config.host_gateway_ips:
        _address(address, "host-gateway-ip")
    for bridge_name in (config.bridge, config.bridge_name):
        if bridge_name and (len(bridge_name) > 15 or re.search(r"[\s/:]", bridge_name)):
            raise ConfigError(f"invalid bridge name: {bridge_name}")


def _search(domain: str) -> str:
    domain = domain.strip()
    if not _DOMAIN.match(domain):
        raise ConfigError(f"{domain} is not a valid domain")
    return domain


def _check_images(config: Config) -> None:
    if config.drops_blobs and not config.embedded:
        raise ConfigError("feature drop-blobs needs the engine's own supervisor: containerd keeps every blob")
    for mirror in config.registry_mirrors:
        parts = urlsplit(mirror)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(
                f"invalid mirror: no scheme specified for \"{mirror}\": must use either 'https://' or 'http://'"
            )
        if not parts.netloc or parts.query or parts.fragment:
            raise ConfigError(f'invalid mirror: query or fragment at end of the URI "{mirror}"')
        if parts.username:
            raise ConfigError(
                f'invalid mirror: username/password not allowed in URI "{parts.scheme}://xxxxx:xxxxx@{parts.hostname}"'
            )
        if parts.path not in ("", "/"):
            raise ConfigError(f'invalid mirror: path "{parts.path}" not allowed in URI "{mirror}"')
    for registry in config.insecure_registries:
        if "/" in registry:
            try:
                ipaddress.ip_network(registry, strict=False)
                continue
            except ValueError:
                pass
        if "://" in registry:
            raise ConfigError(f"insecure registry {registry} should not contain '://'")
        if registry.startswith("-") or "/" in registry:
            raise ConfigError(f"insecure registry {registry} is not valid")


def check_log_options(driver: str, options: Mapping[str, str]) -> None:
    """Checks a log driver and its options.

    :raises ConfigError: an unknown driver, an option that it doesn't support, or an invalid value.
    """
    if driver not in DRIVERS:
        raise ConfigError(f"logger: no log driver named '{driver}' is registered")
    try:
        check_container_log_options(driver, options)
    except WharfError as error:
        raise ConfigError(error.message) from None
    for key, value in options.items():
        key = key.removeprefix("cache-")
        if key in ("max-size", "max-buffer-size") and value != "-1" and parse_size(value) <= 0:
            raise ConfigError(f"{key} must be a positive number")
        if key == "max-file" and (not value.isdigit() or int(value) < 1):
            raise ConfigError("max-file cannot be less than 1")
        if key == "compress" and value not in ("true", "false"):
            raise ConfigError(f'invalid value for compress: "{value}"')


def _check_containers(config: Config) -> None:
    if config.default_ipc_mode not in ("private", "shareable"):
        hint = 'use "shareable" or "private"'
        if config.default_ipc_mode in ("host", "none") or config.default_ipc_mode.startswith("container:"):
            raise ConfigError(f'IPC mode "{config.default_ipc_mode}" is not supported as default value; {hint}')
        raise ConfigError(f"default IPC mode setting ({config.default_ipc_mode}) is invalid; {hint}")
    if config.default_cgroupns_mode not in ("", "host", "private"):
        mode = config.default_cgroupns_mode
        raise ConfigError(f'default cgroup namespace mode ({mode}) is invalid; use "host" or "private"')
    for option, value in config.exec_opts.items():
        if option != "native.cgroupdriver":
            raise ConfigError(f"invalid option '{option}' in exec-opts")
        if value not in ("cgroupfs", "systemd"):
            raise ConfigError(f"invalid cgroup driver '{value}': only cgroupfs and systemd are supported")
    for name, runtime in config.runtimes.items():
        if not _NAME.match(name):
            raise ConfigError(f"invalid runtime name: {name}")
        if name in ("runc", "io.containerd.runc.v2"):
            raise ConfigError(f"runtime name '{name}' is reserved")
        if runtime.type or runtime.options:
            raise ConfigError(f"runtime {name}: runtimeType and options are not supported: name the program by path")
        if not runtime.path:
            raise ConfigError(f"runtime {name}: either a runtimeType or a path must be configured")
    known = {"", "runc", "crun", "io.containerd.runc.v2", *config.runtimes}
    if config.default_runtime not in known:
        raise ConfigError(f"specified default runtime '{config.default_runtime}' does not exist")
    if config.userns_remap.count(":") > 1 or config.userns_remap.startswith(":"):
        raise ConfigError(f'Invalid user/group specification in --userns-remap: "{config.userns_remap}"')
    if config.default_shm_size < 0:
        raise ConfigError("SHM size can not be less than 0")
    profile = config.seccomp_profile
    if profile not in ("", "builtin", "unconfined") and not os.path.isfile(profile):
        raise ConfigError(f'opening seccomp profile "{profile}" failed: no such file or directory')
