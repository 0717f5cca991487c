"""Debian's containerd as the back end of an engine, and its tool `ctr`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from compat_tests.support.daemons import START, Completed, Daemon, forget
from compat_tests.support.host import resources
from compat_tests.support.polling import until


def ctr(address: Path, *args: str, namespace: str = "moby", check: bool = True) -> Completed:
    """Run `ctr` on the socket of a containerd or of our supervisor."""
    argv = ("ctr", "--address", str(address), "--namespace", namespace, *args)
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    result = Completed(argv, done.returncode, done.stdout.decode(), done.stderr.decode())
    return result.checked() if check else result


def first_column(table: str) -> list[str]:
    """Return the first column of a table that `ctr` prints, without its heading."""
    return [line.split()[0] for line in table.splitlines()[1:] if line.strip()]


class Containerd:
    """Debian's containerd, with roots of its own."""

    def __init__(
        self, resources: resources.EngineResources, proxies: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        """``proxies``: the sockets of proxied snapshotters, by name."""
        self.resources = resources
        self.address = resources.root / "containerd.sock"
        config = resources.root / "containerd.toml"
        config.write_text(
            "version = 2\n"
            f'root = "{resources.root}/containerd-root"\nstate = "{resources.root}/containerd-state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.address}"\n[debug]\nlevel = "warn"\n'
            + "".join(f'[proxy_plugins.{name}]\ntype = "snapshot"\naddress = "{at}"\n' for name, at in proxies.items())
        )
        self.daemon = Daemon(
            ["containerd", "--config", str(config)], resources.root / "containerd.log", mark=resources.footprint.mark
        )

    def start(self) -> None:
        self.daemon.start()

        def answers() -> bool:
            return not self.daemon.running or not ctr(self.address, "version", check=False).status

        up = until(answers, seconds=START)
        assert up, f"containerd did not answer\n{self.daemon.tail()}"
        assert self.daemon.running, f"containerd ended\n{self.daemon.tail()}"

    def destroy(self) -> None:
        try:
            self.daemon.stop()
        finally:
            self.resources.footprint.remove()
            forget(self.daemon)
            resources.clear(self.resources.root)
