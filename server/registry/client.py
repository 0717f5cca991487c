"""One repository of a registry, over HTTP: authentication, redirects, mirrors, retries, deadlines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin, urlsplit

from engine.common import limits, timeouts
from engine.common.errors import Kind, WharfError
from engine.common.urls import parse_url
from server.config.model import Config
from server.registry import oci, tokens
from server.registry.auth import ANONYMOUS, Authorizer, Credentials
from server.registry.hosts import Endpoint, endpoints, origin_of, proxy_for, tls_context
from server.registry.reference import Reference
from server.registry.responses import RegistryError, during, from_httpx_error, limited, pieces, refusal
from server.version import SERVER_VERSION

if TYPE_CHECKING:
    import httpx

_REDIRECTS = 10
_USER_AGENT = f"docker/{SERVER_VERSION.partition('+')[0]} (wharf)"

Content = Callable[[], AsyncIterator[bytes]] | bytes | None


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, independent of the endpoint."""

    method: str
    headers: dict[str, str]
    content: Content
    query: dict[str, str]
    ok: tuple[int, ...]
    scope: str
    bulk: bool = False  # the response is large


class Repository:
    """An async context manager. ``push`` selects the token's scope. Without ``mirrors``, and for a push, only the
    registry itself is used.

    Every method raises RegistryError (a WharfError): NOT_FOUND, UNAUTHENTICATED, PERMISSION_DENIED, INTERNAL
    (unreachable, 5xx, 429), DEADLINE_EXCEEDED, INVALID_ARGUMENT (a malformed response).
    """

    def __init__(
        self,
        config: Config,
        reference: Reference,
        credentials: Credentials = ANONYMOUS,
        *,
        push: bool = False,
        mirrors: bool = True,
    ) -> None:
        self.reference = reference
        self.is_registry = True
        self.attempts = max(1, config.max_download_attempts)
        self._config = config
        self._credentials = credentials
        self._mirrors = mirrors and not push
        self._endpoints: list[Endpoint] | None = None
        self._dropped = False
        self._chosen: Endpoint | None = None
        self._clients: dict[tuple[Endpoint, bool], httpx.AsyncClient] = {}
        self._authorizers: dict[Endpoint, Authorizer] = {}
        self.scope = f"repository:{reference.path}:{'pull,push' if push else 'pull'}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    # requests

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: Content = None,
        query: dict[str, str] | None = None,
        ok: tuple[int, ...] = (200,),
        scope: str = "",
        bulk: bool = False,
    ) -> AsyncIterator["httpx.Response"]:
        """One exchange with the first endpoint that serves it. ``path`` is below ``/v2/<repository>/``, or an absolute
        URL from an earlier response. ``scope`` replaces the repository's own. The response's body is not read yet."""
        request = _Request(method, headers or {}, content, query or {}, ok, scope or self.scope, bulk)
        response = await self._try_endpoints(request, path)
        try:
            yield response
        finally:
            await response.aclose()

    async def _find_endpoints(self) -> list[Endpoint]:
        if self._endpoints is None:
            domain = self.reference.domain
            self._endpoints = await asyncio.to_thread(endpoints, self._config, domain, mirrors=self._mirrors)
        return self._endpoints

    def drop_mirrors(self) -> bool:
        """Uses only the registry itself from now on: a mirror may have sent other content. Returns False if there were
        no mirrors, so that a retry is useless."""
        endpoints = self._endpoints or []
        kept = [endpoint for endpoint in endpoints if not endpoint.mirror] or endpoints[-1:]
        if kept != endpoints:
            self._endpoints, self._chosen, self._dropped = kept, None, True
        return self._dropped

    def reject(self, digest: str) -> bool:
        """See ``Source.reject``: any mirror may have sent it."""
        return self.drop_mirrors()

    async def _try_endpoints(self, request: _Request, path: str) -> "httpx.Response":
        endpoints = await self._find_endpoints()
        if "://" in path:
            return await self._authorized(self._chosen or endpoints[-1], path, request)
        last: WharfError | None = None
        if self._chosen is not None:
            # Try the last successful endpoint first; for a blob that a mirror lacks, the registry follows.
            others = (each for each in endpoints if each != self._chosen and self._chosen.mirror)
            endpoints = [self._chosen, *others]
        for endpoint in endpoints:
            if not endpoint.resolves and endpoint is not endpoints[-1] and _is_mutable(path):
                continue
            url = f"{endpoint.api}/{self.reference.path}/{path}"
            query = {**request.query, "ns": endpoint.namespace} if endpoint.namespace else request.query
            try:
                response = await self._authorized(endpoint, url, replace(request, query=query))
            except WharfError as error:
                if not endpoint.mirror and (not isinstance(error, RegistryError) or error.status):
                    self._chosen = self._chosen or endpoint
                    raise
                # The registry's own error precedes a mirror's, and the error over TLS that over plain HTTP.
                if last is None or (not endpoint.mirror and endpoint.scheme == "https"):
                    last = error
                continue
            if endpoint in await self._find_endpoints():  # it may have been dropped meanwhile
                self._chosen = endpoint
            return response
        assert last is not None
        raise last

    async def _authorized(self, endpoint: Endpoint, url: str, request: _Request) -> "httpx.Response":
        authorizer = self._authorizer(endpoint)
        for attempt in range(2):
            sent = authorizer.header(request.scope)
            response = await self._redirected(endpoint, authorizer, url, request)
            if response.status_code != 401 or attempt or origin_of(str(response.url)) != origin_of(endpoint.base):
                # Never answer another host's challenge (of a redirect, or of the URL that a manifest names for a
                # layer): it could direct the credentials anywhere.
                break
            body = await limited(response)
            await response.aclose()
            names = response.headers.get_list("www-authenticate")
            with during(request.method, url):
                answered = await authorizer.answer(names, request.scope, sent)
            if not answered:
                raise refusal(request.method, url, response, body)
        if response.status_code in request.ok:
            return response
        body = await limited(response)
        await response.aclose()
        raise refusal(request.method, url, response, body)

    async def _redirected(
        self, endpoint: Endpoint, authorizer: Authorizer, url: str, request: _Request
    ) -> "httpx.Response":
        home = urlsplit(endpoint.base).netloc
        query = request.query
        for _ in range(_REDIRECTS + 1):
            sent = dict(request.headers)
            # Send credentials to the registry itself only, and only with its scheme: a redirect to a blob store carries
            # its own key.
            if origin_of(url) == origin_of(endpoint.base):
                sent.update(endpoint.headers)
                if authorization := authorizer.header(request.scope):
                    sent["authorization"] = authorization
            response = await self._send(endpoint, url, replace(request, headers=sent, query=query))
            if response.status_code not in (301, 302, 303, 307, 308) or request.method not in ("GET", "HEAD"):
                return response
            location = response.headers.get("location", "")
            await response.aclose()
            try:
                target = urljoin(url, location)
                parts = parse_url(target)
            except (ValueError, WharfError):
                target, parts = "", urlsplit("")
            if not location or parts.scheme not in ("http", "https") or not parts.netloc:
                raise RegistryError(Kind.INVALID_ARGUMENT, f"{home}: a redirect without a location", status=502)
            # Also from https to http, as dockerd does: without credentials, and a blob's digest is verified.
            url, query = target, {}
        raise RegistryError(Kind.INVALID_ARGUMENT, f"{home}: stopped after {_REDIRECTS} redirects", status=502)

    async def _send(self, endpoint: Endpoint, url: str, request: _Request) -> "httpx.Response":
        client = await self._client(endpoint, url, bulk=request.bulk)
        import httpx

        body = request.content() if callable(request.content) else request.content
        try:
            target = httpx.URL(url)
            if request.query:
                target = target.copy_merge_params(request.query)
            built = client.build_request(request.method, target, headers=request.headers, content=body)
            return await client.send(built, stream=True)
        except httpx.HTTPError as error:
            raise from_httpx_error(error, request.method, url) from None
        except httpx.InvalidURL:
            raise RegistryError(Kind.INVALID_ARGUMENT, f"{endpoint.host}: an invalid URL", status=502) from None

    async def _client(self, endpoint: Endpoint, url: str, *, bulk: bool = False) -> "httpx.AsyncClient":
        same = origin_of(url) == origin_of(endpoint.base)
        made = endpoint if same else Endpoint(*origin_of(url), verify=endpoint.verify)
        key = made, bulk
        client = self._clients.get(key)
        if client is None:
            client = await asyncio.to_thread(self._make_client, made, bulk=bulk)
            if key in self._clients:  # two concurrent requests: keep the first one's client
                await client.aclose()
            client = self._clients.setdefault(key, client)
        return client

    def _make_client(self, endpoint: Endpoint, *, bulk: bool) -> "httpx.AsyncClient":
        # Imported in a thread at the first use: it takes time, and megabytes.
        import httpx

        from server.registry.bulk import BulkTransport

        connect, answer = timeouts.seconds("registry.connect"), timeouts.seconds("registry.answer")
        context = tls_context(self._config, endpoint) if endpoint.scheme == "https" else None
        proxy = proxy_for(self._config, endpoint.scheme, endpoint.host)
        transport = None
        if bulk and not proxy:
            transport = BulkTransport(endpoint.host, context, connect=connect, answer=answer)
        return httpx.AsyncClient(
            verify=context or False,
            transport=transport,
            proxy=proxy or None,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(answer, connect=connect, pool=None),
            headers={"user-agent": _USER_AGENT, "accept-encoding": "identity"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
        )

    def _authorizer(self, endpoint: Endpoint) -> Authorizer:
        found = self._authorizers.get(endpoint)
        if found is None:
            who = ANONYMOUS if endpoint.mirror else self._credentials
            fetch = partial(tokens.exchange, partial(self._client, endpoint))
            found = self._authorizers[endpoint] = Authorizer(who, fetch, endpoint.scheme == "https")
        return found

    # the registry's API

    async def head(self, selector: str) -> tuple[str, str, int] | None:
        """(digest, media type, size) of a manifest; None if the registry doesn't return them without the manifest."""
        try:
            async with self.request("HEAD", f"manifests/{selector}", headers={"accept": oci.ACCEPT}) as response:
                digest = response.headers.get("docker-content-digest", "")
                media_type = response.headers.get("content-type", "").split(";")[0].strip()
                length = response.headers.get("content-length", "")
                if not digest or not length.isdigit():
                    return None
                return digest, media_type, int(length)
        except RegistryError as error:
            if error.status in (400, 403, 405, 429):  # the response to a GET tells the reason
                return None
            raise

    async def manifest(self, selector: str) -> tuple[bytes, str]:
        """(data, media type) of a manifest. The data is verified against a digest; if a mirror's data doesn't match,
        the registry itself is used."""
        try:
            return await self._manifest(selector)
        except RegistryError as error:
            if error.status != 200 or not self.drop_mirrors():
                raise
        return await self._manifest(selector)

    async def _manifest(self, selector: str) -> tuple[bytes, str]:
        async with self.request("GET", f"manifests/{selector}", headers={"accept": oci.ACCEPT}) as response:
            data = await limited(response, limits.DOCUMENT_BYTES)
            media_type = response.headers.get("content-type", "").split(";")[0].strip()
        try:
            document = oci.load(data, selector)
        except WharfError:
            raise RegistryError(
                Kind.INVALID_ARGUMENT,
                f"error parsing HTTP 200 response body: {urlsplit(str(response.url)).netloc} sent no manifest but"
                f" {media_type or 'something else'}: {data[:40]!r}",
                status=200,
            ) from None
        if ":" in selector and oci.digest_of(data) != selector and selector.startswith("sha256:"):
            raise RegistryError(
                Kind.INVALID_ARGUMENT, f"manifest verification failed for digest {selector}", status=200, again=True
            )
        stated = document.get("mediaType")
        if isinstance(stated, str) and stated:
            media_type = stated
        elif media_type not in (*oci.INDEX_TYPES, *oci.MANIFEST_TYPES, *oci.SCHEMA1):
            media_type = oci.media_type_of(document)
        return data, media_type

    @asynccontextmanager
    async def blob(
        self, digest: str, offset: int = 0, url: str = ""
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """(offset, pieces) of a blob. The offset is 0 if the registry can't resume. ``url``: the blob's location, if
        another."""
        headers = {"range": f"bytes={offset}-"} if offset else {}
        async with self.request("GET", url or f"blobs/{digest}", headers=headers, ok=(200, 206), bulk=True) as response:
            start = 0
            if response.status_code == 206:
                given = response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
                if not given.isdigit() or int(given) != offset:
                    raise RegistryError(Kind.INVALID_ARGUMENT, f"{digest}: the registry sent another range", again=True)
                start = offset
            yield start, pieces(response)

    async def tags(self) -> list[str]:
        """All tags, page by page."""
        found: list[str] = []
        path = "tags/list"
        for _ in range(1000):
            async with self.request("GET", path) as response:
                document = oci.load(await limited(response, limits.DOCUMENT_BYTES), "tags/list")
                link = response.headers.get("link", "")
                here = str(response.url)
            found += [str(tag) for tag in document.get("tags") or ()]
            if len(found) > limits.REPOSITORY_TAGS:
                raise limits.exceeded("REPOSITORY_TAGS", f"{self.reference.path}: the number of tags")
            if 'rel="next"' not in link:
                break
            path = urljoin(here, link.partition(">")[0].lstrip("< "))
        return found

    async def ping(self, *, offline: bool = False) -> str:
        """A login: only authenticates. Returns the refresh token, if the registry issues one. For a repository without
        mirrors, which don't know users."""
        request = _Request("GET", {}, None, {}, (200,), "")
        last: WharfError | None = None
        for endpoint in await self._find_endpoints():
            authorizer = self._authorizer(endpoint)
            url = f"{endpoint.api}/"
            try:
                for attempt in range(2):
                    sent = authorizer.header("")
                    response = await self._redirected(endpoint, authorizer, url, request)
                    body = await limited(response)
                    await response.aclose()
                    same = origin_of(str(response.url)) == origin_of(endpoint.base)
                    if response.status_code == 401 and not attempt and same:
                        names = response.headers.get_list("www-authenticate")
                        with during("GET", url):
                            answered = await authorizer.answer(names, "", sent, offline=offline)
                        if answered:
                            continue
                    if response.status_code == 401:
                        sentence = f"login attempt to {url} failed with status: 401 Unauthorized"
                        raise RegistryError(Kind.UNAUTHENTICATED, sentence, status=401)
                    if response.status_code != 200:
                        raise refusal("GET", url, response, body)
                    return authorizer.refresh_token
            except WharfError as error:
                if not isinstance(error, RegistryError) or error.status:
                    raise
                last = last or error
        assert last is not None
        raise last


def _is_mutable(path: str) -> bool:
    """Whether a response resolves a tag or lists tags: no digest can verify it."""
    kind, _, selector = path.partition("/")
    return kind == "tags" or (kind == "manifests" and ":" not in selector)
