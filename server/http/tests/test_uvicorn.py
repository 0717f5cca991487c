"""The private parts of uvicorn that this package uses. A release that drops one fails here, with its name."""

import asyncio
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from inspect import signature

MODULES = {
    "uvicorn._types": ("ASGI3Application", "ASGISendEvent"),
    "uvicorn.protocols.http.flow_control": ("FlowControl", "HIGH_WATER_LIMIT"),
    "uvicorn.protocols.http.httptools_impl": ("HttpToolsProtocol", "RequestResponseCycle", "STATUS_LINE"),
    "uvicorn.server": ("ServerState",),
}
#: Made by ``__init__``; then the parser's callbacks that are left to it, and the methods that ours replace.
PROTOCOL = """
access_logger app connections cycle expect_100_continue flow headers logger loop scheme scope server_state tasks
transport on_message_begin on_url on_header on_headers_complete on_body on_message_complete on_response_complete
pause_writing resume_writing shutdown
"""
CYCLE_OPTIONS = """
scope transport flow logger access_logger access_log default_headers message_event expect_100_continue keep_alive
on_response
"""
CYCLE = """
body chunked_encoding default_headers disconnected expected_content_length flow keep_alive message_event more_body
on_response receive response_complete response_started run_asgi scope send transport waiting_for_100_continue
"""
FLOW = "drain pause_reading resume_reading pause_writing resume_writing write_paused"
STATE = "connections default_headers tasks"


async def nothing(scope: object, receive: object, send: object) -> None:
    """An application."""


class Transport(asyncio.Transport):
    """Nothing is written."""


def missing_names() -> list[str]:
    found = []
    for module, names in MODULES.items():
        try:
            there = vars(import_module(module))
        except ImportError as error:
            found.append(f"the module {module} ({error})")
        else:
            found += [f"{name} of the module {module}" for name in names if name not in there]
    return found


async def missing_attributes() -> list[str]:
    from uvicorn.config import Config
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState

    config = Config(nothing, http=HttpToolsProtocol, ws="none", lifespan="off", interface="asgi3", log_config=None)
    state, flow = ServerState(), FlowControl(Transport())
    used: list[tuple[object, str]] = [(HttpToolsProtocol(config, state, {}), PROTOCOL), (flow, FLOW), (state, STATE)]
    wanted, there = set(CYCLE_OPTIONS.split()), {*signature(RequestResponseCycle).parameters}
    found = [f"the parameter {name} of RequestResponseCycle" for name in sorted(wanted ^ there)]
    if not found:
        used.append((RequestResponseCycle(**dict.fromkeys(wanted)), CYCLE))  # type: ignore[arg-type]
    for each, names in used:
        found += [f"the attribute {type(each).__name__}.{name}" for name in names.split() if not hasattr(each, name)]
    return found


def test_what_is_used_of_uvicorn_is_there() -> None:
    # The names first: without them there are no attributes to be asked for.
    gone = missing_names() or asyncio.run(missing_attributes())
    assert not gone, (
        f"uvicorn {version('uvicorn')} changes {', '.join(gone)}: adapt server/http/protocol.py and cycle.py before "
        "the bound in pyproject.toml is raised"
    )


def test_the_package_is_entered_without_its_init() -> None:
    """Its modules must not use imports of its ``__init__``, apart from ``Config`` (server/http/__init__.py)."""
    code = "import sys, server.http.server; sys.exit('uvicorn.main' in sys.modules)"
    status = subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode
    assert status == 0, f"uvicorn {version('uvicorn')} imports its command line below the protocol: 1.6 MiB more"
