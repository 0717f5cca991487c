"""Runs a ``RUN`` step as a task of the engine, from the same plan as a container; it is removed when its process
exits."""

import asyncio
import contextlib
import glob
import logging
import os
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import Ulimit
from engine.api.stdio import Attach, Stdio, StdioUri
from engine.api.types import Exit
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid
from engine.common.files.paths import make_directories, open_inside
from engine.common.system import linux, mounts, private
from engine.common.threads import run_to_completion
from engine.common.timeline import Part, current
from server.access.caller import EVERYONE, Caller
from server.builder.operations.interfaces import Bind, Job, ProcessExit
from server.builder.options import Limits
from server.builder.solver.output import STARTED
from server.builder.stubs import fix_modes, remove_stubs
from server.containers.context import ContainerContext
from server.containers.create.defaults import adapt_host_config
from server.containers.host.remap import Remap
from server.containers.mounts import mounting
from server.containers.mounts.snapshot import mount_at, task_rootfs
from server.containers.plan import ContainerPlan
from server.containers.run.assemble import PreparedStart, assemble
from server.containers.run.records import engine_record, remove_engine_record, remove_task
from server.containers.spec.input import BindMount, TmpfsMount
from server.containers.stdio.stdio import owner

if TYPE_CHECKING:
    from server.access.policy import Role

log = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")
Output = Callable[[int, bytes], None]
#: Prefix of the directories that hold the pipes of builds.
STDIO = "build-"


class TaskRunner:
    """Runs the steps of one build of ``caller``. The first output is the container's id, on stream ``STARTED``."""

    def __init__(self, container_context: ContainerContext, limits: Limits, caller: Caller = EVERYONE) -> None:
        self._container_context, self._limits, self._caller = container_context, limits, caller

    @property
    def plain(self) -> bool:
        return self._limits == Limits()

    async def run(self, job: Job, output: Output) -> ProcessExit:
        """Run a step's process until it exits; remove everything of it, however it ends.

        :raises WharfError: the network, a mount or the runtime failed.
        """
        await self._container_context.owner_remaps.prepare(self._caller.owner)
        container = self._plan(job)
        await self._container_context.open_remap(container)
        output(STARTED, container.id.encode())
        resources, task = AsyncExitStack(), AsyncExitStack()
        try:
            targets: list[str] = []
            code = await self._run(job, container, output, resources, task, targets)
        except BaseException:
            await asyncio.shield(self._end(job, resources, task))
            raise
        removal = asyncio.create_task(self._end(job, resources, task))
        try:
            # The root is unmounted, so the layers below it may be changed.
            kept = {bind.target for bind in job.binds if bind.kept}
            await asyncio.to_thread(remove_stubs, job.rootfs, [path for path in targets if path not in kept])
            if kept:
                await asyncio.to_thread(fix_modes, job.rootfs, kept)
        except BaseException:
            await asyncio.shield(removal)
            raise
        return ProcessExit(code, removal)

    async def _end(self, job: Job, resources: AsyncExitStack, task: AsyncExitStack) -> None:
        """Remove the process and the mount of its root; remove the rest in the background of the next step."""
        await task.aclose()
        rest = self._container_context.spawn(resources.aclose(), f"end of {job.id}")
        if job.binds or job.files:
            await rest

    def _plan(self, job: Job) -> ContainerPlan:
        id, limits = secrets.token_hex(32), self._limits
        host = HostConfig(
            network_mode=job.network or "default",
            privileged=job.privileged,
            memory=limits.memory,
            memory_swap=limits.memory_swap,
            cpu_shares=limits.cpu_shares,
            cpu_period=limits.cpu_period,
            cpu_quota=limits.cpu_quota,
            cpuset_cpus=limits.cpuset_cpus,
            cpuset_mems=limits.cpuset_mems,
            shm_size=limits.shm_size,
            cgroup_parent=limits.cgroup_parent,
            ulimits=tuple(Ulimit(name=name, soft=soft, hard=hard) for name, soft, hard in limits.ulimits),
            extra_hosts=tuple(limits.extra_hosts),
        )
        if job.privileged or host.network_mode == "host":
            if self._caller.owner:
                host = replace(host, userns_mode="host")
            elif self._container_context.remap is not None:
                what = "privileged mode" if job.privileged else "the host's network"
                raise invalid(f"{what} is incompatible with user namespaces: the daemon runs with userns-remap")
        _check_role(self._caller.role, host)
        config = ContainerConfig(
            hostname=limits.hostname or id[:12], env=tuple(job.env), working_dir=job.cwd, user=job.user
        )
        return ContainerPlan(
            id=id,
            name=f"build-{id[:12]}",
            created_ns=time.time_ns(),
            owner=self._caller.owner,
            config=config,
            host_config=adapt_host_config(self._container_context, host, self._caller.owner),
            path=job.args[0],
            args=list(job.args[1:]),
            directory=f"{self._container_context.config.exec_root}/build/{id}",
            rootfs=job.rootfs,
        )

    async def _run(
        self,
        job: Job,
        container: ContainerPlan,
        output: Output,
        stack: AsyncExitStack,
        task: AsyncExitStack,
        targets: list[str],
    ) -> int:
        container_context, part = self._container_context, current()
        remap = container_context.remap_of(container)
        stdio = f"{STDIO}{container.id[:32]}"
        path = f"{container_context.config.exec_root}/containers/{stdio}/stdio.sock"
        stack.push_async_callback(asyncio.to_thread, _clear, container.directory, os.path.dirname(path))
        # A set-id program in the root file system of a user's step is one of the user.
        mode = 0o700 if container.owner else private.PASSABLE
        await run_to_completion(asyncio.to_thread(_prepare, container.directory, os.path.dirname(path), mode))
        stack.push_async_callback(container_context.networks.remove, container)
        stack.push_async_callback(container_context.networks.stop, container)
        await container_context.networks.check(container)  # fills in the defaults of the network mode
        sandbox = await container_context.networks.start(container)
        part.mark("network")
        mounts_needed = job.binds or job.files or job.tmpfs
        binds = (
            await run_to_completion(asyncio.to_thread(_binds, job, container.directory, remap)) if mounts_needed else ()
        )
        root = await task_rootfs(remap, job.rootfs, f"{container.directory}/rootfs", task)
        resources = PreparedStart(
            network=sandbox.netns_path or "host",
            network_joined=sandbox.joins is not None,
            mounts=[*mounting.network_files(container, sandbox.files, remap), *binds],
            hostname=sandbox.hostname or container.config.hostname,
            cgroup_parent=(
                await task.enter_async_context(container_context.shares.cgroup(container.owner))
                if container_context.shares is not None
                else ""
            ),
        )
        spec = assemble(container_context, container, resources)
        spec_mounts = spec.get("mounts")
        if isinstance(spec_mounts, list):
            targets += [str(mount["destination"]) for mount in spec_mounts]
        record = engine_record(container_context, container, spec, snapshot_key=job.id)
        part.mark("mounts, spec")
        stack.push_async_callback(remove_engine_record, container_context, container.id)
        uri = StdioUri(path, {"driver": "none", "stdin": "0", "stdin-once": "0", **owner(container_context, container)})
        ended = False

        async def forget() -> None:
            if not ended:
                await remove_task(container_context, container.id)
                await container_context.stdio.abandoned(stdio)
                return
            with contextlib.suppress(WharfError):
                await container_context.engine.tasks.delete(container.id)

        task.push_async_callback(forget)
        _, pipes = await _join(
            container_context.engine.containers.create(record),
            container_context.stdio.open(stdio, "", uri, terminal=False),
        )
        part.mark("container")
        try:
            await container_context.engine.tasks.create(
                container.id, rootfs=root, stdin=pipes.stdin, stdout=pipes.stdout, stderr=pipes.stderr
            )
        except WharfError as error:
            raise WharfError(error.kind, f"failed to create task for container: {error.message}") from error
        part.mark("task")
        end = await self._watch(container, stdio, Stdio(path), output, part)
        ended = True
        return end.status

    async def _watch(self, container: ContainerPlan, name: str, stdio: Stdio, output: Output, part: Part) -> Exit:
        """Start the task, forward its output, and wait until both have ended. ``name``: of the stdio's directory."""
        own, inner = socket.socketpair()
        own.settimeout(0)
        session = None
        reading: asyncio.Task[None] | None = None
        container_context = self._container_context
        try:
            session = await stdio.open(Attach(framed=True), inner)
            inner.close()
            reading = asyncio.create_task(_frames(own, output), name=f"output of {container.name}")
            await container_context.engine.tasks.start(container.id)
            await container_context.stdio.started(name)
            part.mark("start")
            end = await container_context.engine.tasks.wait(container.id)
            part.mark("process")
            await container_context.stdio.ended(name)
            # Output of a surviving grandchild is not waited for; the process's own output has been read.
            with contextlib.suppress(WharfError):
                await stdio.drained()
            with contextlib.suppress(WharfError):
                async with timeouts.limit("stdio.drain"):
                    await asyncio.shield(reading)
            part.mark("output")
            return end
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if session is not None:
                session.abandon()
            inner.close()
            own.close()


async def _join(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Run two awaitables concurrently; both have ended when this returns or raises."""
    one, two = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(two, BaseException):
        raise two
    return one, two


async def _frames(sock: socket.socket, output: Output) -> None:
    """Forward frames: one byte for the stream, three zero bytes, four for the length, then the data."""
    loop = asyncio.get_running_loop()
    buffer = bytearray()
    while data := await loop.sock_recv(sock, 1 << 16):
        buffer += data
        while len(buffer) >= 8:
            stream, length = struct.unpack(">BxxxL", buffer[:8])
            if len(buffer) < 8 + length:
                break
            output(stream, bytes(buffer[8 : 8 + length]))
            del buffer[: 8 + length]


def _check_role(role: "Role | None", host: HostConfig) -> None:
    """:raises WharfError: PERMISSION_DENIED: names what the role lacks."""
    if role is None or role.privileged:
        return
    for used, allowed, what in (
        (host.privileged, False, "privileged steps (security.insecure)"),
        (host.network_mode == "host", role.host_namespaces, "the host's network (network.host)"),
        (bool(host.cgroup_parent), role.cgroup_parent, "a cgroup parent"),
    ):
        if used and not allowed:
            raise WharfError(Kind.PERMISSION_DENIED, f"your role does not allow {what} in builds")


def remove_leftovers(exec_root: str) -> None:
    """Unmount and remove the leftovers of a killed daemon's steps. Blocks; for the daemon's start."""
    _clear(f"{exec_root}/build")
    for name in glob.glob(f"{exec_root}/containers/{STDIO}*"):
        shutil.rmtree(name, ignore_errors=True)


def _prepare(directory: str, stdio: str, mode: int) -> None:
    private.make_directory(directory, mode)
    private.make_directory(stdio, private.PASSABLE)


def _clear(directory: str, *more: str) -> None:
    mounts.unmount_under(directory)
    for each in (directory, *more):
        shutil.rmtree(each, ignore_errors=True)


def _binds(job: Job, directory: str, remap: Remap | None) -> Sequence[BindMount | TmpfsMount]:
    """Prepare the mounts of a process, without its root. Blocks."""
    found: list[BindMount | TmpfsMount] = []
    for number, bind in enumerate(job.binds):
        mountpoint = f"{directory}/bind{number}"
        source = bind.path
        if bind.mounts:
            mount_at(bind.mounts, mountpoint, read_only=bind.readonly, remap=remap)
            source = mountpoint
        if bind.kept:
            # The host's root has no id on an idmapped layer.
            with contextlib.nullcontext() if remap is None else remap.as_container_root():
                _make_inside(source, bind.selector)
        # The directories of a mounted snapshot have mapped owners already.
        unmapped = None if bind.mounts else remap
        shown = _bind_selection(source, bind, f"{directory}/part{number}", unmapped)
        found.append(BindMount(shown, bind.target, writable=not bind.readonly))
    if job.files:
        # Secrets are never written to a disk: a tmpfs that is unmounted after the step.
        memory = f"{directory}/files"
        os.makedirs(memory, mode=0o700)
        linux.mount("files", memory, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0711")
        for number, file in enumerate(job.files):
            path = f"{memory}/{number}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as opened:
                opened.write(file.content)
                ids = (file.uid, file.gid)
                os.fchown(fd, *(ids if remap is None else remap.maps.to_host(*ids)))
                os.fchmod(fd, file.mode)
            found.append(BindMount(path, file.target, writable=False))
    for tmpfs in job.tmpfs:
        # As in BuildKit, the tmpfs is mounted with exec.
        options = "exec,mode=1777" + (f",size={tmpfs.size}" if tmpfs.size else "")
        found.append(TmpfsMount(tmpfs.target, options))
    return found


def _make_inside(root: str, path: str) -> None:
    """Create the directory if it is missing; leave conflicting files for :func:`_bind_selection` to refuse."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.close(make_directories(fd, path))
    finally:
        os.close(fd)


def _bind_selection(root: str, bind: Bind, mountpoint: str, remap: Remap | None) -> str:
    """Bind the selected part of ``root``, links resolved within it, to ``mountpoint``. The runtime then mounts exactly
    what was found, even if the path changes. ``remap``: maps the owners. The path of an idmapped mount of the data root
    would not do: with ``userns-remap``, the group of that directory has no id in an owner's mapping, so that the
    kernel gives the host's root no way through it."""
    whole = not bind.selector.strip("/.")
    if whole and remap is None:
        return root
    try:
        # Sockets have no selector.
        fd = os.open(root, os.O_PATH | os.O_CLOEXEC) if whole else open_inside(root, bind.selector, os.O_PATH)
    except OSError as error:
        kind = Kind.NOT_FOUND if isinstance(error, FileNotFoundError) else Kind.INVALID_ARGUMENT
        raise WharfError(kind, f'"/{bind.selector.strip("/")}": {(error.strerror or "").lower()}') from None
    try:
        mounting.bind_descriptor(fd, mountpoint, remap)
    finally:
        os.close(fd)
    return mountpoint
