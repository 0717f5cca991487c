"""A member of etcd as a child, with a real etcd."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.common.errors import Kind, WharfError
from engine.common.system import run
from server.swarm.etcd import child as children
from server.swarm.etcd.child import EtcdChild, Status
from server.swarm.etcd.program import argv, environment, find
from server.swarm.etcd.tests.cluster import Cluster, running
from server.swarm.store.tests import etcd_member

_SECONDS = 60

needs_etcd = pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS):
            await scenario()

    asyncio.run(main())


def _ended(pid: int, seconds: float) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


async def _until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@needs_etcd
def test_a_member_serves_and_starts_again_when_it_is_killed_and_for_other_roots(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        options = cluster.options("one")
        async with running(cluster.child(options)) as member:
            first = member.pid
            assert first is not None
            assert sorted(path.name for path in options.runtime.iterdir()) == [
                "client.sock:0",
                "etcd.lock",
                "peer-key.pem",
                "peer.pem",
                "roots.pem",
            ]
            assert (options.runtime / "peer-key.pem").stat().st_mode & 0o777 == 0o600
            assert (options.runtime.stat().st_mode | options.data.stat().st_mode) & 0o777 == 0o700
            # As etcd leaves it on a full disk, where it can't finish a record.
            broken = options.data / "member" / "wal" / "0000000000000000-0000000000000000.wal.broken"
            broken.write_bytes(b"log")
            os.kill(first, signal.SIGKILL)
            await _until(lambda: member.status is Status.ENDED)
            await member.serving()
            second = member.pid
            assert not broken.exists()
            pems = cluster.pems("one")
            assert not await member.renew(pems)
            assert (options.runtime / "peer.pem").read_text() == pems.certificate
            assert member.pid == second
            other = replace(pems, roots=pems.roots + Cluster(tmp_path).root.certificate)
            assert await member.renew(other)
            await member.restart()
            third = member.pid
            assert not await member.renew(other)
        assert len({first, second, third}) == 3
        assert member.status is Status.CLOSED
        assert sorted(path.name for path in options.runtime.iterdir()) == ["etcd.lock"]

    _run(scenario)


@needs_etcd
def test_a_member_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from server.swarm.etcd.tests.cluster import Cluster, running\n"
        "async def main():\n"
        "    cluster = Cluster(Path(sys.argv[1]))\n"
        "    async with running(cluster.child(cluster.options('one'))) as member:\n"
        "        print(member.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not _ended(pid, 0)
        process.kill()
        assert _ended(pid, 10)


@needs_etcd
def test_a_member_that_was_left_is_ended_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        options = cluster.options("one")
        async with running(cluster.child(options)):
            pass
        children._prepare(options, cluster.pems("one"))
        lock = await children._lock(options.runtime / "etcd.lock")
        program = await find()
        command = list(argv(program, options))
        left = await asyncio.create_subprocess_exec(
            *command[command.index(program.path) :],
            cwd=options.runtime,
            env=environment(program),
            pass_fds=(lock,),
            stderr=subprocess.DEVNULL,
        )
        os.close(lock)
        async with running(cluster.child(options)) as member:
            async with asyncio.timeout(1):
                assert await left.wait() != 0
            assert member.pid not in (None, left.pid)

    _run(scenario)


@needs_etcd
def test_a_member_that_dies_before_it_has_served_begins_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        options = cluster.options("one")
        member = cluster.child(options)
        await member.start()
        try:
            # A log without an entry: no member is in it, so that none could become the leader.
            await _until((options.data / "member" / "wal").exists)
            assert member.pid is not None
            os.kill(member.pid, signal.SIGKILL)
            await member.serving()
        finally:
            await member.close()

    _run(scenario)


@needs_etcd
def test_a_workers_certificate_makes_no_member(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        options = cluster.options("one")
        async with running(cluster.child(options)):
            other = cluster.options("two")
            other = replace(other, existing=True, initial_cluster=f"one={options.peer_url},two={other.peer_url}")
            member = EtcdChild(other, cluster.pems("two", role="worker"))
            await member.start()
            try:
                with pytest.raises(WharfError, match="etcd does not serve after 1 s: ") as error:
                    await member.serving(1)
            finally:
                await member.close()
            assert error.value.kind is Kind.UNAVAILABLE

    _run(scenario)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, "etcd-server is not installed: a swarm of several nodes keeps its state in etcd. Install it"),
        ("3.3.25", r"etcd 3\.3 \(.*/etcd\) is too old: a swarm of several nodes needs 3\.4 or later"),
    ],
)
def test_etcd_is_missing_or_too_old(
    version: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version is not None:
        program = tmp_path / "etcd"
        program.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
        program.chmod(0o755)
    monkeypatch.setattr(run, "DEFAULT_ENV", {"PATH": str(tmp_path)})

    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        with pytest.raises(WharfError, match=expected) as error:
            await cluster.child(cluster.options("one")).start()
        assert error.value.kind is Kind.FAILED_PRECONDITION

    _run(scenario)
