"""Where a registry is reached: mirrors before the registry itself, TLS or plain HTTP, certificates, proxies."""

import ipaddress
import os
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from engine.errors import Kind, WharfError
from engine.registry.reference import DEFAULT_DOMAIN, Reference

_DOCKER_HUB = "registry-1.docker.io"
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon's configuration says about registries."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()  # hosts, host:port, or networks in CIDR form
    certs_dir: str = "/etc/docker/certs.d"
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    downloads: int = 3  # layers of one pull at the same time
    uploads: int = 5
    attempts: int = 5  # of one download before the pull fails
    user_agent: str = "docker/28.5.2 (wharf)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to a registry. ``namespace`` tells a mirror of what it is asked for (containerd's ``ns``)."""

    scheme: str
    host: str  # with its port
    verify: bool
    mirror: bool = False
    namespace: str = ""
    prefix: str = ""

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


def host_of(domain: str) -> str:
    """The host that serves a domain of image names."""
    return _DOCKER_HUB if domain in (DEFAULT_DOMAIN, "index.docker.io") else domain


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_insecure(settings: Settings, host: str) -> bool:
    """Whether plain HTTP and unknown certificates are accepted: loopback always, others by configuration."""
    name = urlsplit(f"//{host}").hostname or ""
    address = _address(host)
    if name == "localhost" or (address is not None and any(address in net for net in _LOOPBACK)):
        return True
    for item in settings.insecure:
        if item in (host, name):
            return True
        if address is not None and "/" in item:
            try:
                if address in ipaddress.ip_network(item, strict=False):
                    return True
            except ValueError:
                continue
    return False


def _ways(settings: Settings, host: str) -> Iterator[Endpoint]:
    if is_insecure(settings, host):
        # A directory of certificates means that TLS was set up: then it is verified, and nothing goes without it.
        known = os.path.isdir(os.path.join(settings.certs_dir, host))
        yield Endpoint("https", host, verify=known)
        if not known:
            yield Endpoint("http", host, verify=False)
    else:
        yield Endpoint("https", host, verify=True)


def endpoints(settings: Settings, domain: str, *, mirrors: bool) -> list[Endpoint]:
    """All ways to a registry, the preferred first."""
    found: list[Endpoint] = []
    if mirrors:
        for mirror in settings.mirrors:
            parts = urlsplit(mirror)
            namespace = "" if domain == DEFAULT_DOMAIN else domain
            found.append(
                Endpoint(
                    parts.scheme,
                    parts.netloc,
                    verify=not is_insecure(settings, parts.netloc)
                    or os.path.isdir(os.path.join(settings.certs_dir, parts.netloc)),
                    mirror=True,
                    namespace=namespace,
                    prefix=parts.path.rstrip("/"),
                )
            )
    return found + list(_ways(settings, host_of(domain)))


def for_reference(settings: Settings, reference: Reference, *, mirrors: bool) -> list[Endpoint]:
    return endpoints(settings, reference.domain, mirrors=mirrors)


@lru_cache(maxsize=1)
def _system() -> ssl.SSLContext:
    """The authorities of the host, read once."""
    return ssl.create_default_context()


def tls_context(settings: Settings, endpoint: Endpoint) -> ssl.SSLContext:
    """Trust and client certificates of ``certs.d/<host>/``: ``*.crt`` are authorities, ``x.cert`` goes with
    ``x.key``. Reads files: call it in a thread.

    :raises WharfError: INVALID_ARGUMENT for files that don't fit together.
    """
    directory = os.path.join(settings.certs_dir, endpoint.host)
    try:
        names: Sequence[str] = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        names = ()
    if not names and endpoint.verify:
        return _system()
    if endpoint.verify:
        context = ssl.create_default_context()
    else:  # reading the authorities of the system, which takes a while, would be for nothing
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for name in names:
        path = os.path.join(directory, name)
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(cafile=path)
            elif name.endswith(".cert"):
                key = f"{name[: -len('.cert')]}.key"
                if key not in names:
                    raise WharfError(
                        Kind.INVALID_ARGUMENT,
                        f"missing key {key} for client certificate {name}. CA certificates must use the extension .crt",
                    )
                context.load_cert_chain(path, os.path.join(directory, key))
            elif name.endswith(".key") and f"{name[: -len('.key')]}.cert" not in names:
                raise WharfError(
                    Kind.INVALID_ARGUMENT, f"missing client certificate {name[: -len('.key')]}.cert for key {name}"
                )
        except (ssl.SSLError, OSError) as error:
            raise WharfError(Kind.INVALID_ARGUMENT, f"{path}: {error.strerror or error}") from None
    return context


def proxy_for(settings: Settings, endpoint_scheme: str, host: str) -> str:
    """The proxy to take, "" for none: the configuration's, else the environment's. Never for loopback."""
    environ = os.environ
    name = "https" if endpoint_scheme == "https" else "http"
    configured = settings.https_proxy if name == "https" else settings.http_proxy
    proxy = configured or environ.get(f"{name.upper()}_PROXY") or environ.get(f"{name}_proxy") or ""
    if not proxy:
        return ""
    excluded = settings.no_proxy or environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    bare = (urlsplit(f"//{host}").hostname or "").lower()
    address = _address(host)
    if bare == "localhost" or (address is not None and address.is_loopback):
        return ""
    for item in (part.strip().lower() for part in excluded.split(",")):
        if not item:
            continue
        if item == "*" or item in (bare, host.lower()):
            return ""
        if bare.endswith("." + item.lstrip("*").lstrip(".")):
            return ""
        if address is not None and "/" in item:
            try:
                if address in ipaddress.ip_network(item, strict=False):
                    return ""
            except ValueError:
                continue
    return proxy if "://" in proxy else f"http://{proxy}"
