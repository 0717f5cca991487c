"""The rules of a namespace after changes are those of a new one."""

import os
import random
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from server.networks.netlink import netns
from server.networks.nftables.libnftables import Nftables
from server.networks.overlay import translations
from server.networks.overlay.model import Backend, ServiceAddresses
from server.networks.overlay.translations import Balanced, Translation

pytestmark = pytest.mark.root


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[str]:
    directory = tempfile.mkdtemp(dir=tmp_path)
    netns.prepare(directory)
    path = os.path.join(directory, "one")
    netns.create(path).close()
    yield path
    netns.delete(path)
    netns.unprepare(directory)


def _service(number: int, backends: Sequence[int], *, virtual: bool = True) -> ServiceAddresses:
    return ServiceAddresses(
        service_id=f"s{number}",
        names=(f"web{number}",),
        virtual_ip=f"10.0.9.{number}" if virtual else "",
        backends=tuple(Backend(f"web.{each}", f"10.0.1.{each}") for each in backends),
    )


def _table(path: str) -> str:
    with netns.inside(path), Nftables() as nft:
        return nft.run("list ruleset\n")


def _backends(path: str) -> dict[str, list[str]]:
    """The addresses to which connections to each virtual address go, as the kernel has them."""
    found: dict[str, list[str]] = {}
    text = _table(path)
    for virtual, action in re.findall(r"chain to-(\S+) {\s+(.+)\n", text):
        if action == "reject":
            found[virtual] = []
            continue
        count = int(re.search(r"mod (\d+)", action).group(1))  # type: ignore[union-attr]
        elements = re.search(rf"map of-{virtual} {{[^{{]*elements = {{([^}}]*)}}", text)
        assert elements is not None
        slots = dict(re.findall(r"(\d+) : ([\d.]+)", elements.group(1)))
        found[virtual] = sorted(slots[str(at)] for at in range(count))
    reached = set(re.findall(r"([\d.]+) : goto to-", text))
    assert reached == set(found)
    return found


def test_changes_are_written(namespace: str) -> None:
    dice = random.Random(3)
    written = None
    for _ in range(60):
        services = tuple(
            _service(number, dice.sample(range(1, 30), dice.choice((0, 1, 5, 20))), virtual=dice.random() < 0.8)
            for number in range(1, 4)
            if dice.random() < 0.8
        )
        now, failed = translations.write([Translation(namespace, "c1", services, written)], ())
        assert not failed
        assert _backends(namespace) == {
            each.virtual_ip: sorted(backend.address for backend in each.backends)
            for each in services
            if each.virtual_ip
        }
        # At times an earlier daemon has written the rules.
        written = now[namespace] if dice.random() < 0.9 else None


def test_a_backend_keeps_its_place(namespace: str) -> None:
    written: dict[str, Mapping[str, Balanced]] = {}

    def write(*backends: int) -> Sequence[str]:
        services = (_service(1, backends),)
        now, failed = translations.write([Translation(namespace, "c1", services, written.get(namespace))], ())
        assert not failed
        written.update(now)
        balanced = written[namespace]["10.0.9.1"]
        return [address.rpartition(".")[2] for address in balanced.slots[: balanced.count]]

    before = write(*range(10))
    after = write(*(each for each in range(12) if each != 4))
    assert [one for one, other in zip(before, after, strict=False) if one != other] == ["4"]
    assert after[10:] == ["11"]


def test_containers_begin_with_different_backends(namespace: str) -> None:
    first = set()
    for number in range(20):
        translation = Translation(namespace, f"c{number}", (_service(1, range(10)),), None)
        first.add(translations.write([translation], ())[0][namespace]["10.0.9.1"].slots[0])
    assert len(first) > 3
