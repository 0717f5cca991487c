"""Binds the sockets of the API. They grant root's power, so their modes are set before anyone can connect."""

import contextlib
import errno
import grp
import logging
import os
import socket
import ssl
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from engine.common.sockets import BACKLOG
from server.config import Config, ConfigError
from server.config.hosts import Host, parse_host, parse_page

log = logging.getLogger(__name__)

# The first descriptor that systemd passes.
_FIRST_PASSED = 3


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket. ``tls``: serve it with TLS. ``path``: the unix socket to unlink at the end.

    ``metrics``: it serves the metrics instead of the API. ``page``: it serves the page.
    """

    host: Host
    sock: socket.socket
    tls: bool
    path: Path | None = None
    metrics: bool = False
    page: bool = False

    def close(self) -> None:
        self.sock.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()


def bind_all(config: Config) -> list[Listener]:
    """Bind every ``-H`` once; either all or none.

    :raises ConfigError: an address can't be bound.
    """
    tls = config.tls or config.tlsverify
    listeners: list[Listener] = []
    try:
        for text in dict.fromkeys(config.hosts):
            listeners += _bind(parse_host(text, tls=tls), config, tls=tls)
        if config.metrics_addr:
            listeners.append(_metrics(config.metrics_addr))
        if config.ui:
            listeners.append(_page(parse_page(config.ui), config))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind(host: Host, config: Config, *, tls: bool) -> list[Listener]:
    try:
        match host.scheme:
            case "unix":
                return [_unix(host, config)]
            case "tcp":
                return [_tcp(host, tls=tls)]
            case _:
                return _from_systemd(host)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"failed to load listeners: listen {host}: {reason}") from error


def _group(name: str, *, required: bool) -> int:
    """Return the group that may use the socket; root's if the default group doesn't exist."""
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if required:
            raise ConfigError(f"group {name} not found") from None
        log.warning("could not change group of the API socket to %s: group %s not found", name, name)
        return 0


def _unix(host: Host, config: Config) -> Listener:
    path = Path(host.path)
    gid = _group(config.group, required="group" in config.given) if config.group else 0
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    # No client may connect between bind and chmod.
    mask = os.umask(0o777)
    try:
        sock.bind(str(path))
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    try:
        os.chown(path, 0, gid)
        os.chmod(path, host.mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        path.unlink(missing_ok=True)
        raise
    return Listener(host, sock, tls=False, path=path)


def _clear_stale(path: Path) -> None:
    """Remove a stale socket. A socket that is served, or a file that is no socket, stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EADDRINUSE, "the path exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
    raise OSError(errno.EADDRINUSE, "address already in use", str(path))


def _metrics(address: str) -> Listener:
    host, _, port = address.rpartition(":")
    where = Host("tcp", address=host.strip("[]"), port=int(port))
    try:
        return Listener(where, _tcp_socket(where), tls=False, metrics=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"failed to start metrics server: listen {where}: {reason}") from error


def _page(host: Host, config: Config) -> Listener:
    try:
        listener = _unix(host, config) if host.scheme == "unix" else Listener(host, _tcp_socket(host), tls=False)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"failed to serve the page: listen {host}: {reason}") from error
    return replace(listener, page=True)


def _tcp(host: Host, *, tls: bool) -> Listener:
    if not tls:
        log.warning("[DEPRECATION NOTICE] API is accessible on %s without encryption: root on this host for all", host)
    return Listener(host, _tcp_socket(host), tls=tls)


def _tcp_socket(host: Host) -> socket.socket:
    address = socket.getaddrinfo(host.address or None, host.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address[4])
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _from_systemd(host: Host) -> list[Listener]:
    """Return systemd's sockets: all, or the named one (a number or a name of LISTEN_FDNAMES)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise ConfigError("no sockets found via socket activation: make sure the service was started by systemd")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    numbers = list(range(_FIRST_PASSED, _FIRST_PASSED + count))
    if host.path not in ("", "*"):
        numbers = [
            number
            for number in numbers
            if host.path == str(number) or host.path in names[number - _FIRST_PASSED : number - _FIRST_PASSED + 1]
        ]
    if not numbers:
        raise ConfigError(f"no sockets found via socket activation for {host}")
    listeners = []
    for number in numbers:
        os.set_inheritable(number, False)  # noqa: FBT003
        listeners.append(Listener(host, socket.socket(fileno=number), tls=False))
    return listeners


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return the TLS settings of the tcp sockets, or ``None`` if TLS is off.

    :raises ConfigError: certificate, key or CA can't be read.
    """
    if not (config.tls or config.tlsverify):
        return None
    environ = os.environ
    home = Path(environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))
    certificate = config.tlscert or str(home / "cert.pem")
    key = config.tlskey or str(home / "key.pem")
    authority = config.tlscacert or str(home / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The first that the client offers too is used. Clients of gRPC offer only h2; all others get HTTP/1.1.
    context.set_alpn_protocols(["http/1.1", "h2"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f'could not load X509 key pair (cert: "{certificate}", key: "{key}"): {error}') from None
    if config.tlsverify:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f'could not read CA certificate "{authority}": {error}') from None
    return context
