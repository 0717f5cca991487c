"""One server for each module, with the endpoints of ``endpoints.py`` unless the module has an ``api`` of its own."""

import ssl
from collections.abc import Iterator

import pytest
import trustme

from server.tests.http.endpoints import ROUTES, entered, finished, left
from server.tests.http.serving import Serving, serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Serving]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(tmp_path_factory.mktemp("api"), ROUTES, context) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh() -> None:
    for event in (left, finished, entered):
        event.clear()
