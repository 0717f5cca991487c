"""Containers that exchange a directory for a link out of them, while the engine reads and writes their files.

`python -m compat_tests.hostile.host.racer` tries every operation 10,000 times (CVE-2018-15664's class): `docker cp` in
both directions and its HEAD, for a running container's own files, for a volume, for a stopped container that shares the
volume; exec's look-up of users, export, subpaths of volumes; and all of it with `--userns-remap`. It counts accesses
to the host, of which there must be none. `--kind dockerd` tests Debian's dockerd.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from compat_tests.support import engines
from compat_tests.support.api import Answer
from compat_tests.support.engines import Engine
from compat_tests.support.host.exchanging import exchanging
from compat_tests.support.host.subids import USER as REMAPPED
from compat_tests.support.host.subids import subordinate_ids

ATTEMPTS = 10_000
#: The slow operations (a tenth of a second and more) are tried this much less often.
SLOW = 100
STAT = "X-Docker-Container-Path-Stat"
SECRET = "a secret of the host"
USER = "hostuser"


class Race:
    """One engine, a directory of the host that must stay unreachable, and containers with links to it."""

    def __init__(self, engine: Engine, outside: Path) -> None:
        self.engine = engine
        self.outside = outside
        (outside / "below").mkdir(parents=True)
        (outside / "file").write_text(SECRET)
        (outside / "link").symlink_to(f"/{SECRET}")
        (outside / "passwd").write_text(f"{USER}:x:4242:4242::/:\n")
        self.volume = "raced"
        engine.docker("volume", "create", self.volume)
        inspected = engine.api.get(f"/volumes/{self.volume}").json()
        self.shared = Path(inspected["Mountpoint"])
        run = ("run", "-d", "--network", "none", "-v", f"{self.volume}:/w", "busybox")
        make = "mkdir -p d/below && printf inside > d/file && ln -s file d/link && ln -s $0 l"
        script = f"mkdir /r; for at in /r /w; do cd $at; {make}; done; touch /ready; exec sleep 100000"
        self.running = engine.docker(*run, "sh", "-c", script, str(outside)).stdout.strip()
        engine.docker("exec", self.running, "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done")
        self.stopped = engine.docker(*run, "true").stdout.strip()
        engine.docker("wait", self.stopped)
        pid = engine.api.get(f"/containers/{self.running}/json").json()["State"]["Pid"]
        self.own = Path(f"/proc/{pid}/root/r")

    def close(self) -> None:
        self.engine.docker("rm", "-f", "-v", self.running, self.stopped)
        self.engine.docker("volume", "rm", "-f", self.volume)

    def ways(self) -> Iterator[tuple[str, Path, int, Callable[[], bool]]]:
        """Yield (name, raced directory, divisor of the attempts, an attempt that returns whether it reached the
        host)."""
        for name, box, raced, at in (
            ("running, own files", self.running, self.own, "/r"),
            ("running, volume", self.running, self.shared, "/w"),
            ("stopped, volume", self.stopped, self.shared, "/w"),
        ):
            for path in ("d/file", "d/link", "d/"):
                yield f"HEAD {path} of {name}", raced, 1, partial(self._head, box, f"{at}/{path}")
                yield f"GET {path} of {name}", raced, 1, partial(self._get, box, f"{at}/{path}")
            yield f"PUT of {name}", raced, 1, partial(self._put, box, f"{at}/d")
            yield f"PUT below, of {name}", raced, 1, partial(self._put, box, f"{at}/d/below")
        yield "export", self.own, SLOW, self._export
        yield "users of exec", self.own, 1, self._user
        yield "subpath of a volume", self.shared, SLOW, self._subpath

    def _request(self, method: str, box: str, path: str, body: bytes | None = None) -> Answer:
        return self.engine.api.request(method, f"/containers/{box}/archive", query={"path": path}, body=body)

    def _head(self, box: str, path: str) -> bool:
        answer = self._request("HEAD", box, path)
        return STAT in answer.headers and self._tells(answer.headers[STAT])

    def _tells(self, header: str) -> bool:
        stat = json.loads(base64.b64decode(header))
        return stat["size"] == len(SECRET) or SECRET in stat["linkTarget"]

    def _get(self, box: str, path: str) -> bool:
        answer = self._request("GET", box, path)
        return SECRET.encode() in answer.body or (STAT in answer.headers and self._tells(answer.headers[STAT]))

    def _put(self, box: str, path: str) -> bool:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("put"))
        self._request("PUT", box, path, out.getvalue())
        reached = [found for found in (self.outside / "put", self.outside / "below/put") if found.exists()]
        for found in reached:
            found.unlink()
        return bool(reached)

    def _export(self) -> bool:
        return SECRET.encode() in self.engine.api.get(f"/containers/{self.running}/export").body

    def _user(self) -> bool:
        """`/etc` is a link to the raced directory: the host's file knows a user that the container's lacks."""
        made = self.engine.api.post(f"/containers/{self.running}/exec", {"Cmd": ["true"], "User": USER})
        return made.status == 201

    def _subpath(self) -> bool:
        mount = f"type=volume,source={self.volume},target=/s,volume-subpath=d"
        run = ("run", "--rm", "--network", "none", "--mount", mount, "busybox", "cat", "/s/file")
        return SECRET in self.engine.docker(*run, check=False).stdout


def race(engine: Engine, attempts: int, *, quiet: bool = False) -> dict[str, int]:
    """Return how often each operation reached the host. Prints a line for each."""
    found = {}
    outside = Path(tempfile.mkdtemp(prefix="wharf-racer-")) / "outside"
    races = Race(engine, outside)
    try:
        for name, raced, divisor, attempt in races.ways():
            tries = max(2, attempts // divisor)
            moved = contextlib.ExitStack()
            if name == "users of exec":
                moved.callback(engine.docker, "exec", races.running, "sh", "-c", "rm /etc; mv /etc2 /etc")
                engine.docker("exec", races.running, "sh", "-c", "mv /etc /etc2; ln -s /r/d /etc")
            began = time.monotonic()
            with moved, exchanging(raced / "d", raced / "l"):
                found[name] = sum(attempt() for _ in range(tries))
            if not quiet:
                print(f"{name:40} {found[name]:6} of {tries:6}  {time.monotonic() - began:6.1f} s", flush=True)
    finally:
        races.close()
        shutil.rmtree(outside.parent)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="of each way")
    parser.add_argument("--kind", choices=("wharf", "containerd", "dockerd"), default="wharf")
    parser.add_argument("--without-remap", action="store_true", help="not with --userns-remap, too")
    options = parser.parse_args(argv)
    with engines.running(options.kind, "racer") as engine:
        found = [race(engine, options.attempts)]
    if options.kind == "wharf" and not options.without_remap:
        with subordinate_ids(), engines.wharf("racer", "--userns-remap", REMAPPED) as engine:
            engine.load_busybox()
            print("with --userns-remap")
            found.append(race(engine, options.attempts))
    reached = sum(sum(each.values()) for each in found)
    print(f"{reached} tries reached the host")
    return 1 if reached else 0


if __name__ == "__main__":
    sys.exit(main())
