"""``process`` of a spec: environment, arguments, user, privileges; and the process of an exec."""

from collections.abc import Mapping, Sequence

from api_models.resources import Ulimit
from engine.common.errors import internal
from server.containers.spec import caps, users
from server.containers.spec.host import HostFacts
from server.containers.spec.input import RootFiles, SpecInput
from server.containers.spec.mounts import INIT_PATH

Json = dict[str, object]

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOCKER_APPARMOR = "docker-default"
#: dockerd's prefixes of runc's errors, for checks that runc makes and crun doesn't.
CREATE_REFUSED = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
_EXEC_REFUSED = "OCI runtime exec failed: exec failed: "


def merge_env(base: Sequence[str], over: Sequence[str]) -> list[str]:
    """``base`` with the changes of ``over``: a variable of the same name is replaced in place, a name without ``=``
    removes the variable, other variables are appended."""
    result = list(base)
    index = {entry.partition("=")[0]: number for number, entry in enumerate(result)}
    removed: set[int] = set()
    for entry in over:
        name, found, _ = entry.partition("=")
        if not found:
            if name in index:
                removed.add(index[name])
            continue
        if name in index:
            result[index[name]] = entry
            removed.discard(index[name])
        else:
            index[name] = len(result)
            result.append(entry)
    return [entry for number, entry in enumerate(result) if number not in removed]


def daemon_env(hostname: str, link_env: Sequence[str], *, tty: bool) -> list[str]:
    """The variables that Docker sets, which the container's own override."""
    found = [DEFAULT_PATH, "HOSTNAME=" + hostname]
    if tty:
        found.append("TERM=xterm")
    return merge_env(found, link_env)


def _env(entries: Sequence[str], *, refused: str) -> list[str]:
    """The environment without an empty ``HOME``: runc replaces it by the user's home, crun only a missing one.

    :param refused: the prefix of the error's message.
    :raises WharfError: INTERNAL, in runc's words: an entry contains a NUL, where crun would end the variable.
    """
    for entry in entries:
        if "\0" in entry:
            name, _, _ = entry.partition("=")
            part = "name" if "\0" in name else "value"
            shown = name.replace("\0", "\\x00")
            raise internal(f'{refused}invalid environment variable "{shown}": {part} contains nul byte (\\x00)')
    return [entry for entry in entries if entry != "HOME="]


def rlimits(ulimits: Sequence[Ulimit]) -> list[Json]:
    # -1 means unlimited; in the spec's unsigned numbers that is 2**64 - 1.
    return [
        {
            "type": "RLIMIT_" + limit.name.upper(),
            "hard": limit.hard & 0xFFFFFFFFFFFFFFFF,
            "soft": limit.soft & 0xFFFFFFFFFFFFFFFF,
        }
        for limit in ulimits
    ]


def _user(user: users.User) -> Json:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}


def _capabilities(names: Sequence[str]) -> Json:
    return {"bounding": list(names), "effective": list(names), "permitted": list(names)}


def container_process(inp: SpecInput, host: HostFacts) -> Json:
    """``process`` of a container.

    :raises WharfError: INTERNAL: the user doesn't exist, or the host has no program for ``--init``.
    """
    config, host_config = inp.config, inp.host
    names = caps.tweak(
        host_config.cap_add or (),
        host_config.cap_drop or (),
        privileged=host_config.privileged,
        available=host.capabilities,
    )
    args = list(inp.args)
    if inp.init and inp.namespaces.pid == "private":
        if not host.init_path:
            raise internal('exec: "docker-init": executable file not found in $PATH')
        args = [INIT_PATH, "--", *args]
    process: Json = {
        "user": _user(users.lookup(config.user, host_config.group_add or (), inp.files)),
        "args": args,
        "env": _env(
            merge_env(daemon_env(inp.hostname, inp.link_env, tty=config.tty), config.env or ()), refused=CREATE_REFUSED
        ),
        "cwd": config.working_dir or "/",
        "capabilities": _capabilities(names),
    }
    if config.tty:
        process["terminal"] = True
        height, width = (*host_config.console_size, 0, 0)[:2]
        if (height, width) != (0, 0):
            process["consoleSize"] = {"height": height, "width": width}
    if inp.ulimits:
        process["rlimits"] = rlimits(inp.ulimits)
    if inp.no_new_privileges:
        process["noNewPrivileges"] = True
    if host.apparmor:
        process["apparmorProfile"] = inp.apparmor or ("unconfined" if host_config.privileged else DOCKER_APPARMOR)

    return process


def exec_process(
    container: Mapping[str, object],
    *,
    args: Sequence[str],
    env: Sequence[str],
    files: RootFiles,
    host: HostFacts,
    user: str = "",
    group_add: Sequence[str] = (),
    cwd: str = "",
    tty: bool = False,
    privileged: bool = False,
    console_size: tuple[int, int] = (0, 0),
) -> Json:
    """``process`` of an exec: the container's, with the request's changes.

    :param container: ``process`` of the container's spec.
    :param env: the whole environment (``merge_env`` of the container's and the request's).
    :param user: the request's, or the container's ``Config.User``. "": the user of the container's process; ``files``
        are not read then.
    :param console_size: (height, width); (0, 0): not set.
    :raises WharfError: INTERNAL: the user doesn't exist.
    """
    process = {key: value for key, value in container.items() if key not in ("terminal", "consoleSize")}
    process["args"] = list(args)
    process["env"] = _env(env, refused=_EXEC_REFUSED)
    if user:
        process["user"] = _user(users.lookup(user, group_add, files))
    if cwd:
        process["cwd"] = cwd
    if tty:
        process["terminal"] = True
        if console_size != (0, 0):
            process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    if privileged:
        process["capabilities"] = _capabilities(host.capabilities)
        if host.apparmor:
            process["apparmorProfile"] = "unconfined"
    return process
