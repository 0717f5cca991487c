"""Our rules among others: programs that remove them, an administrator's own, and firewalls that drop unknown
traffic."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from server.networks.netlink import netns
from server.networks.netlink.tests.space import ask, refused, until
from server.networks.tests.lan import HOST, OUTSIDE, lan, nft, scenario
from server.networks.tests.test_traffic import bindings, echoes
from server.networks.tests.world import World, opened

pytestmark = pytest.mark.root
Play = Callable[[World, str], Awaitable[None]]


async def restored(condition: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(until, condition)


def _flush() -> None:
    nft("flush ruleset\n")


def _delete_table() -> None:
    nft("delete table inet wharf-wt0\n")


def _flush_chains() -> None:
    nft("flush chain inet wharf-wt0 forward\nflush chain inet wharf-wt0 publish\n")


@pytest.mark.parametrize("harm", [_flush, _delete_table, _flush_chains])
@pytest.mark.parametrize("cure", ["reload", "next use", "time"])
def test_rules_are_restored(tmp_path: Path, harm: Callable[[], None], cure: str) -> None:
    async def body(world: World, outside: str) -> None:
        _, web = await world.run("web", PortBindings=bindings("8080:80"))
        with echoes((web, "web", 80)):
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"
            harm()
            if cure == "reload":
                await world.networks.restore()
            elif cure == "next use":
                await world.run("another")
            else:
                firewall = world.networks.context.firewall
                await restored(lambda: not firewall.changed and firewall.intact())
            assert ask(HOST, 8080, path=outside) == f"web {OUTSIDE}"

    scenario(tmp_path, body)


def test_an_administrators_rules_precede_ours(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        web, path = await world.run("web", PortBindings=bindings("8080:80"))
        with echoes((path, "web", 80)):
            nft(f"add rule inet wharf-wt0 wharf-user ip saddr {OUTSIDE} drop\n")
            assert refused(HOST, 8080, path=outside)
            await world.run("another", PortBindings=bindings("8081:80"))
            _flush_chains()
            await world.networks.restore()
            assert refused(HOST, 8080, path=outside)
            assert ask(HOST, 8080).startswith("web")
            nft("flush chain inet wharf-wt0 wharf-user\n")
            assert ask(HOST, 8080, path=outside).startswith("web")
        await world.stop(web)

    scenario(tmp_path, body)


def test_an_admins_rules_outlive_the_engine(tmp_path: Path) -> None:
    rule = f"ip saddr {OUTSIDE} ct state new oifname @bridges drop"

    async def first(world: World, outside: str) -> None:
        nft(f"add rule inet wharf-wt0 wharf-user {rule}\n")
        await world.run("web", PortBindings=bindings("8080:80"))

    async def second(world: World, outside: str) -> None:
        assert rule in world.networks.context.firewall.dump()
        _, path = await world.run("web", PortBindings=bindings("8080:80"))
        with echoes((path, "web", 80)):
            assert refused(HOST, 8080, path=outside)
            assert ask(HOST, 8080).startswith("web")

    with lan(tmp_path) as outside:
        for number, body in enumerate((first, second)):

            async def run(body: Play = body, root: Path = tmp_path / str(number)) -> None:
                async with opened(root) as world:
                    await body(world, outside)

            asyncio.run(run())
            dump = nft("list ruleset\n")
            assert rule in dump
            assert "accept\n" not in dump
            assert "elements" not in dump


def test_another_firewall_with_a_drop_policy(tmp_path: Path) -> None:
    """As on a host with ufw, or where dockerd has set the FORWARD policy."""
    foreign = """
table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		drop
	}
}
"""

    async def body(world: World, outside: str) -> None:
        _, web = await world.run("web", PortBindings=bindings("8080:80"))
        with echoes((web, "web", 80), (outside, "out", 80)):
            assert ask(HOST, 8080, path=outside).startswith("web")
            assert ask(OUTSIDE, 80, path=web).startswith("out")
            # reloading that firewall removes the rules that accept our bridges
            nft("flush chain ip filter FORWARD\n")
            await restored(lambda: nft("list chain ip filter FORWARD\n").count("wharf-wt0") == 2)
            assert ask(HOST, 8080, path=outside).startswith("web")

    with lan(tmp_path) as outside:
        nft(foreign)
        before = nft("list ruleset\n")

        async def run() -> None:
            async with opened(tmp_path) as world:
                await body(world, outside)

        asyncio.run(run())
        assert nft("list ruleset\n") == before


def test_enabled_forwarding_does_not_make_a_router(tmp_path: Path) -> None:
    async def body(world: World, outside: str) -> None:
        assert netns.sysctl("net.ipv4.ip_forward") == "1"
        assert 'meta iifkind != "bridge"' in world.networks.context.firewall.dump()

    scenario(tmp_path, body)
