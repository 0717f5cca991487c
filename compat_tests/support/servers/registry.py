"""Debian's docker-registry on a free loopback port: plain, with TLS, with a password, or with tokens."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from compat_tests.support.polling import until
from compat_tests.support.servers.loopback import LoopbackServer, QuietHandler

USER, PASSWORD = "ali", "open sesame"
# bcrypt of PASSWORD at the lowest cost; the registry accepts no other hash
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
SERVICE = "registry of the tests"
Auth = Literal["", "basic", "token"]


@dataclass(slots=True)
class Registry:
    """A running registry."""

    address: str  # host:port, the first part of image names
    root: Path
    ca: Path | None = None  # the CA to trust, if it uses TLS
    client_certificate: tuple[Path, Path] | None = None  # client certificate and key, if it requires one
    tokens: TokenServer | None = None
    log: Path = field(default=Path("/dev/null"))
    netns: Path | None = None  # the network namespace of its loopback

    def name(self, repository: str) -> str:
        """Return a full image name in this registry."""
        return f"{self.address}/{repository}"

    def blob(self, digest: str) -> Path:
        """Return the registry's file of a blob, for tests that damage it."""
        algorithm, value = digest.split(":")
        return self.root / "docker/registry/v2/blobs" / algorithm / value[:2] / value / "data"

    def copy_archive(self, archive: bytes | Path, repository: str, *, format: str = "docker-archive") -> None:
        """Copy an image archive to the registry with skopeo, which is not under test."""
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            if isinstance(archive, bytes):
                file.write(archive)
                file.flush()
            path = file.name if isinstance(archive, bytes) else str(archive)
            argv = [
                *(["nsenter", f"--net={self.netns}"] if self.netns else []),
                "skopeo",
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                "--all",
            ]
            argv += ["--dest-creds", f"{USER}:{PASSWORD}"] if self.tokens or self.protected else []
            argv += [f"{format}:{path}", f"docker://{self.name(repository)}"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr

    @property
    def protected(self) -> bool:
        return (self.root.parent / "htpasswd").exists()


@contextlib.contextmanager
def registry(
    *,
    tls: bool = False,
    auth: Auth = "",
    host: str = "127.0.0.1",
    listen: str = "127.0.0.1",
    netns: Path | None = None,
    delete: bool = True,
    client_certificates: bool = False,
) -> Iterator[Registry]:
    """Run a registry. With `netns` it listens on the loopback of that network namespace; with
    `client_certificates` it requires one."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wharf-registry-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = Registry("", folder / "data", log=folder / "log", netns=netns)
        http: dict[str, object] = {"addr": f"{listen}:0", "secret": "of the tests"}
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(server.root)}, "delete": {"enabled": delete}},
            "http": http,
            # allows layers with external URLs
            "validation": {"manifests": {"urls": {"allow": ["^http://127[.]0[.]0[.]1"]}}},
        }
        if tls:
            authority = trustme.CA()
            certificate = authority.issue_cert("127.0.0.1", "localhost", host)
            server.ca = folder / "ca.crt"
            authority.cert_pem.write_to_path(server.ca)
            certificate.cert_chain_pems[0].write_to_path(folder / "server.crt")
            certificate.private_key_pem.write_to_path(folder / "server.key")
            settings: dict[str, object] = {
                "certificate": str(folder / "server.crt"),
                "key": str(folder / "server.key"),
            }
            if client_certificates:
                issued = authority.issue_cert("client@tests")
                server.client_certificate = folder / "client.crt", folder / "client.key"
                issued.cert_chain_pems[0].write_to_path(server.client_certificate[0])
                issued.private_key_pem.write_to_path(server.client_certificate[1])
                settings["clientcas"] = [str(server.ca)]
            http["tls"] = settings
        if auth == "basic":
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": SERVICE, "path": str(folder / "htpasswd")}}
        elif auth == "token":
            server.tokens = stack.enter_context(TokenServer(folder))
            config["auth"] = {
                "token": {
                    "realm": server.tokens.url,
                    "service": SERVICE,
                    "issuer": TokenServer.ISSUER,
                    "rootcertbundle": str(folder / "issuer.crt"),
                }
            }
        # JSON is valid YAML
        (folder / "config.yml").write_text(json.dumps(config))
        argv = ["docker-registry", "serve", str(folder / "config.yml")]
        log = stack.enter_context(server.log.open("wb"))
        process = subprocess.Popen(
            [*(["nsenter", f"--net={netns}"] if netns else []), *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        stack.callback(_end, process)

        def port() -> str:
            match = re.search(r"listening on \S*?:(\d+)", server.log.read_text())
            return match[1] if match else ""

        until(lambda: bool(port()) or process.poll() is not None, seconds=60)
        assert port(), server.log.read_text()
        server.address = f"{host}:{port()}"
        yield server


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)


class TokenServer(LoopbackServer):
    """The token service of the distribution specification: signs USER's permissions; if ``public``, anyone may pull."""

    ISSUER = "tests"

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        self.certificate = builder.sign(self.key, hashes.SHA256())
        (folder / "issuer.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.queries: list[dict[str, list[str]]] = []  # the query of each request, in order
        self.lifetime = 300
        self.public = True
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                self._answer(query, _basic(self.headers.get("Authorization", "")))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
                known = form.get("username") == [USER] and form.get("password") == [PASSWORD]
                self._answer(form, USER if known or form.get("refresh_token") == ["identity"] else "refused")

            def _answer(self, query: dict[str, list[str]], user: str) -> None:
                server.queries.append(query)
                status = 401 if user == "refused" else 200
                body = b'{"details":"incorrect username or password"}'
                if status == 200:
                    token = server.sign(user, [s for scope in query.get("scope", []) for s in scope.split(" ")])
                    body = json.dumps(
                        {
                            "token": token,
                            "access_token": token,
                            "expires_in": server.lifetime,
                            "refresh_token": "identity",
                        }
                    ).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Handler)

    @property
    def url(self) -> str:
        return f"http://{self.address}/token"

    def sign(self, user: str, scopes: list[str]) -> str:
        """Sign a JWT for these scopes, each `repository:name:pull,push`."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = [action for action in actions.split(",") if user == USER or (self.public and action == "pull")]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": self.ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + self.lifetime,
            "nbf": now - 60,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        text = b".".join(_url64(json.dumps(part).encode()) for part in (head, claims))
        signature = self.key.sign(hashlib.sha256(text).digest(), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        r, s = utils.decode_dss_signature(signature)
        return (text + b"." + _url64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _basic(header: str) -> str:
    """Return the user of a Basic header: empty without one, `refused` if it is wrong."""
    if not header:
        return ""
    with contextlib.suppress(ValueError):
        user, _, password = base64.b64decode(header.partition(" ")[2]).decode().partition(":")
        if (user, password) == (USER, PASSWORD):
            return user
    return "refused"


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
