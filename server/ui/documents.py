"""The HTML documents, from Jinja2's templates. The page's script makes everything in them."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server.version import SERVER_VERSION

#: Of Wharf, without that of the Docker Engine whose API it has.
_VERSION = SERVER_VERSION.rpartition("wharf.")[2]


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("server.ui"), autoescape=True, auto_reload=False)


def render(template: str, **values: Any) -> Response:
    return HTMLResponse(_environment().get_template(template).render(version=_VERSION, **values))


async def page(request: Request) -> Response:
    session = request.scope["session"]
    caller = session.caller
    return render(
        "page.html",
        csrf=session.csrf,
        user=caller.user or caller.owner,
        administrator=caller.unrestricted,
        policy=request.app.state.page.has_policy,
    )


async def terminal(request: Request) -> Response:
    return render("terminal.html")
