"""BuildKit's cache keys of steps, so that Wharf can use BuildKit's caches and BuildKit can use Wharf's.

BuildKit's key of a step is the hash of its operation, as Go encodes it in JSON, and of its inputs: for each input the
definition-based key with a selector of the files used, or the hash of those files (BuildKit: solver/llbsolver/ops,
CacheMap; the Dockerfile front end defines the operations). Not covered: here-documents, URLs, repositories, ``--link``,
``--parents``, ``--exclude``, user names and most mounts. Such a step has no BuildKit key, and neither have its
descendants.
"""

import asyncio
import base64
import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence

from engine.common.errors import WharfError
from server.builder.operations.contenthash import content_digest
from server.builder.operations.interfaces import Contexts
from server.builder.plan.llbkey import Input, Key
from server.builder.plan.steps import Base, Copy, Origin, ResolvedMount, Run, Step, Workdir
from server.builder.solver.keys import ancestry

_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_NETWORKS = {"default": 0, "host": 1, "none": 2}
_WILD = frozenset("*?[\\")


def digest(data: bytes | str) -> str:
    return "sha256:" + hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def go_json(document: object) -> str:
    """Encode as Go's encoding/json does."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for char, escaped in _HTML.items():
        text = text.replace(char, escaped)
    return text


def record_digest(of: str, output: int = 0) -> str:
    """The digest of a record: of an operation's output; ``output=-1`` for a content-based key."""
    return digest(f"{of}@{output}")


class LlbKeys:
    """The BuildKit keys of one build's steps. ``plain``: no client option changes what BuildKit would run."""

    def __init__(self, contexts: Contexts, *, plain: bool) -> None:
        self._contexts, self._plain = contexts, plain
        self._known: dict[int, Key | None] = {}

    async def get(self, step: Step | None) -> Key | None:
        """Return a step's key; ``None`` for a step without a BuildKit key, and for an empty root."""
        key: Key | None = None
        for item in ancestry(step):
            if id(item) not in self._known:
                self._known[id(item)] = await self._make(item, key)
            key = self._known[id(item)]
        return key

    async def _make(self, step: Step, below: Key | None) -> Key | None:
        operation = step.operation
        if isinstance(operation, Base):
            return _base(operation)
        if below is None or not self._plain:
            return None
        if isinstance(operation, Run):
            return await self._run(operation, below)
        if isinstance(operation, Workdir):
            return _workdir(operation, below)
        return await self._copy(operation, below)

    async def _copy(self, operation: Copy, below: Key) -> Key | None:
        origin = operation.origin
        special = operation.files or operation.urls or operation.link or operation.parents or operation.exclude
        if origin is None or special or not operation.sources:
            return None
        owners, mode = _owners(operation.chown), -1
        if operation.chmod:
            if not operation.chmod.isdigit():
                return None
            mode = int(operation.chmod, 8)
        paths = [posixpath.normpath(f"/{source}").replace("//", "/") for source in operation.sources]
        source = await self._source(origin, paths, digest("\0".join(sorted(paths, reverse=True))))
        if source is None or source.key is below:
            return None  # BuildKit merges the two into one input
        made = []
        for owner in owners:
            actions = [
                {
                    "src": posixpath.basename(path) or "/",
                    "dest": operation.target,
                    **owner,
                    "mode": mode,
                    "followSymlink": True,
                    "dirCopyContents": True,
                    **({"attemptUnpackDockerCompatibility": True} if operation.add else {}),
                    "createDestPath": True,
                    "allowWildcard": True,
                    "allowEmptyWildcard": True,
                    "timestamp": -1,
                }
                for path in paths
            ]
            made.append(_file(actions))
        return Key(tuple(made), (Input(below), source)) if made else None

    async def _source(self, origin: Origin, paths: Sequence[str], selector: str) -> Input | None:
        if origin.step is not None:
            key = await self.get(origin.step)
            return Input(key, (selector,)) if key is not None else None
        if any(_WILD.intersection(path) for path in paths):
            return None
        try:
            found = await self._contexts.open(origin.context)
            content = await asyncio.to_thread(content_digest, found.path, paths)
        except (WharfError, OSError):
            return None
        return Input(content=Key((record_digest(content, -1),))) if content else None

    async def _run(self, operation: Run, below: Key) -> Key | None:
        env = dict(item.partition("=")[::2] for item in operation.env)
        if operation.files or set(env) != set(operation.names) or operation.volumes:
            return None
        if operation.network not in _NETWORKS:
            return None
        mounts: list[dict[str, object]] = []
        secrets: list[dict[str, object]] = []
        inputs: dict[Origin, list[str]] = {}
        for mount in sorted(operation.mounts, key=lambda item: item.options.target):
            found = _mount(mount, inputs)
            if found is None:
                return None
            (secrets if mount.options.type == "secret" else mounts).append(found)
        # Older versions count a secret as a use of the first input's root.
        roots = dict.fromkeys((digest("/"), digest("\0".join("/" * (1 + len(secrets))))))
        sources = [Input(below, tuple(roots))]
        for origin, paths in inputs.items():
            source = await self._source(origin, paths, digest("\0".join(paths)))
            if source is None or source.key is below:
                return None
            sources.append(source)
        root = {"input": 0, "dest": "/", "output": 0}
        meta = {
            "args": operation.args,
            "env": [f"{name}={env[name]}" for name in operation.names],
            "cwd": operation.cwd,
            "user": operation.user,
            "removeMountStubsRecursive": True,
        }
        platform = _platform(operation.platform)
        every = [root, *mounts, *secrets] if operation.mounts else []
        keys = []
        newer = [root, *mounts, *({**secret, "input": -1} for secret in secrets)] if every else []
        # Older versions also encode zero numbers.
        for shown in ([_without_zeros(mount) for mount in newer], every):
            executed = {
                "meta": _without_zeros(meta),
                "mounts": shown,
                "network": _NETWORKS[operation.network],
                "security": int(operation.security == "insecure"),
            }
            document = {"Type": "buildkit.exec.v0", "Exec": _without_zeros(executed), **platform}
            keys.append(record_digest(digest(go_json(document))))
        return Key(tuple(dict.fromkeys(keys)), tuple(sources))


def _base(operation: Base) -> Key | None:
    """The key of an image: of its layers, or the digest of its manifest."""
    if not operation.chain_id:
        return None
    names = [operation.chain_id]
    _, separator, target = operation.ref.rpartition("@")
    if separator:
        names.append(digest(go_json({"Digest": target, **_platform(operation.platform)})))
    return Key(tuple(record_digest(digest(f"buildkit.source.v0:{name}")) for name in names))


def _platform(text: str) -> dict[str, str]:
    os, arch, variant = (*text.split("/"), "", "")[:3]
    return {"OS": os, "Arch": arch, **({"Variant": variant} if variant else {})}


def _mount(mount: ResolvedMount, inputs: dict[Origin, list[str]]) -> dict[str, object] | None:
    """Encode a mount in an operation and add what it shows to ``inputs``. ``None`` for an unsupported mount."""
    options = mount.options
    if options.type == "bind" and mount.origin is not None:
        path = posixpath.normpath(f"/{options.source}").replace("//", "/")
        inputs.setdefault(mount.origin, []).append(path)
        number = list(inputs).index(mount.origin) + 1
        readonly = {"readonly": True} if options.readonly is not False else {}
        return {"input": number, "dest": options.target, "output": -1, **readonly}
    if options.type == "secret" and options.env is None and not (options.uid or options.gid):
        name = options.id or options.source or posixpath.basename(options.target)
        mode = int(options.mode or "0400", 8)
        secret = {"ID": name, "mode": mode, **({} if options.required else {"optional": True})}
        target = options.target or f"/run/secrets/{posixpath.basename(name)}"
        return {"input": 0, "dest": target, "output": 0, "mountType": 1, "secretOpt": secret}
    if options.type != "cache" or mount.origin is not None or options.source or options.readonly:
        return None
    if options.mode or options.uid or options.gid:
        return None
    common = options.sharing in ("", "shared") and options.id in ("", options.target)
    cache = {"ID": f"/{options.target}"} if common else {}
    return {"input": -1, "dest": options.target, "output": -1, "mountType": 3, "cacheOpt": cache}


def _workdir(operation: Workdir, below: Key) -> Key | None:
    if operation.path == "/":
        return below  # BuildKit makes no operation of it
    made = [
        _file([{"path": operation.path, "mode": 0o755, "makeParents": True, **owner, "timestamp": -1}])
        for owner in _owners(operation.user)
    ]
    return Key(tuple(made), (Input(below),)) if made else None


def _owners(chown: str) -> Sequence[Mapping[str, object]]:
    """A numeric owner, as different versions encode it; ``None`` for a name, which BuildKit resolves in another
    input."""
    if not chown:
        return [{}]
    parts = chown.split(":")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        return []
    pairs = list(zip(("user", "group"), map(int, parts), strict=False))
    return [
        {"owner": {name: {"User": {field: number} if number else {}} for name, number in pairs}}
        for field in ("byId", "byID")
    ]


def _file(actions: Sequence[Mapping[str, object]]) -> str:
    written = [base64.b64encode(go_json(action).encode()).decode() for action in actions]
    return record_digest(digest(go_json({"Type": "buildkit.file.v0", "Actions": written})))


def _without_zeros(values: Mapping[str, object]) -> dict[str, object]:
    """Without the fields that Go omits."""
    return {key: value for key, value in values.items() if value not in ("", 0, (), [])}
