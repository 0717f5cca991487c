"""stargz-snapshotter: a remote snapshotter."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from compat_tests.support.polling import until

#: The daemon. Debian's package has only its client, so the tests that need it are skipped where it is absent.
PROGRAM = Path(os.environ.get("WHARF_TEST_CACHE", "/var/cache/wharf")) / "stargz/containerd-stargz-grpc"


class Stargz:
    """The daemon. ``kill`` it and ``start`` it again; ``address`` is its socket."""

    def __init__(self, place: Path, registries: Sequence[str]) -> None:
        self.place = place
        self.address = place / "stargz.sock"
        self._process: subprocess.Popen[bytes] | None = None
        lines = ["noprefetch = true", "no_background_fetch = true"]
        for host in registries:
            lines += [f'[[resolver.host."{host}".mirrors]]', f'host = "{host}"', "insecure = true"]
        (place / "config.toml").write_text("\n".join(lines))

    def start(self) -> None:
        argv = [str(PROGRAM), str(self.place / "root"), str(self.address), str(self.place / "config.toml")]
        with (self.place / "log").open("ab") as log:
            process = self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.address.exists() or process.poll() is not None, seconds=30)
        assert process.poll() is None, (self.place / "log").read_text()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self.address.unlink(missing_ok=True)

    def unmount(self) -> None:
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for path in sorted((path for path in mounted if path.startswith(str(self.place))), reverse=True):
            subprocess.run(["umount", "-l", path], check=False, capture_output=True, timeout=30)


@contextlib.contextmanager
def stargz(place: Path, *registries: str) -> Iterator[Stargz]:
    """Run the daemon for these registries, which are reached without TLS."""
    place.mkdir()
    daemon = Stargz(place, registries)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.unmount()
        shutil.rmtree(place, ignore_errors=True)
