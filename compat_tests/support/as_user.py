"""Runs the tests of clients as one user of the host, who has a role: ``--engine wharf-user``.

The tests themselves stay root, because they also examine the host. What they do as clients is the user's:

- Each engine has a policy, and its socket is open to everybody.
- Programs of ``Engine.environment`` (docker and its plugins, kind, node, skopeo, tar) run with the user's ids: the
  first directory of PATH has a script for each, which calls setpriv.
- Connections of this process (docker-py, aiodocker, ``Api``) are made by a process of the user, which passes the
  connected socket back: the engine sees the credentials of the process that called connect(2).
- The user owns the files that tests make: this thread has the user's file system ids (setfsuid(2)), with all of root's
  capabilities.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compat_tests.support.host.account import account, home_of

KIND = "wharf-user"
#: The role has no limits, and all rights that give no more than the user has on the host.
POLICY = """
[users]
{name} = "member"

[roles.member]
plugins = true
capabilities = ["SYS_PTRACE", "NET_ADMIN"]
"""
PROGRAMS = ("docker", "kind", "node", "skopeo", "tar")

#: The user as whom the tests run; None without ``--engine wharf-user``.
CURRENT: ActingUser | None = None

_CONNECTOR = """
import os, socket, sys
requests = socket.socket(fileno=0)
uid, gid = map(int, sys.argv[1:])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
while path := requests.recv(4096):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(path)
    except OSError as error:
        requests.send(str(error.errno).encode())
    else:
        socket.send_fds(requests, [b"0"], [made.fileno()])
    made.close()
"""
# kind, which is the user already, starts docker.
_PROGRAM = """#!/bin/sh
[ "$(id -u)" = {uid} ] && exec {program} "$@"
exec setpriv --reuid {uid} --regid {gid} --clear-groups {program} "$@"
"""
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def user_name() -> str:
    """The name of this run's user."""
    return f"wt{os.getpid()}suite"


def temporary_root() -> Path:
    """The directory of pytest's temporary files: below the home of the user, who must reach them."""
    return home_of(user_name()) / "pytest"


class ActingUser:
    """The user, with the process that connects for it."""

    def __init__(self, made: pwd.struct_passwd) -> None:
        self.name, self.uid, self.gid, self.home = made.pw_name, made.pw_uid, made.pw_gid, Path(made.pw_dir)
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # It drops root's ids itself, because Python may be in a directory that the user can't enter.
        argv = [sys.executable, "-c", _CONNECTOR, str(self.uid), str(self.gid)]
        self._connector = subprocess.Popen(argv, stdin=theirs.fileno())
        theirs.close()
        self._programs = self.home / "bin"
        self._programs.mkdir()
        for program in PROGRAMS:
            if found := shutil.which(program):
                script = self._programs / program
                script.write_text(_PROGRAM.format(uid=self.uid, gid=self.gid, program=found))
                script.chmod(0o755)

    def close(self) -> None:
        self._requests.close()
        self._connector.wait(60)

    @property
    def environment(self) -> dict[str, str]:
        """Of programs that run as the user."""
        return {"HOME": str(self.home), "USER": self.name, "PATH": f"{self._programs}:{os.environ['PATH']}"}

    def policy(self, path: Path) -> Path:
        """Write the policy of an engine."""
        path.write_text(POLICY.format(name=self.name))
        return path

    def connect(self, sock: socket.socket, path: str) -> None:
        """Connect a socket as the user.

        :raises OSError: the kernel refuses it.
        """
        with self._lock:
            self._requests.send(path.encode())
            answer, descriptors, _, _ = socket.recv_fds(self._requests, 16, 1)
        if not descriptors:
            raise OSError(int(answer), os.strerror(int(answer)), path)
        # The descriptor refers to another open file now, so its timeout must be set again.
        os.dup2(descriptors[0], sock.fileno(), inheritable=False)
        os.close(descriptors[0])
        sock.settimeout(sock.gettimeout())


@contextlib.contextmanager
def acting() -> Iterator[ActingUser]:
    """Add the user, and act as the user in this thread and in those that it starts."""
    global CURRENT
    with account(user_name()) as made, contextlib.ExitStack() as stack:
        user = ActingUser(made)
        stack.callback(user.close)
        stack.callback(setattr, socket.socket, "connect", socket.socket.connect)
        socket.socket.connect = _connecting(user, socket.socket.connect)  # type: ignore[method-assign]
        # Modules that the tests import must stay root's: later runs use the compiled ones.
        stack.callback(setattr, sys, "dont_write_bytecode", sys.dont_write_bytecode)
        sys.dont_write_bytecode = True
        # git refuses directories of other users, unless it may use all.
        stack.enter_context(
            _environment(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        )
        stack.callback(_set_file_ids, 0, 0)
        _set_file_ids(made.pw_uid, made.pw_gid)
        CURRENT = user
        try:
            yield user
        finally:
            CURRENT = None


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def _connecting(user: ActingUser, original: Callable[..., None]) -> Callable[..., None]:
    def connect(self: socket.socket, address: Any) -> None:
        """``socket.connect``, as the user if the address is the socket of an engine with a policy."""
        path = (
            Path(os.fsdecode(address)) if self.family == socket.AF_UNIX and address[:1] not in ("\0", b"\0") else None
        )
        if path is not None and (path.parent / "policy.toml").exists():
            user.connect(self, str(path))
        else:
            original(self, address)

    return connect


def _set_file_ids(uid: int, gid: int) -> None:
    """Set the file system ids of this thread. The kernel then removes capabilities for files, which this adds again."""
    if os.getegid() not in os.getgroups():
        # Otherwise an exec that returns from the user's file system gid to gid 0 counts as set-gid since Linux 6.16,
        # and the C library removes variables such as TMPDIR.
        os.setgroups([*os.getgroups(), os.getegid()])
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits
    if _libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0], sets[3] = sets[1], sets[4]
    if _libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
