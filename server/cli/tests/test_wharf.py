"""The command against an engine whose answers are given: what it prints, what it sends, and how it fails."""

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from api_models.wharf import (
    AuditLine,
    CallerPolicy,
    Gpu,
    GpuHolder,
    JobSocket,
    QueueEntry,
    SocketCreateRequest,
    SocketLimits,
    Timeline,
    TimelinePhase,
    UsageRow,
    UserSummary,
)
from server.cli.__main__ import main

UNKNOWN = (404, {"message": "page not found"})
POLICY = """
default_role = "guest"
[users]
root = "guest"
nobody_of_this_host = "guest"
[groups]
group_that_is_missing = "guest"
[roles.guest]
memory = "1g"
"""


@dataclass(slots=True)
class Engine:
    """``answers``: by method and path; ``asked``: the requests, with their bodies."""

    path: Path
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def reply(self, request: str, body: bytes) -> tuple[int, Any]:
        self.asked.append((request, json.loads(body) if body else None))
        found = self.answers.get(request, UNKNOWN)
        return found if isinstance(found, tuple) else (200, found)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine(tmp_path / "docker.sock")

    class Handler(BaseHTTPRequestHandler):
        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, answer = made.reply(f"{self.command} {self.path}", body)
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if data:  # the client does not read the body of a 204
                self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_request

        def address_string(self) -> str:
            return "client"

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.UnixStreamServer(str(made.path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("WHARF_HOST", f"unix://{made.path}")
        monkeypatch.setenv("TZ", "UTC")
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> "Output":
    return Output(capsys)


@dataclass(slots=True)
class Output:
    capsys: pytest.CaptureFixture[str]

    def of(self, *words: str, status: int = 0) -> str:
        """What the command prints, with runs of blanks as one."""
        assert main(words) == status
        captured = self.capsys.readouterr()
        text = captured.err if status else captured.out
        return "\n".join(" ".join(line.split()) for line in text.splitlines())


def test_users(engine: Engine, output: Output) -> None:
    rows = [
        UserSummary(administrator=True, images=3),
        UserSummary(user="al\x1b[31mice", role="member", containers=2, running=1, limits={"memory": 32 << 30}),
        UserSummary(user="bob"),
    ]
    engine.answers["GET /wharf/v1/users"] = [row.wire() for row in rows]
    assert output.of("users").splitlines() == [
        "USER ROLE CONTAINERS RUNNING VOLUMES NETWORKS IMAGES LIMITS",
        "(administrators) administrator 0 0 0 0 3",
        "al\\x1b[31mice member 2 1 0 0 0 memory 32 GiB",
        "bob (none) 0 0 0 0 0",
    ]
    assert json.loads(output.of("users", "--json")) == [row.wire() for row in rows]
    assert json.loads(output.of("--json", "users")) == [row.wire() for row in rows]


def test_gpus_and_queue(engine: Engine, output: Output) -> None:
    holder = GpuHolder(user="alice", since="2026-01-02T03:04:05.123456789Z", container="c" * 64)
    rows = (Gpu(name="nvidia.com/gpu=0", holders=(holder,)), Gpu(name="nvidia.com/gpu=1", shared=True))
    engine.answers["GET /wharf/v1/gpus"] = [row.wire() for row in rows]
    entry = QueueEntry(
        place=1,
        user="bob",
        gpus=("nvidia.com/gpu=1",),
        counts={"amd.com/gpu": 2, "intel.com/gpu": -1},
        since="2026-01-02T03:04:05Z",
        container_name="train",
        reason="nvidia.com/gpu=1 is held by alice",
    )
    engine.answers["GET /wharf/v1/queue"] = [entry.wire()]
    assert output.of("gpus").splitlines()[1:] == [
        f"nvidia.com/gpu=0 no alice 2026-01-02 03:04:05 {'c' * 12}",
        "nvidia.com/gpu=1 yes (free)",
    ]
    assert output.of("queue").splitlines()[1:] == [
        "1 bob nvidia.com/gpu=1, 2 of amd.com/gpu, intel.com/gpu=all 2026-01-02 03:04:05 train "
        "nvidia.com/gpu=1 is held by alice"
    ]


def test_usage(engine: Engine, output: Output) -> None:
    row = UsageRow(day="2026-01-02", user="alice", cpu_seconds=5400, memory_gib_hours=3, disk=1536, bytes_in=5)
    engine.answers["GET /wharf/v1/usage?days=2"] = [row.wire()]
    engine.answers["GET /wharf/v1/usage?days=7&containers=true"] = [replace(row, container="c" * 64).wire()]
    assert output.of("usage", "--containers").splitlines()[1].endswith(f" 5 B 0 B {'c' * 12}")
    assert output.of("usage", "--days", "2").splitlines()[1] == "2026-01-02 alice 1.50 3.00 0.00 1.5 KiB 5 B 0 B"


def test_sockets(engine: Engine, output: Output) -> None:
    made = JobSocket(id="0f3c", path="/run/wharf/jobs/0f3c.sock", user="alice", labels={"ci-job": "17"})
    engine.answers |= {
        "GET /wharf/v1/sockets": [made.wire()],
        "POST /wharf/v1/sockets": (201, made.wire()),
        "DELETE /wharf/v1/sockets/0f3c": (204, ""),
    }
    flags = "--label ci-job=17 --ttl 2h --cpus 1.5 --memory 2g --pids 9"
    assert output.of("socket", "create", *flags.split()) == made.path
    request = SocketCreateRequest.parse(engine.asked[-1][1])
    limits = SocketLimits(cpus=1.5, memory=2 << 30, pids=9)
    assert request == SocketCreateRequest(labels={"ci-job": "17"}, ttl=7200, limits=limits)
    assert output.of("sockets").splitlines()[1] == f"0f3c alice ci-job=17 never {made.path}"
    assert output.of("socket", "rm", "0f3c", f"unix://{made.path}") == f"0f3c\nunix://{made.path}"
    assert [request for request, _ in engine.asked].count("DELETE /wharf/v1/sockets/0f3c") == 2
    assert output.of("socket", "rm", "/nowhere", status=1) == "wharf: no job socket has the path /nowhere"


def test_the_own_policy(engine: Engine, output: Output) -> None:
    rights = {"privileged": False, "binds": True, "capabilities": ["SYS_PTRACE"], "shared_gpus": []}
    limits = {"ports": [20000, 29999], "max_run_time": 43200}
    found = CallerPolicy(user="alice", role="member", rights=rights, limits=limits)
    engine.answers["GET /wharf/v1/policy"] = found.wire()
    assert output.of("policy", "show").splitlines()[1:] == [
        "user alice",
        "role member",
        "scope of the socket (none)",
        "rights binds, capabilities SYS_PTRACE",
        "refused privileged",
        "ports 20000-29999",
        "max_run_time 12h",
    ]
    engine.answers["GET /wharf/v1/policy"] = CallerPolicy(administrator=True, scope="read").wire()
    assert output.of("policy", "show").splitlines()[1:] == [
        "user (administrators)",
        "role administrator",
        "scope of the socket read",
        "rights all",
        "limits (none)",
    ]


def test_the_audit_log(engine: Engine, output: Output) -> None:
    time, query = "2026-01-02T03:04:05.1Z", {"name": "a\nb"}
    lines = (
        AuditLine(time=time, user="alice", method="POST", path="/x", query=query, status=201),
        AuditLine(uid=7, method="GET", path="/y", status=403, error="no role"),
    )
    text = "".join(json.dumps(line.wire()) + "\n" for line in lines)
    engine.answers["GET /wharf/v1/audit?n=2&user=alice"] = (200, text)
    assert output.of("audit", "-n", "2", "--user", "alice").splitlines() == [
        "2026-01-02 03:04:05 alice 201 POST /x?name=a\\nb 0.0 s",
        "uid 7 403 GET /y 0.0 s: no role",
    ]
    engine.answers["GET /wharf/v1/audit?n=50&follow=true"] = (200, text)
    assert output.of("audit", "-f", status=1).startswith("wharf: the engine has ended the answer")


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["gpus"], "GPUs allocator"),
        (["queue"], "GPUs allocator"),
        (["usage"], "accounting"),
        (["sockets"], "job sockets"),
        (["socket", "create"], "job sockets"),
        (["socket", "rm", "x"], "job sockets"),
    ],
)
def test_an_engine_without_a_part(engine: Engine, output: Output, words: list[str], missing: str) -> None:
    assert output.of(*words, status=1).endswith("has no /wharf/v1: it is no Wharf, or an older one")
    engine.answers["GET /wharf/v1/openapi.json"] = {}
    assert output.of(*words, status=1) == f"wharf: this engine has no {missing}"


def test_what_the_engine_refuses(engine: Engine, output: Output) -> None:
    assert output.of("users", status=1).endswith("has no /wharf/v1: it is no Wharf, or an older one")
    engine.answers["GET /wharf/v1/users"] = (409, {"message": "this engine has no policy"})
    assert output.of("users", status=1) == "wharf: this engine has no policy"
    engine.answers["GET /wharf/v1/users"] = (200, "<html>")
    assert output.of("users", status=1).endswith("the answer is no JSON: is this a Docker Engine's socket?")


def test_an_engine_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Output) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.delenv("WHARF_HOST", raising=False)
    assert output.of("users", status=1) == f"wharf: no engine listens on {tmp_path}/none.sock: is wharfd running?"
    for words in (["-H", "unix:///other.sock", "users"], ["users", "-H", "unix:///other.sock"]):
        assert output.of(*words, status=1) == "wharf: no engine listens on /other.sock: is wharfd running?"
    monkeypatch.setenv("WHARF_HOST", "tcp://127.0.0.1:1")
    assert output.of("users", status=1).startswith("wharf: tcp://127.0.0.1:1: wharf needs a unix socket")


def test_policy_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    assert main(["policy", "check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: note: this host has no group group_that_is_missing",
        f"{path}: note: this host has no user nobody_of_this_host: the name can only be that of a client certificate",
        f"{path}: valid; roles: guest",
    ]
    path.write_text(POLICY + 'cpus = "many"\nmemroy = 1\n')
    assert main(["policy", "check", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: roles.guest.cpus: Input should be a valid number",
        f"{path}: roles.guest.memroy: Extra inputs are not permitted",
    ]
    path.write_text('default_role = "a"\n[users]\nroot = "b"\n')
    assert main(["policy", "check", "--json", str(path)]) == 1
    found = json.loads(capsys.readouterr().out)
    missing = "there is no role b (users.root), there is no role a (default_role)"
    assert found["Problems"] == [f"policy: Value error, {missing}"]
    assert main(["policy", "check", str(tmp_path / "none")]) == 1
    assert "no such file" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["socket"],
        ["usage", "--days", "x"],
        ["socket", "create", "--ttl", "soon"],
        ["socket", "create", "--memory", "much"],
        ["socket", "create", "--cpus", "0"],
        ["socket", "create", "--label", "=x"],
        ["socket", "rm"],
    ],
)
def test_wrong_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: wharf" in capsys.readouterr().err


def test_the_help_loads_no_large_module() -> None:
    script = (
        "import sys\nfrom server.cli.__main__ import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('pydantic', 'rich', 'httpx', 'asyncio', 'starlette') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"


def test_timelines(engine: Engine, output: Output) -> None:
    phases = (
        TimelinePhase(name="bundle", begin=0.5, end=0.6, within="task"),
        TimelinePhase(name="queue", begin=0, end=0.5, waits_for="GPUs"),
        TimelinePhase(name="task", begin=0.5, end=1),
    )
    start = Timeline(operation="start", subject="c" * 64, began="2026-01-02T03:04:05Z", seconds=1, phases=phases)
    build = Timeline(operation="build", subject="re\x1bf", began="", seconds=0, result="failed", error="no")
    engine.answers["GET /wharf/v1/containers/a%2Fb/timeline"] = [replace(start, result="done").wire()]
    engine.answers["GET /wharf/v1/timelines"] = [replace(start, result="done").wire(), build.wire()]
    heading, queue, task, bundle = output.of("timeline", "a/b").splitlines()
    assert heading == f"start {'c' * 12} 1000.0 ms 2026-01-02 03:04:05"
    assert queue == f"queue {'█' * 20} 500.0 ms waits for GPUs"
    assert task == f"task {'█' * 20} 500.0 ms"
    assert bundle == f"bundle {'█' * 4} 100.0 ms"
    assert output.of("timeline").splitlines()[4:] == ["", "build re\\x1bf 0.0 ms failed: no"]
    assert json.loads(output.of("timeline", "--json"))[1] == build.wire()
