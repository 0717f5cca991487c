"""IPsec's messages, and whether a kernel has ESP."""

import struct
from pathlib import Path

import pytest

from server.networks.netlink import xfrm
from server.networks.netlink.channel import Channel, Packed
from server.networks.netlink.xfrm import Association


class Kernel(Channel):
    """Keeps requests, and answers dumps with the associations that were added."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, bytes]] = []

    def run_packed(self, requests: "list[Packed]", *, ignore: int = 0) -> None:  # type: ignore[override]
        self.requests += [(kind, body) for kind, _, body in requests]

    def dump_packed(self, command: int, body: bytes) -> list[bytes]:
        assert command == 0x12
        return [body for kind, body in self.requests if kind == 0x10]


def test_the_structures_have_the_kernels_sizes() -> None:
    """Those of include/uapi/linux/xfrm.h on 64-bit machines; ip-xfrm(8) shows what they mean."""
    kernel = Kernel()
    one = Association("192.0.2.1", "192.0.2.2", 0x1234, bytes(range(20)))
    xfrm.add(kernel, [one])
    xfrm.remove(kernel, [one])
    xfrm.require_encryption(kernel, "192.0.2.1", 4790)
    xfrm.release_encryption(kernel, "192.0.2.1", 4790)
    (_, new), (_, gone), (_, inbound), _, (_, released), _ = kernel.requests
    assert [kind for kind, _ in kernel.requests] == [0x10, 0x11, 0x19, 0x19, 0x14, 0x14]
    # xfrm_usersa_info with an xfrm_algo_aead of 20 bytes' key, xfrm_usersa_id, xfrm_userpolicy_info with a template
    assert [len(each) for each in (new, gone, inbound, released)] == [224 + 4 + 72 + 20, 24, 168 + 4 + 64, 64]
    assert new[224 + 4 :].startswith(b"rfc4106(gcm(aes))\0")
    assert struct.unpack_from("=II", new, 224 + 4 + 64) == (160, 128)
    assert xfrm.associations(kernel, "192.0.2.2") == {one}
    assert xfrm.associations(kernel, "192.0.2.3") == set()


def test_keys_are_in_no_text() -> None:
    assert "key" not in repr(Association("192.0.2.1", "192.0.2.2", 1, b"key"))


@pytest.mark.parametrize(
    ("builtin", "modules", "loaded", "supported"),
    [
        ("", "kernel/net/ipv4/esp4.ko.xz: kernel/net/xfrm/xfrm_algo.ko.xz\n", False, True),
        ("kernel/net/ipv4/esp4.ko\n", "", False, True),
        ("", "kernel/net/ipv6/esp6.ko: \n", False, False),
        ("", "", True, True),
    ],
)
def test_the_lists_of_modules_decide(
    tmp_path: Path, builtin: str, modules: str, *, loaded: bool, supported: bool
) -> None:
    lists, running = tmp_path / "modules" / "6.1", tmp_path / "loaded"
    lists.mkdir(parents=True)
    (running / "esp4" if loaded else running).mkdir(parents=True)
    (lists / "modules.builtin").write_text(builtin)
    (lists / "modules.dep").write_text(modules)
    assert xfrm.supported("6.1", tmp_path / "modules", running) is supported
