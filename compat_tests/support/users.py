"""Users of the host, made for a test, as clients of an engine with a policy."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compat_tests.support import engines
from compat_tests.support.api import Api, Credentials
from compat_tests.support.daemons import Completed, run_program
from compat_tests.support.engines import Wharf
from compat_tests.support.host import resources
from compat_tests.support.host.account import account


@dataclass(slots=True)
class User:
    """A user who uses one engine through its socket for users."""

    name: str
    credentials: Credentials
    home: Path
    socket: Path
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(self.socket, credentials=self.credentials)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        return {**kept, "HOME": str(self.home), "USER": self.name, "DOCKER_HOST": self.host, "TMPDIR": str(self.home)}

    def run(
        self,
        *argv: str,
        input: bytes = b"",
        check: bool = True,
        timeout: float = 90,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program as the user, in the home directory."""
        environment = {**self.environment, **(env or {})}
        return run_program(
            argv,
            env=environment,
            input=input,
            check=check,
            timeout=timeout,
            cwd=self.home,
            credentials=self.credentials,
        )

    def docker(self, *args: str, input: bytes = b"", check: bool = True, timeout: float = 90) -> Completed:
        return self.run("docker", *args, input=input, check=check, timeout=timeout)

    def refused_run(self, *args: str) -> str:
        """Return the daemon's sentence for a ``docker run`` of busybox that it refuses."""
        failed = self.docker("run", "--rm", *args, "busybox", "true", check=False)
        assert failed.status in (125, 126), failed.stderr
        return failed.stderr.rpartition("docker: Error response from daemon: ")[2].split("\n")[0].rstrip(".")

    def remove_all(self) -> None:
        """Remove the containers, networks and volumes of a user who has a role."""
        if self.api.get("/containers/json").status == 403:
            return
        for item in self.api.get("/containers/json", all=1).json():
            self.api.delete(f"/containers/{item['Id']}", force=1, v=1)
        for item in self.api.get("/networks").json():
            self.api.delete(f"/networks/{item['Id']}")
        for item in self.api.get("/volumes").json()["Volumes"] or []:
            self.api.delete(f"/volumes/{item['Name']}", force=1)


@dataclass(slots=True)
class Lab:
    """An engine with a policy, and its users by their short names."""

    engine: Wharf
    users: dict[str, User]
    policy: Path

    def __getitem__(self, name: str) -> User:
        return self.users[name]


# Several labs may exist at a time.
_serial = itertools.count()


@contextlib.contextmanager
def lab(name: str, policy: str, users: Sequence[str], *args: str) -> Iterator[Lab]:
    """Run Wharf with a policy and with users of the host. ``policy``: the text of policy.toml, in which ``{alice}``
    stands for the host's name of the user ``alice``. The image busybox is loaded by the administrator."""
    number = next(_serial)
    with contextlib.ExitStack() as stack:
        accounts = {short: stack.enter_context(account(f"wt{os.getpid()}n{number}{short}")) for short in users}
        allocated = resources.allocate(name)
        path = allocated.root / "policy.toml"
        path.write_text(policy.format(**{short: account.pw_name for short, account in accounts.items()}))
        socket = allocated.root / "users.sock"
        flags = ("--policy-file", str(path), "-H", f"unix://{socket}?mode=0666", *args)
        engine = stack.enter_context(engines.wharf_on(allocated, *flags))
        engine.load_busybox()
        made = {
            short: User(account.pw_name, Credentials(account.pw_uid, account.pw_gid), Path(account.pw_dir), socket)
            for short, account in accounts.items()
        }
        yield Lab(engine, made, path)
        for user in made.values():
            user.remove_all()
