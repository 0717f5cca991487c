"""A short run of the simulation, which is run by hand for big swarms."""

import re

import pytest

from server.swarm.store.tests import etcd_member
from server.swarm.tests import simulation


@pytest.mark.skipif(not etcd_member.installed(), reason="needs etcd")
def test_a_small_swarm(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--nodes=12", "--services=2", "--replicas=24", "--vanish=2", "--restart-delay=0"]
    simulation.main([*sizes, "--idle=1", "--seconds=30", "--assignments"])
    printed = capsys.readouterr().out
    assert "not done" not in printed
    assert "commits by heartbeats: 0" in printed
    assert len(re.findall(r"^(?:create services|  tasks are replaced|update one service) ", printed, re.MULTILINE)) == 3
