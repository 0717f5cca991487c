"""An engine's answers at its newest API version in one fixed scenario, without the values that differ between engines.

``python -m compat_tests.clients.newest`` records dockerd's answers in ``golden/newest.json``, if the dockerd of the
environment knows :data:`VERSION`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compat_tests.clients.images.test_platforms import ARM64, made
from compat_tests.clients.test_inspect_list import REQUESTS, answers_through_life, plain
from compat_tests.support import engines
from compat_tests.support.api import Api
from compat_tests.support.engines import Engine

VERSION = "1.55"
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "newest.json"

#: Values of the disk usage that depend on the image store: only whether they are set is compared.
_SIZES = frozenset(("TotalSize", "Reclaimable", "LayersSize", "SharedSize", "Size", "Descriptor", "RepoDigests"))


def answers(engine: Engine) -> dict[str, Any]:
    """Return the answers by name. The engine has the image busybox:latest and no container."""
    found: dict[str, Any] = {f"containers {name}": answers_through_life(engine, name, (VERSION,)) for name in REQUESTS}
    api = Api(engine.resources.socket, version=VERSION)
    # dockerd omits DiscoveredDevices while there are none.
    found["info"] = sorted(api.get("/info").json().keys() - {"DiscoveredDevices"})
    found["images"] = _images(api)
    with _network(api) as network:
        found["network alone"] = _network_answers(api, network)
        with _running(api, network) as container:
            found["network"] = _network_answers(api, network)
            found["df"] = _usage(api.get("/system/df").json())
            found["df verbose"] = _usage(api.get("/system/df", verbose=1).json())
            found["stats"] = sorted(api.get(f"/containers/{container}/stats", stream=0).json())
    return found


def _images(api: Api) -> dict[str, Any]:
    """Return the answers about an index: one platform for this host, one for another, and one that is not local."""
    image = made("amd64", "arm64", "riscv64", without="riscv64", name="newest-index")
    assert api.request("POST", "/images/load", body=image.archive).status == 200
    try:
        path = f"/images/{image.name}"
        filters = json.dumps({"reference": [image.name]})
        found = {
            "list": api.get("/images/json", manifests=1, identity=1, filters=filters).json(),
            "inspect": api.get(f"{path}/json").json(),
            "inspect manifests": api.get(f"{path}/json", manifests=1).json(),
            "inspect a platform": api.get(f"{path}/json", platform=ARM64).json(),
            "history": api.get(f"{path}/history").json(),
            "attestations": api.get(f"{path}/attestations").json(),
        }
    finally:
        api.delete(path, force=1)
    return {name: _unsized(value) for name, value in found.items()}


def _unsized(document: Any) -> Any:
    """Return the answer about an image without times, and for sizes of unpacked layers only whether they are set."""
    if isinstance(document, list):
        return [_unsized(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        name: "<set>" if name in ("Size", "Total", "Unpacked") and isinstance(value, int) and value else _unsized(value)
        for name, value in document.items()
        if name not in ("Metadata", "GraphDriver")
    }


def _network_answers(api: Api, network: str) -> dict[str, Any]:
    inspected = plain(api.get(f"/networks/{network}").json())
    inspected["Containers"] = list(inspected["Containers"].values())
    rows = api.get("/networks", filters=json.dumps({"id": [network]})).json()
    return {"inspect": inspected, "list": plain(rows)}


def _usage(document: Any) -> Any:
    """Return the usage with the names of the lists' members only."""
    if isinstance(document, list):
        return [sorted(each) for each in document[:1]]
    if isinstance(document, dict):
        return {name: "<set>" if name in _SIZES and value else _usage(value) for name, value in document.items()}
    return document


def events(engine: Engine) -> list[dict[str, Any]]:
    """Return the events of a container's life, of which the order is fixed."""
    api = Api(engine.resources.socket, version=VERSION)
    since = time.time()
    created = api.post("/containers/create", REQUESTS["plain"], name="eventful").json()["Id"]
    assert api.post(f"/containers/{created}/start").status == 204
    assert api.post(f"/containers/{created}/kill").status == 204
    api.post(f"/containers/{created}/wait")
    assert api.delete(f"/containers/{created}").status == 204
    filters = json.dumps({"type": ["container"], "container": [created]})
    answer = api.get("/events", since=f"{since:.9f}", until=f"{time.time() + 0.5:.9f}", filters=filters)
    found = []
    for event in answer.lines():
        event["time"] = event["timeNano"] = "<set>"
        event["Actor"]["Attributes"].pop("execDuration", None)
        found.append(plain(event) | ({"id": "<set>"} if "id" in event else {}))
    return [{"Content-Type": answer.headers["Content-Type"]}, *found]


@contextmanager
def _network(api: Api) -> Iterator[str]:
    addresses = {"Subnet": "10.231.7.0/24", "IPRange": "10.231.7.128/25", "AuxiliaryAddresses": {"a": "10.231.7.130"}}
    ipam = {"Config": [addresses]}
    created = api.post("/networks/create", {"Name": "newest", "IPAM": ipam, "Labels": {"a": "b"}})
    assert created.status == 201, created.body
    try:
        yield created.json()["Id"]
    finally:
        api.delete("/networks/newest")


@contextmanager
def _running(api: Api, network: str) -> Iterator[str]:
    body = {**REQUESTS["plain"], "HostConfig": {"NetworkMode": network}}
    created = api.post("/containers/create", body, name="newest").json()["Id"]
    try:
        assert api.post(f"/containers/{created}/start").status == 204
        yield created
    finally:
        api.delete(f"/containers/{created}", force=1)


def record() -> None:
    with engines.dockerd("record", containerd_store=True) as dockerd:
        dockerd.load_busybox()
        newest = dockerd.api.get("/version").json()["ApiVersion"]
        if newest != VERSION:
            raise SystemExit(f"this dockerd's newest API version is {newest}, not {VERSION}")
        found = {**answers(dockerd), "events": events(dockerd)}
    GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
