"""The login: a token that ``wharf ui`` prints, or a user's password with a policy and PAM, becomes a session.

The link is ``/login#TOKEN``. A browser sends no fragment to a server, so the token is in no log; the document's script
sends it in a body. So a program that only fetches links does not use the token up either.
"""

from starlette.requests import Request
from starlette.responses import Response

from engine.common import jsontext
from engine.common.errors import Kind, WharfError
from server.http import params
from server.http.answers import no_content
from server.ui import documents

_MAX_BODY = 4096


async def small_json(request: Request) -> dict[str, object]:
    """The body, a JSON object of at most 4 KiB.

    :raises WharfError: INVALID_ARGUMENT: it is none.
    """
    return jsontext.load_object(await params.raw_body(request, _MAX_BODY), "the body")


async def show(request: Request) -> Response:
    return documents.render("login.html", passwords=_takes_passwords(request))


def _takes_passwords(request: Request) -> bool:
    """An engine without a policy knows no users."""
    page = request.app.state.page
    return bool(page.has_policy and page.passwords.available)


async def enter(request: Request) -> Response:
    """``{"token": …}`` or ``{"user": …, "password": …}``: sets the cookie of a new session."""
    body = await small_json(request)
    page = request.app.state.page
    token, user, password = (body.get(name) for name in ("token", "user", "password"))
    if isinstance(user, str) and isinstance(password, str) and user:
        if not _takes_passwords(request):
            raise WharfError(Kind.UNAUTHENTICATED, "this engine takes no passwords: `wharf ui` prints a link")
        await page.passwords.check(user, password)
        session = page.sessions.begin(await page.engine.gate.caller_of_user(user))
    elif isinstance(token, str) and token:
        session = page.sessions.redeem(token)
    else:
        raise WharfError(Kind.UNAUTHENTICATED, "the token is missing")
    response = no_content()
    response.set_cookie(
        page.cookie,
        session.id,
        httponly=True,
        samesite="strict",
        # A proxy with TLS says so. Without TLS a browser would not send a secure cookie back.
        secure=request.headers.get("x-forwarded-proto", "") == "https",
    )
    return response


async def leave(request: Request) -> Response:
    """Ends the session."""
    page = request.app.state.page
    page.sessions.end(request.scope["session"])
    response = no_content()
    response.delete_cookie(page.cookie, httponly=True, samesite="strict")
    return response
