"""The endpoints of a registry: mirrors before the registry itself, TLS or plain HTTP, certificates, proxies."""

import ipaddress
import os
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

from engine.common.errors import Kind, WharfError
from engine.common.urls import parse_url
from server.config.model import Config
from server.registry import hostsfile
from server.registry.hostsfile import Host
from server.registry.reference import DEFAULT_DOMAIN

_DOCKER_HUB = "registry-1.docker.io"
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a registry. A mirror gets no credentials; ``namespace`` names the registry that it mirrors
    (containerd's ``ns``)."""

    scheme: str
    host: str  # with its port
    verify: bool
    mirror: bool = False
    namespace: str = ""
    path: str = "/v2"  # the root of the API
    resolves: bool = True  # may resolve tags
    authorities: tuple[str, ...] = ()  # from hosts.toml, in addition to those in the host's folder
    clients: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def api(self) -> str:
        return self.base + self.path


def origin_of(url: str) -> tuple[str, str]:
    """Scheme and host with port, which decide whether credentials are sent.

    :raises WharfError: INVALID_ARGUMENT: not a URL.
    """
    parts = parse_url(url)
    return parts.scheme, parts.netloc


def host_of(domain: str) -> str:
    """The host that serves a domain of image names."""
    return _DOCKER_HUB if domain in (DEFAULT_DOMAIN, "index.docker.io") else domain


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_insecure(config: Config, host: str) -> bool:
    """Whether plain HTTP and untrusted certificates are accepted: for loopback always, for others by configuration."""
    name = urlsplit(f"//{host}").hostname or ""
    address = _address(host)
    if name == "localhost" or (address is not None and any(address in net for net in _LOOPBACK)):
        return True
    for item in config.insecure_registries:
        if item in (host, name):
            return True
        if address is not None and "/" in item:
            try:
                if address in ipaddress.ip_network(item, strict=False):
                    return True
            except ValueError:
                continue
    return False


def _verified(config: Config, host: str) -> bool:
    """Whether a host's certificate must be trusted."""
    return not is_insecure(config, host) or _has_certificates(config, host)


def _has_certificates(config: Config, host: str) -> bool:
    """Whether TLS is configured for a host: by a folder with certificates, not one that only names mirrors."""
    try:
        names = os.listdir(os.path.join(config.certs_dir, host))
    except OSError:
        return False
    return not names or any(name.endswith((".crt", ".cert", ".key")) for name in names)


def _variants(config: Config, host: str) -> Iterator[Endpoint]:
    if is_insecure(config, host):
        # A folder of certificates means that TLS is configured: verify it, and never use plain HTTP.
        known = _has_certificates(config, host)
        yield Endpoint("https", host, verify=known)
        if not known:
            yield Endpoint("http", host, verify=False)
    else:
        yield Endpoint("https", host, verify=True)


def endpoints(config: Config, domain: str, *, mirrors: bool) -> list[Endpoint]:
    """All endpoints of a registry in the order of preference: mirrors, then the registry itself. Reads files: call it
    in a thread.

    ``config.registry_mirrors`` are Docker Hub's; mirrors of any registry are in its
    ``hosts.toml``. Without ``mirrors`` only the registry itself is returned, even if the file names another server.

    :raises WharfError: INVALID_ARGUMENT for a malformed ``hosts.toml``.
    """
    origin = host_of(domain)
    hub = origin == _DOCKER_HUB
    file = hostsfile.read(config.certs_dir, DEFAULT_DOMAIN if hub else origin)
    found: list[Endpoint] = []
    if mirrors and hub:
        found += [_hub_mirror(config, mirror) for mirror in config.registry_mirrors]
    if file is None:
        return [*found, *_variants(config, origin)]
    if mirrors:
        found += [_from_file(config, host, origin, domain) for host in file.mirrors if host.pulls]
    server = file.server
    if not server.host or (server.host != origin and not mirrors):
        own = ("authorities", "clients", "headers") if not server.host else ()
        kept = {name: getattr(server, name) for name in own}
        for way in _variants(config, origin):
            verify = way.verify if server.skip_verify is None or server.host else not server.skip_verify
            found.append(replace(way, verify=verify, **kept))
        return found
    found.append(_from_file(config, server, origin, domain, mirror=server.host != origin))
    return found


def _hub_mirror(config: Config, mirror: str) -> Endpoint:
    parts = urlsplit(mirror)
    verify = _verified(config, parts.netloc)
    return Endpoint(parts.scheme, parts.netloc, verify=verify, mirror=True, path=parts.path.rstrip("/") + "/v2")


def _from_file(config: Config, host: Host, origin: str, domain: str, *, mirror: bool = True) -> Endpoint:
    verify = not host.skip_verify if host.skip_verify is not None else _verified(config, host.host)
    return Endpoint(
        host.scheme,
        host.host,
        verify=verify or (host.skip_verify is None and bool(host.authorities)),
        mirror=mirror,
        namespace=domain if host.host != origin else "",
        path=host.path,
        resolves=host.resolves,
        authorities=host.authorities,
        clients=host.clients,
        headers=host.headers,
    )


@lru_cache(maxsize=1)
def _system() -> ssl.SSLContext:
    """The host's certificate authorities, read once."""
    return _strict()


def _strict() -> ssl.SSLContext:
    """A client context with Go's rules: a server's names are only in its subjectAltName (Python also accepts the common
    name), and at least TLS 1.2."""
    context = ssl.create_default_context()
    context.hostname_checks_common_name = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def tls_context(config: Config, endpoint: Endpoint) -> ssl.SSLContext:
    """Trusted and client certificates of ``certs.d/<host>/``: ``*.crt`` are authorities, ``x.cert`` belongs to
    ``x.key``; and those in ``hosts.toml``. Reads files: call it in a thread.

    :raises WharfError: INVALID_ARGUMENT for files that don't match.
    """
    directory = os.path.join(config.certs_dir, endpoint.host)
    try:
        names: Sequence[str] = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        names = ()
    named = endpoint.authorities or endpoint.clients
    if not named and endpoint.verify and not any(name.endswith((".crt", ".cert", ".key")) for name in names):
        return _system()
    if endpoint.verify:
        context = _strict()
    else:  # else don't read the system's authorities, which takes time
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
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
    path = ""
    try:
        for path in endpoint.authorities:
            context.load_verify_locations(cafile=path)
        for path, key in endpoint.clients:
            context.load_cert_chain(path, key or None)
    except (ssl.SSLError, OSError) as error:
        raise WharfError(Kind.INVALID_ARGUMENT, f"{path}: {error.strerror or error}") from None
    return context


def proxy_for(config: Config, endpoint_scheme: str, host: str) -> str:
    """The proxy to use, "" for none: the configuration's, else the environment's. Never for loopback."""
    environ = os.environ
    name = "https" if endpoint_scheme == "https" else "http"
    configured = config.https_proxy if name == "https" else config.http_proxy
    proxy = configured or environ.get(f"{name.upper()}_PROXY") or environ.get(f"{name}_proxy") or ""
    if not proxy:
        return ""
    excluded = config.no_proxy or environ.get("NO_PROXY") or environ.get("no_proxy") or ""
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
