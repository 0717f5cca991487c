"""`wharfd --validate`: the sentence for each mistake in the flags, the configuration file and the policy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat_tests.support.images import ROOT


@pytest.mark.parametrize(
    ("flags", "file", "words"),
    [
        (["--nosuch"], "{}", "unknown flag: --nosuch"),
        (["--mtu", "x"], "{}", 'invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["-D"], '{"debug": true}', "specified both as a flag and in the configuration file: debug: (from flag: true"),
        ([], '{"nosuch": 1}', "the following directives don't match any configuration option: nosuch"),
        ([], '{"debug": tru}', "invalid character '}' in literal true (expecting 'e')"),
        ([], '{"mtu": -1}', "command line flags failed: invalid default MTU: -1"),
        ([], '{"userns-remap": "a:b:c"}', 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ([], '{"builder": {"entitlements": {}}}', "builder.entitlements is not supported"),
        ([], '{"builder": {"gc": {"policy": [{"keepStorage": "x"}]}}}', "invalid size: 'x'"),
        (["-H", "foo://x"], "{}", "invalid bind address (foo://x): unsupported proto 'foo'"),
        ([], '{"tls": true, "tlscert": "/nosuch", "tlskey": "/nosuch"}', "X509 key pair"),
    ],
)
def test_validate_names_what_is_wrong(tmp_path: Path, flags: list[str], file: str, words: str) -> None:
    done = validated(tmp_path, flags, file)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("", "configuration OK"),
        ('[users]\nalice = "member"', "policy.toml: policy: Value error, there is no role member (users.alice)"),
        ("[roles.member]\nmemroy = 1", "policy.toml: roles.member.memroy: Extra inputs are not permitted"),
        ("[roles", "policy.toml: "),
    ],
)
def test_validate_names_what_is_wrong_in_the_policy(tmp_path: Path, policy: str, words: str) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    done = validated(tmp_path, ["--policy-file", str(tmp_path / "policy.toml")], "{}")
    assert done.returncode == (words != "configuration OK")
    assert words in done.stdout + done.stderr


def validated(folder: Path, flags: list[str], file: str) -> subprocess.CompletedProcess[str]:
    """Run ``wharfd --validate`` with this text as its configuration file."""
    (folder / "daemon.json").write_text(file)
    argv = [sys.executable, "-m", "server", "--validate", "--config-file", str(folder / "daemon.json"), *flags]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
