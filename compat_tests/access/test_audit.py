"""The audit log: who did what with which result, and nothing secret."""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import Any

from compat_tests.support.polling import until
from compat_tests.support.users import Lab


def test_the_audit_log(shared_lab: Lab) -> None:
    log = shared_lab.engine.resources.root / "audit" / "audit.log"
    before = shared_lab.policy.read_text()

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    shared_lab.policy.write_text(f'{before}\n[audit]\nfile = "{log}"\nsize = "4k"\nfiles = 2\n')
    try:
        os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)
        assert until(log.exists)
        alice, carol = shared_lab["alice"], shared_lab["carol"]
        alice.docker("run", "--rm", "--name", "job", "-e", "TOKEN=secret", "busybox", "true")
        alice.docker("login", "-u", "me", "-p", "secret", "127.0.0.1:9", check=False)
        assert carol.docker("ps", check=False).status == 1

        assert until(lambda: any(line["user"] == "" and line["status"] == 403 for line in lines()))
        create = next(line for line in lines() if line["path"].endswith("/containers/create"))
        assert (create["user"], create["owner"], create["status"]) == (alice.name, alice.name, 201)
        assert create["query"]["name"] == "job"
        assert create["peer"] == str(alice.socket)
        assert create["uid"] == alice.credentials.uid
        assert [line for line in lines() if line["path"].endswith("/attach") and line["status"] == 101]
        assert not [line for line in lines() if line["path"].endswith("/info")]  # changes nothing
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        alice.api.post("/containers/create", data={"Image": "none"}, name="x" * 60)
        for _ in range(40):
            alice.api.delete("/containers/nothing-that-exists")
        assert until(lambda: len(list(log.parent.iterdir())) == 2)
        for path in log.parent.iterdir():
            assert b"secret" not in path.read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        shared_lab.policy.write_text(before)
        os.kill(shared_lab.engine.daemon.pid, signal.SIGHUP)
