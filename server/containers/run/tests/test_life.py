"""Records, waiters, restart policies, names, signals, the merge with an image, and the texts of durations."""

import asyncio

import pytest

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import RestartPolicy
from api_models.times import human, rfc3339
from engine.common.errors import Kind, WharfError
from server.access.caller import EVERYONE
from server.containers.create.merge import merge_config
from server.containers.model import Container, Health
from server.containers.plan import MountPoint
from server.containers.registry import Registry
from server.containers.restarts import Restarts, should_restart
from server.containers.values import names, signals
from server.containers.waiters import Condition, Outcome, Waiters


def make(name: str = "one", id: str = "a" * 64, **config: object) -> Container:
    return Container(
        id=id,
        name=name,
        created_ns=1,
        config=ContainerConfig.parse(config),
        host_config=HostConfig(restart_policy=RestartPolicy(name="always")),
    )


def test_record_survives_storage() -> None:
    container = make(Cmd=[], Env=["A=1"], Healthcheck={"Test": ["NONE"]}, StopTimeout=0)
    container.mounts["/x"] = MountPoint(kind="volume", destination="/x", name="v", spec={"Type": "volume"})
    container.state.running, container.state.started_ns = True, 5
    container.state.health = Health(status="healthy", failing_streak=0, log=[{"ExitCode": 0}])
    container.state.removing = True
    again = Container.from_doc(container.to_doc())
    container.state.removing = False
    assert again.to_doc() == container.to_doc()
    assert again.config.cmd == ()
    assert again.config.entrypoint is None
    assert again.state == container.state


def test_wait_conditions() -> None:
    async def scenario() -> None:
        waiters, container = Waiters(), make()
        container.state.exit_code = 3
        assert waiters.register(container, Condition.NOT_RUNNING).result() == Outcome(3)
        nxt = waiters.register(container, Condition.NEXT_EXIT)
        gone = waiters.register(container, Condition.REMOVED)
        left = waiters.register(container, Condition.NEXT_EXIT)
        left.cancel()
        container.state.running = True
        still = waiters.register(container, Condition.NOT_RUNNING)
        assert not nxt.done()
        assert not still.done()
        container.state.running, container.state.exit_code = False, 7
        waiters.stopped(container)
        assert (await nxt, await still) == (Outcome(7), Outcome(7))
        assert not gone.done()
        late = waiters.register(container, Condition.NEXT_EXIT)
        waiters.removed(container, "busy")
        assert (await gone, await late) == (Outcome(7, "busy"), Outcome(7, "busy"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarts", "stopped", "expected"),
    [
        ("no", 1, 0, False, False),
        ("always", 0, 99, True, True),
        ("unless-stopped", 0, 0, False, True),
        ("unless-stopped", 0, 0, True, False),
        ("on-failure", 0, 0, False, False),
        ("on-failure", 1, 9, False, True),
    ],
)
def test_policies(policy: str, exit_code: int, restarts: int, stopped: bool, expected: bool) -> None:
    rule = RestartPolicy(name=policy)
    assert should_restart(rule, exit_code=exit_code, restarts=restarts, stopped=stopped) is expected


def test_policy_with_a_count() -> None:
    rule = RestartPolicy(name="on-failure", maximum_retry_count=2)
    assert should_restart(rule, exit_code=1, restarts=1, stopped=False)
    assert not should_restart(rule, exit_code=1, restarts=2, stopped=False)


def test_delays_double_up_to_a_minute_and_start_over() -> None:
    restarts = Restarts()
    delays = [restarts.next_delay(0.1) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert restarts.next_delay(10.0) == 0.1


def test_names() -> None:
    registry = Registry()
    view = registry.seen_by(EVERYONE)
    registry.add(make("one", "aa11" + "0" * 60))
    registry.add(make("two", "aa22" + "0" * 60))
    assert view.get("/one").name == view.get("aa1").name == "one"
    with pytest.raises(WharfError, match="multiple IDs found with provided prefix: aa") as caught:
        view.get("aa")
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    with pytest.raises(WharfError, match=r"^No such container: bb$"):
        view.get("bb")
    with pytest.raises(WharfError) as caught:
        registry.reserve("/one", "c" * 64)
    assert caught.value.kind is Kind.CONFLICT
    assert caught.value.message == (
        f'Conflict. The container name "/one" is already in use by container "aa11{"0" * 60}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    with pytest.raises(WharfError, match=r"^Invalid container name \(a b\), only \[a-zA-Z0-9\]"):
        registry.reserve("a b", "c" * 64)
    generated = registry.reserve("", "c" * 64)
    assert generated.count("_") == 1
    assert names.generate("d" * 64, lambda name: True) == "d" * 12


def test_signals() -> None:
    assert [signals.parse(text) for text in ("TERM", "sigterm", "15", "RTMIN+3", "SIGRTMAX-1")] == [15, 15, 15, 37, 63]
    for bad in ("0", "NONE", "", "1.5"):
        with pytest.raises(WharfError, match="invalid signal: "):
            signals.parse(bad)
    assert signals.known(9)
    assert not signals.known(99)


def test_merge_with_the_image() -> None:
    image = {
        "Env": ["PATH=/bin", "B=2"],
        "Cmd": ["sh"],
        "Entrypoint": ["/entry"],
        "Labels": {"a": "image", "b": "image"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/w",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
    }
    request = ContainerConfig.parse(
        {"Env": ["B=3"], "Labels": {"a": "own"}, "ExposedPorts": {"81/tcp": {}}, "Healthcheck": {"Retries": 4}}
    )
    own = merge_config(request, image)
    assert own.env == ("B=3", "PATH=/bin")
    assert (own.entrypoint, own.cmd, own.working_dir) == (("/entry",), ("sh",), "/w")
    assert own.labels == {"a": "own", "b": "image"}
    assert set(own.exposed_ports or ()) == {"80/tcp", "81/tcp"}
    assert own.healthcheck is not None
    assert (own.healthcheck.test, own.healthcheck.interval, own.healthcheck.retries) == (("CMD", "true"), 5, 4)
    # The request's entrypoint replaces the image's entrypoint and command; [""] removes the entrypoint.
    other = merge_config(ContainerConfig.parse({"Entrypoint": ["/mine"]}), image)
    assert (other.entrypoint, other.cmd) == (("/mine",), None)
    cleared = merge_config(ContainerConfig.parse({"Entrypoint": [""], "Cmd": ["x"]}), image)
    assert (cleared.entrypoint, cleared.cmd) == (None, ("x",))
    with pytest.raises(WharfError, match="no command specified"):
        merge_config(ContainerConfig(), {})


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (49 * 3600, "2 days"),
        (15 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert human(int(seconds * 1e9)) == words


def test_times() -> None:
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339(1_500_000_000_120_000_000) == "2017-07-14T02:40:00.12Z"
    assert rfc3339(1_500_000_000_000_000_000) == "2017-07-14T02:40:00Z"
