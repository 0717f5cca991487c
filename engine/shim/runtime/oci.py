"""The command lines of the OCI runtimes crun and runc.

Pure functions, which execute nothing, so that both the shim (standard library only, its own event loop) and the
supervisor (asyncio) can use them. Only this module knows the differences between crun and runc.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

CRUN = "crun"
RUNC = "runc"


class Runtime(NamedTuple):
    """One OCI runtime as called for one container.

    ``name`` is ``crun`` or ``runc`` (the command line that ``path`` accepts), ``root`` the runtime's own state
    directory, ``systemd_cgroup`` whether it asks systemd for the cgroup.
    """

    name: str
    path: str
    root: str
    systemd_cgroup: bool = False

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "path": self.path, "root": self.root, "systemd": self.systemd_cgroup}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Runtime":
        return cls(str(data["name"]), str(data["path"]), str(data["root"]), bool(data["systemd"]))

    def _base(self, log: str | None) -> list[str]:
        argv = [self.path, "--root", self.root]
        if log is not None:
            # Without a log file the message would be written to stderr, which is the container's.
            argv += ["--log", log, "--log-format", "json"]
        if self.systemd_cgroup:
            argv.append("--systemd-cgroup")
        return argv

    def create(
        self,
        container: str,
        *,
        bundle: str,
        pid_file: str,
        log: str,
        console: str | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
    ) -> list[str]:
        argv = [*self._base(log), "create", "--bundle", bundle, "--pid-file", pid_file]
        if console is not None:
            argv += ["--console-socket", console]
        if no_pivot:
            argv.append("--no-pivot")
        if no_new_keyring:
            argv.append("--no-new-keyring")
        return [*argv, container]

    def restore(
        self, container: str, *, image: str, bundle: str, pid_file: str, log: str, console: str | None = None
    ) -> list[str]:
        """Like ``create`` and ``start`` together, from the directory of a checkpoint."""
        argv = [*self._base(log), "restore", "--detach", "--bundle", bundle, "--pid-file", pid_file]
        argv += ["--image-path", image, "--work-path", image]
        if console is not None:
            argv += ["--console-socket", console]
        if self.name != CRUN:
            argv.append("--no-subreaper")  # the process must become the caller's child
        return [*argv, container]

    def checkpoint(self, container: str, *, image: str, options: Sequence[str], log: str) -> list[str]:
        """Writes CRIU's images into a directory; ``options`` are the runtime's own (``--leave-running`` …)."""
        return [*self._base(log), "checkpoint", "--image-path", image, "--work-path", image, *options, container]

    def start(self, container: str, *, log: str) -> list[str]:
        return [*self._base(log), "start", container]

    def exec(self, container: str, *, process: str, pid_file: str, log: str, console: str | None = None) -> list[str]:
        """Detached: the runtime exits when the process runs; ``process`` is a file with the OCI process."""
        argv = [*self._base(log), "exec", "--detach", "--process", process, "--pid-file", pid_file]
        if console is not None:
            argv += ["--console-socket", console]
            if self.name == CRUN:
                argv.append("--tty")
        return [*argv, container]

    def kill(self, container: str, signal: int, *, everything: bool = False, log: str | None = None) -> list[str]:
        argv = [*self._base(log), "kill"]
        if everything:
            argv.append("--all")
        return [*argv, container, str(signal)]

    def delete(self, container: str, *, force: bool = False, log: str | None = None) -> list[str]:
        argv = [*self._base(log), "delete"]
        if force:
            argv.append("--force")
        return [*argv, container]

    def pause(self, container: str, *, log: str) -> list[str]:
        return [*self._base(log), "pause", container]

    def resume(self, container: str, *, log: str) -> list[str]:
        return [*self._base(log), "resume", container]

    def update(self, container: str, *, resources: str, log: str) -> list[str]:
        """``resources`` is a file with the OCI LinuxResources as JSON."""
        return [*self._base(log), "update", "--resources", resources, container]

    def state(self, container: str) -> list[str]:
        return [*self._base(None), "state", container]
