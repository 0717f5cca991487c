"""What a hostile user gets from each endpoint: the ownership rules of the route table.

An endpoint without an entry in ``RULES`` fails ``test_hostile.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Named:
    """The endpoint's parameter names an object of ``noun``: another user's object answers as one that doesn't exist,
    with ``status``. ``query`` and ``body`` are those of a valid request."""

    noun: str
    query: Mapping[str, object] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 404


@dataclass(frozen=True, slots=True)
class View:
    """The answer is about the caller's own objects: it doesn't change when another user creates, uses or removes
    objects. ``volatile``: fields of the document that change by themselves."""

    query: Mapping[str, object] = field(default_factory=dict)
    volatile: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Body:
    """The query or the body may name objects; ``test_hostile_bodies.py`` asks for another user's."""


@dataclass(frozen=True, slots=True)
class Same:
    """The same answer for all users, whatever the objects."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The answer comes from a registry, with the caller's credentials."""


@dataclass(frozen=True, slots=True)
class Administrators:
    """403 for users, whether the named object exists or not."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Tests of its own attack it (see ``where``): the connection becomes one of another protocol, or the object needs a
    real engine."""

    where: str


Rule = Named | View | Body | Same | Registry | Administrators | Protocol

_CONTAINER = Named("container")
_EXEC = Named("exec")
_IMAGE = Named("image")
_NETWORK = Named("network")
_VOLUME = Named("volume")

_SWARM = {"nodes", "services", "secrets", "configs"}
_PLUGIN_VERBS = ("enable", "disable", "push", "upgrade", "set")

RULES: Mapping[str, Rule] = {
    "GET /_ping": Same(),
    "HEAD /_ping": Same(),
    "OPTIONS /{}": Same(),
    "GET /version": Same(),
    # The fake's containers have no cgroups, so users have no metrics that change by themselves.
    "GET /metrics": View(),
    "GET /info": View(volatile=frozenset(("SystemTime", "NFd", "NGoroutines"))),
    "GET /system/df": View(),
    "GET /events": View({"since": "0", "until": "1"}),
    "POST /auth": Registry(),
    "GET /images/search": Registry(),
    "GET /distribution/{}/json": Registry(),
    # containers
    "GET /containers/json": View({"all": 1, "size": 1}),
    "POST /containers/create": Body(),
    "POST /containers/prune": View(),
    "GET /containers/{}/json": _CONTAINER,
    "POST /containers/{}/start": _CONTAINER,
    "POST /containers/{}/stop": _CONTAINER,
    "POST /containers/{}/restart": _CONTAINER,
    "POST /containers/{}/kill": _CONTAINER,
    "POST /containers/{}/pause": _CONTAINER,
    "POST /containers/{}/unpause": _CONTAINER,
    "POST /containers/{}/rename": Named("container", {"name": "mine"}),
    "POST /containers/{}/wait": _CONTAINER,
    "DELETE /containers/{}": Named("container", {"force": 1}),
    "GET /containers/{}/logs": Named("container", {"stdout": 1}),
    "POST /containers/{}/attach": Named("container", {"stream": 1, "stdin": 1, "stdout": 1}),
    "GET /containers/{}/attach/ws": Named("container", {"stream": 1, "stdout": 1}),
    "POST /containers/{}/resize": Named("container", {"h": 10, "w": 10}),
    "GET /containers/{}/top": _CONTAINER,
    "GET /containers/{}/stats": Named("container", {"stream": 0}),
    "POST /containers/{}/update": Named("container", body={"CpuShares": 2}),
    "HEAD /containers/{}/archive": Named("container", {"path": "/etc"}),
    "GET /containers/{}/archive": Named("container", {"path": "/etc"}),
    "PUT /containers/{}/archive": Named("container", {"path": "/etc"}, b""),
    "GET /containers/{}/export": _CONTAINER,
    "GET /containers/{}/changes": _CONTAINER,
    "GET /containers/{}/checkpoints": Administrators(),
    "POST /containers/{}/checkpoints": Administrators(),
    "DELETE /containers/{}/checkpoints/{}": Administrators(),
    "POST /containers/{}/exec": Named("container", body={"Cmd": ["true"]}),
    "POST /exec/{}/start": Named("exec", body={"Detach": True}),
    "POST /exec/{}/resize": Named("exec", {"h": 10, "w": 10}),
    "GET /exec/{}/json": _EXEC,
    # images
    "GET /images/json": View({"all": 1, "shared-size": 1}),
    "GET /images/get": Body(),
    "POST /images/create": Body(),
    "POST /images/load": Body(),
    "POST /images/prune": View({"filters": '{"dangling":["false"]}'}),
    "GET /images/{}/get": _IMAGE,
    "GET /images/{}/json": _IMAGE,
    "GET /images/{}/attestations": _IMAGE,
    "GET /images/{}/history": _IMAGE,
    "POST /images/{}/push": Named("image", headers={"X-Registry-Auth": "e30="}, status=200),  # errors are in the stream
    "POST /images/{}/tag": Named("image", {"repo": "stolen"}),
    "DELETE /images/{}": Named("image", {"force": 1}),
    "POST /commit": Body(),
    # networks
    "GET /networks": View(),
    "GET /networks/": View(),
    "POST /networks/create": Body(),
    "POST /networks/prune": View(),
    "GET /networks/{}": _NETWORK,
    "POST /networks/{}/connect": Named("network", body={"Container": "own"}),
    # dockerd's status for a container that isn't connected
    "POST /networks/{}/disconnect": Named("network", body={"Container": "own"}, status=500),
    "DELETE /networks/{}": _NETWORK,
    # volumes
    "GET /volumes": View(),
    "POST /volumes/create": Body(),
    "POST /volumes/prune": View({"filters": '{"all":["true"]}'}),
    "GET /volumes/{}": _VOLUME,
    "PUT /volumes/{}": Same(),
    "DELETE /volumes/{}": _VOLUME,
    # builds
    "POST /build": Body(),
    "POST /build/prune": View({"all": 1}),
    "POST /build/cancel": Body(),
    "POST /grpc": Protocol("compat_tests/access/hostile"),
    "POST /session": Protocol("compat_tests/access/hostile"),
    # engines with a policy
    "GET /wharf/v1/users": View(),
    "GET /wharf/v1/policy": View(),
    "GET /wharf/v1/usage": View(),
    # Every user sees which user has a GPU: server/tests/api/test_gpus.py tests what is shown. Here nobody has one.
    "GET /wharf/v1/gpus": View(),
    "GET /wharf/v1/queue": View(),
    "GET /wharf/v1/audit": Administrators(),
    "GET /wharf/v1/containers/{}/timeline": Named("container"),
    "GET /wharf/v1/timelines": View(),
    "POST /wharf/v1/ui/login": Same(),
    "GET /wharf/v1/containers/{}/files": Named("container", {"path": "/"}),
    "GET /wharf/v1/exec/{}/ws": Named("exec", {"h": "1", "w": "1"}),
    "GET /wharf/v1/images/layers": View(),
    "GET /wharf/v1/builds": View(),
    "GET /wharf/v1/builds/{}/log": Protocol("compat_tests/access/test_builds.py"),
    "GET /wharf/v1/openapi.json": Same(),
    "GET /wharf/v1/sockets": View(),
    "POST /wharf/v1/sockets": Body(),
    "DELETE /wharf/v1/sockets/{}": Named("job"),
    # swarm mode
    "GET /swarm": Administrators(),
    "GET /swarm/unlockkey": Administrators(),
    "POST /swarm/unlock": Administrators(),
    "POST /swarm/update": Administrators(),
    "POST /swarm/init": Administrators(),
    "POST /swarm/join": Administrators(),
    "POST /swarm/leave": Administrators(),
    **{f"GET /{kind}": Administrators() for kind in (*_SWARM, "tasks")},
    **{f"GET /{kind}/{{}}": Administrators() for kind in (*_SWARM, "tasks")},
    **{f"DELETE /{kind}/{{}}": Administrators() for kind in _SWARM},
    **{f"POST /{kind}/create": Administrators() for kind in _SWARM - {"nodes"}},
    **{f"POST /{kind}/{{}}/update": Administrators() for kind in _SWARM},
    "GET /services/{}/logs": Administrators(),
    "GET /tasks/{}/logs": Administrators(),
    # what the engine refuses to everybody
    "GET /plugins": Same(),
    "GET /plugins/privileges": Same(),
    "POST /plugins/pull": Same(),
    "POST /plugins/create": Same(),
    "GET /plugins/{}/json": Same(),
    **{f"POST /plugins/{{}}/{verb}": Same() for verb in _PLUGIN_VERBS},
    "DELETE /plugins/{}": Same(),
}
