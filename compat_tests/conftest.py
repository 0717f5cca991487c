"""Fixtures of the black-box tests: engines, and the check that a test leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support import as_user, daemons, engines, patience, refusals
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.host.traces import links
from compat_tests.support.polling import until
from compat_tests.support.transfers import new_images_removed

#: ``docker_gwbridge`` stays with the first container on a network of a swarm, until the engine leaves the swarm.
PREDEFINED = {"bridge", "host", "none", "docker_gwbridge", "ingress"}
FORWARDING = [Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding")]
PROGRAMS = ("docker", "ip", "nft", "busybox")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=("wharf", "containerd", "dockerd", as_user.KIND),
        help="run the tests on this engine only: ours, ours on a stock containerd, Debian's dockerd, or ours as a user",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    patience.stretch()
    patience.stretch_limit(config)
    config.addinivalue_line("markers", "core: runs on our supervisor and on a stock containerd")
    if config.getoption("--engine") == as_user.KIND:
        config.option.basetemp = str(as_user.temporary_root())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, scope in (("engine", "session"), ("own_engine", "module")):
        if name in metafunc.fixturenames:
            chosen = metafunc.config.getoption("--engine")
            both = metafunc.definition.get_closest_marker("core") is not None
            kinds = [chosen] if chosen else (["wharf", "containerd"] if both else ["wharf"])
            metafunc.parametrize(name, kinds, indirect=True, scope=scope)  # type: ignore[arg-type]


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Skip this directory in the unit loop: the import of the clients' libraries takes seconds."""
    return True if config.option.markexpr == "not root" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives real engines. The mark comes before pytest selects by `-m`: `not root` leaves this out."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    reason = "needs root" if os.geteuid() else f"needs {', '.join(missing)}" if missing else ""
    for item in items:
        if "compat_tests" in item.path.parts:
            item.add_marker(pytest.mark.root)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


# The size of each daemon's log when a test started, by the log's path.
_WRITTEN = pytest.StashKey[dict[Path, int]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_WRITTEN] = {daemon.log: daemon.written for daemon in daemons.LIVE}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the daemons' log output during a failed test to its report."""
    report = yield
    if item.config.getoption("--engine") == as_user.KIND:
        refusals.judge(item.nodeid, report)
    if report.failed:
        before = item.stash.get(_WRITTEN, {})
        for daemon in daemons.LIVE:
            if output := daemon.tail(8000, since=before.get(daemon.log, 0)):
                report.sections.append((f"{daemon.log.name} of {daemon.log.parent.name}", output))
            if stacks := daemon.stacks():
                report.sections.append((f"stacks of {daemon.log.parent.name}", stacks))
    return report


@pytest.fixture(scope="session", autouse=True)
def restore_host() -> Iterator[None]:
    """Check at the end that the host has its original links; each engine checks its other traces itself."""
    before = set(links()) if shutil.which("ip") else set()
    switches = {path: path.read_text() for path in FORWARDING if path.exists()}
    yield
    if other_runs_active():
        # They depend on forwarding, and this check would report their links.
        return
    for path, value in switches.items():
        # An engine enables forwarding permanently; restore the host's setting.
        if path.read_text() != value and os.access(path, os.W_OK):
            path.write_text(value)
    mine = ("wt", "veth", "wharf")

    def left() -> set[str]:
        return {name for name in set(links()) - before if name.startswith(mine)}

    if before:
        until(lambda: not left(), seconds=60)
        assert not left(), f"links left behind: {sorted(left())}"


def other_runs_active() -> bool:
    """Whether another engine or test run is active on this host: the check would report its links."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
                if b"server" in argv or any(b"dockerd" in a or b"pytest" in a or b"wharfd" in a for a in argv[:3]):
                    return True
    return False


@pytest.fixture(scope="session", autouse=True)
def acting_user(request: pytest.FixtureRequest) -> Iterator[None]:
    """With ``--engine wharf-user``, the tests are one user's."""
    with as_user.acting() if request.config.getoption("--engine") == as_user.KIND else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine that most tests share; `core` tests get it on both back ends."""
    with engines.running(request.param, "shared") as engine:
        yield engine


@pytest.fixture(scope="module")
def own_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine for one module: for tests that kill, restart or fill it."""
    with engines.running(request.param, "own") as engine:
        yield engine


@pytest.fixture(scope="session")
def oracle() -> Iterator[Dockerd]:
    """Debian's dockerd with busybox loaded, to compare answers with."""
    if shutil.which("dockerd") is None:
        pytest.skip("needs dockerd")
    with engines.dockerd("oracle") as engine:
        engine.load_busybox()
        yield engine


@pytest.fixture
def remove_new_images(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove the images that a test adds to its engine."""
    with contextlib.ExitStack() as stack:
        for name in ("engine", "own_engine"):
            if name in request.fixturenames:
                stack.enter_context(new_images_removed(request.getfixturevalue(name)))
        yield


@pytest.fixture(autouse=True)
def check_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves containers, networks or volumes in an engine, and remove them for the next one."""
    used: list[Engine] = [
        request.getfixturevalue(name) for name in ("engine", "own_engine", "oracle") if name in request.fixturenames
    ]
    before = [leftovers(each) for each in used]
    yield
    for each, earlier in zip(used, before, strict=True):
        if not each.daemon.running:
            each.start()  # a test failed during a restart: restore the engine for the next ones

        def left(each: Engine = each, earlier: set[tuple[str, str]] = earlier) -> set[tuple[str, str]]:
            return leftovers(each) - earlier

        # `docker run --rm` may return while the engine still removes the container
        if not until(lambda: not left(), seconds=60):
            found = sorted(left())
            for kind, name in found:
                each.api.delete(f"/{kind}/{name}", **({"force": 1, "v": 1} if kind != "networks" else {}))
            pytest.fail(f"{refusals.LEFTOVERS} {each.kind}: {found}")


def leftovers(engine: Engine) -> set[tuple[str, str]]:
    """Return the objects that a test should have removed, as (kind, id); containers sort first."""

    def listed(path: str, **query: Any) -> Any:
        answer = engine.api.get(path, **query)
        assert answer.status == 200, f"{path}: {answer.status} {answer.body!r}"
        return answer.json()

    found = {("containers", str(item["Id"])) for item in listed("/containers/json", all=1)}
    found |= {("networks", str(item["Id"])) for item in listed("/networks") if item["Name"] not in PREDEFINED}
    return found | {("volumes", str(item["Name"])) for item in listed("/volumes")["Volumes"] or []}
