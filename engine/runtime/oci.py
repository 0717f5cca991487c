"""The command lines of the OCI runtimes, crun and runc, and what their errors mean.

Pure functions of data: nothing is executed here, so that the shim (standard library only, its own event
loop) and the supervisor (asyncio) can both use it. Where crun and runc differ, the difference is here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

CRUN = "crun"
RUNC = "runc"


class Runtime(NamedTuple):
    """One OCI runtime as it is called for one container.

    ``name`` is ``crun`` or ``runc`` (which dialect ``path`` speaks), ``root`` the runtime's own state
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
            # Without a log file the message would go to stderr, which belongs to the container.
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
        """As ``create`` and ``start`` in one, from the directory of a checkpoint."""
        argv = [*self._base(log), "restore", "--detach", "--bundle", bundle, "--pid-file", pid_file]
        argv += ["--image-path", image, "--work-path", image]
        if console is not None:
            argv += ["--console-socket", console]
        if self.name != CRUN:
            argv.append("--no-subreaper")  # the process shall become the caller's child
        return [*argv, container]

    def checkpoint(self, container: str, *, image: str, options: Sequence[str], log: str) -> list[str]:
        """Writes CRIU's images into a directory; ``options`` are the runtime's own (``--leave-running`` …)."""
        return [*self._base(log), "checkpoint", "--image-path", image, "--work-path", image, *options, container]

    def start(self, container: str, *, log: str) -> list[str]:
        return [*self._base(log), "start", container]

    def exec(self, container: str, *, process: str, pid_file: str, log: str, console: str | None = None) -> list[str]:
        """Detached: the runtime leaves when the process runs; ``process`` is a file with the OCI process."""
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
        """``resources`` is a file holding the OCI LinuxResources as JSON."""
        return [*self._base(log), "update", "--resources", resources, container]

    def state(self, container: str) -> list[str]:
        return [*self._base(None), "state", container]


def last_message(log: str) -> str:
    """The last error of a runtime's JSON log (``""`` when it logged none); foreign lines are skipped."""
    message = ""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "fatal"}:
            message = str(entry.get("msg", "")).strip() or message
    return message


# crun's own words for what clients know by runc's: the docker CLI picks its exit status 127 or 126 by them.
_CRUN_MISSING = re.compile(r"(?:executable file|cannot find) `(?P<path>[^`]*)`(?: not found)?(?P<search> in \$PATH)?")
_CRUN_NOT_EXECUTABLE = re.compile(r"the path `(?P<path>[^`]*)` exists but it is not executable")
_CRUN_NOT_FILE = re.compile(r"the path `(?P<path>[^`]*)` is not a regular file")
_CRUN_CHDIR = re.compile(r"chdir to `(?P<path>[^`]*)`|chdir `(?P<path2>[^`]*)`")
_CRUN_OPEN = re.compile(r"open (?:executable )?`(?P<path>[^`]*)`: Permission denied")


def _crun_sentence(message: str) -> str | None:
    if found := _CRUN_MISSING.search(message):
        path = found["path"]
        if found["search"]:
            return f'exec: "{path}": executable file not found in $PATH'
        return f'exec: "{path}": stat {path}: no such file or directory'
    if found := _CRUN_NOT_EXECUTABLE.search(message) or _CRUN_OPEN.search(message):
        return f'exec: "{found["path"]}": permission denied'
    if found := _CRUN_NOT_FILE.search(message):
        return f'exec: "{found["path"]}": is a directory: permission denied'
    if found := _CRUN_CHDIR.search(message):
        path = found["path"] or found["path2"]
        reason = message.rsplit(": ", 1)[-1].lower()
        return f'chdir to cwd ("{path}") set in config.json failed: {reason}'
    return None


_SHIM_SAID = re.compile(r"OCI runtime (?P<verb>create|start|exec) failed: (?P<said>.*): unknown", re.DOTALL)


def in_runcs_words(message: str) -> str:
    """A stock containerd's sentence about crun, with crun's words turned into runc's as in :func:`explain`."""
    found = _SHIM_SAID.search(message)
    sentence = _crun_sentence(found["said"]) if found and "exec: " not in found["said"] else None
    if found is None or sentence is None:
        return message
    prefix = "exec failed" if found["verb"] == "exec" else f"crun {found['verb']} failed"
    said = f"{prefix}: unable to start container process: {sentence}"
    return message[: found.start("said")] + said + message[found.end("said") :]


def explain(runtime: Runtime, verb: str, message: str) -> str:
    """The sentence dockerd shows when ``verb`` (``create``, ``start``, ``exec`` …) failed with ``message``.

    ``OCI runtime create failed: runc create failed: unable to start container process: exec: "x":
    executable file not found in $PATH: unknown``, as containerd's shim words it; crun's words are turned
    into runc's where a client decides by them.
    """
    if not message:
        message = f"{runtime.path} did not terminate successfully"
    if runtime.name == CRUN and verb in {"create", "start", "exec"}:
        if sentence := _crun_sentence(message):
            prefix = "exec failed" if verb == "exec" else f"{runtime.name} {verb} failed"
            message = f"{prefix}: unable to start container process: {sentence}"
        else:
            message = f"{runtime.name}: {message}"
    return f"OCI runtime {verb} failed: {message}: unknown"
