"""The descriptions of the endpoints below ``/wharf/v1``: what their routes and records don't have."""

from collections.abc import Iterable, Mapping
from typing import Any

from api_models.wharf import (
    AuditLine,
    Build,
    CallerPolicy,
    Directory,
    Gpu,
    ImageLayers,
    JobSocket,
    PageLogin,
    QueueEntry,
    SocketCreateRequest,
    Timeline,
    UsageRow,
    UserSummary,
)
from engine.common import limits
from server.http.jsonstreams import NDJSON
from server.http.openapi import Operation, Query, description
from server.http.routing import ApiRoute
from server.system.overview import rule_schemas

_NO_POLICY = "The engine has no policy"

#: By ``ApiRoute.spelled``.
OPERATIONS: Mapping[str, Operation] = {
    "GET /wharf/v1/users": Operation(
        about="Lists all users with what belongs to them; for a user, the own row.",
        answer=UserSummary,
        many=True,
        errors={409: _NO_POLICY},
    ),
    "GET /wharf/v1/policy": Operation(
        about="Shows the caller's role with its rights and limits.",
        answer=CallerPolicy,
        errors={409: _NO_POLICY},
    ),
    "GET /wharf/v1/gpus": Operation(
        about="Lists the GPUs of this host and who has them.",
        answer=Gpu,
        many=True,
        errors={409: _NO_POLICY},
    ),
    "GET /wharf/v1/queue": Operation(
        about="Lists the containers that wait for GPUs, the next one first.",
        answer=QueueEntry,
        many=True,
        errors={409: _NO_POLICY},
    ),
    "GET /wharf/v1/usage": Operation(
        about="Shows what each user has used, by day, the latest last; for a user, the own rows.",
        query=(
            Query("days", f"How many days, today included, by default 7, at most {limits.USAGE_DAYS}", "integer"),
            Query("containers", "A row for each container instead of each user", "boolean"),
        ),
        answer=UsageRow,
        many=True,
        errors={400: "A parameter is invalid, or there are too many containers", 409: _NO_POLICY},
    ),
    "GET /wharf/v1/audit": Operation(
        about="Shows the last lines of the audit log.",
        query=(
            Query("n", f"How many lines, by default 50, at most {limits.AUDIT_LINES}", "integer"),
            Query("user", "Only lines of this user"),
            Query("follow", "Then send each new line", "boolean"),
        ),
        answer=AuditLine,
        many=True,
        media_type=NDJSON,
        errors={400: "A parameter is invalid", 409: "The engine has no policy, or its policy has no audit log"},
    ),
    "GET /wharf/v1/sockets": Operation(
        about="Lists the job sockets of the caller; for an administrator, of all users.",
        answer=JobSocket,
        many=True,
        errors={409: _NO_POLICY},
    ),
    "POST /wharf/v1/sockets": Operation(
        about="Creates a job socket.",
        body=SocketCreateRequest,
        answer=JobSocket,
        status=201,
        errors={400: "A value is invalid", 403: "A job socket asks", 409: _NO_POLICY},
    ),
    "DELETE /wharf/v1/sockets/{}": Operation(
        about="Closes a job socket, and removes what was created through it. Answers when all is removed.",
        status=204,
        errors={404: "There is no such job socket", 409: _NO_POLICY},
    ),
    "GET /wharf/v1/containers/{}/timeline": Operation(
        about="Shows what took how long in the last create, start and exit of a container that this daemon has made.",
        answer=Timeline,
        many=True,
        errors={404: "There is no such container"},
    ),
    "GET /wharf/v1/timelines": Operation(
        about=f"Lists what took how long in the caller's last {limits.TIMELINES_OF_OWNER} pulls and builds, the latest "
        "last; for an administrator, in those of all users.",
        query=(
            Query("operation", "pull or build; by default both"),
            Query("subject", "Only this reference of an image, or ref of a build"),
        ),
        answer=Timeline,
        many=True,
    ),
    "POST /wharf/v1/ui/login": Operation(
        about="Makes a link to the page, for one login within 60 seconds with the identity of the caller.",
        answer=PageLogin,
        status=201,
        errors={409: "The engine serves no page"},
    ),
    "GET /wharf/v1/containers/{}/files": Operation(
        about=f"Lists a directory of a container, at most {limits.DIRECTORY_ENTRIES} entries.",
        query=(Query("path", "By default the root directory"),),
        answer=Directory,
        errors={400: "The path is no directory", 404: "There is no such container or path"},
    ),
    "GET /wharf/v1/exec/{}/ws": Operation(
        about="Starts an exec; its input and output are the messages of a websocket.",
        query=(
            Query("h", "Height of the terminal, in characters", "integer"),
            Query("w", "Width of the terminal, in characters", "integer"),
        ),
        status=101,
        errors={400: "No handshake of a websocket", 404: "There is no such exec", 409: "Its container does not run"},
    ),
    "GET /wharf/v1/images/layers": Operation(
        about="Lists the unpacked layers of all images with their sizes.", answer=ImageLayers, many=True
    ),
    "GET /wharf/v1/builds": Operation(
        about="Lists the builds of the last 48 hours, the newest first.", answer=Build, many=True
    ),
    "GET /wharf/v1/builds/{}/log": Operation(
        about="Shows the output of a completed build.",
        media_type="text/plain",
        errors={404: "There is no such build"},
    ),
    "GET /wharf/v1/openapi.json": Operation(about="This description."),
}


def document(routes: Iterable[ApiRoute]) -> dict[str, Any]:
    """:raises KeyError: a route has no description."""
    return description(
        routes,
        OPERATIONS,
        info={
            "title": "Wharf",
            "version": "1",
            "description": "What the engine has beside the Docker Engine API, on the same sockets.",
        },
        replaced=rule_schemas(),
    )
