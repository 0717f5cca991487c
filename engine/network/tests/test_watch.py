"""The news that somebody changed this host's rules."""

import asyncio
import subprocess

import pytest
import uvloop

from engine.network.tests.space import WAIT, own_namespace
from engine.network.watch import RulesetWatch

pytestmark = pytest.mark.root


def test_news_of_a_firewall_loaded_anew_is_told_each_time() -> None:
    """What it announces is far more than the socket holds, and the loop is wharfd's."""
    rule = 'add rule ip big c ip saddr 192.0.2.1 counter accept comment "many of them"\n'
    text = "add table ip big\nflush table ip big\nadd chain ip big c\n" + rule * 2000

    async def play() -> None:
        told = asyncio.Event()
        watch = RulesetWatch(told.set)
        try:
            for _ in range(3):
                told.clear()
                subprocess.run(["nft", "-f", "-"], input=text, text=True, timeout=WAIT, check=True)  # noqa: ASYNC221
                await asyncio.wait_for(told.wait(), WAIT)
        finally:
            watch.close()

    with own_namespace():
        uvloop.run(play())
