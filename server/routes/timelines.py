"""``/wharf/v1/timelines`` and a container's timelines: why an operation was slow (``server/system/timelines.py``)."""

from collections.abc import Iterable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from api_models.times import rfc3339
from engine.common.timeline import Record
from server.http import params
from server.http.answers import json_answer
from server.http.routing import ApiRoute
from server.system.timelines import Timelines


def _answer(records: Iterable[Record]) -> Response:
    from api_models.wharf import Timeline, TimelinePhase  # here: with the first request, as in server/routes/wharf.py

    return json_answer(
        [
            Timeline(
                operation=record.what,
                subject=record.subject,
                owner=record.owner,
                began=rfc3339(record.began_ns),
                seconds=round(record.seconds, 6),
                result=record.result,
                error=record.error,
                phases=tuple(
                    TimelinePhase(
                        name=phase.name,
                        begin=round(phase.begin, 6),
                        end=round(phase.end, 6),
                        within=phase.within,
                        waits_for=phase.waits_for,
                    )
                    for phase in record.phases
                ),
            ).wire()
            for record in records
        ]
    )


def _service(request: Request) -> Timelines:
    service: Timelines = request.state.services.timelines
    return service


async def of_container(request: Request) -> Response:
    return _answer(_service(request).of_container(request.path_params["name"]))


async def recent(request: Request) -> Response:
    operation, subject = params.text(request, "operation"), params.text(request, "subject")
    return _answer(
        record
        for record in _service(request).recent()
        if operation in ("", record.what) and subject in ("", record.subject)
    )


routes: Sequence[ApiRoute] = (
    ApiRoute("GET", "/wharf/v1/containers/{name}/timeline", of_container, reads=True),
    ApiRoute("GET", "/wharf/v1/timelines", recent, reads=True),
)
