"""policy.toml: what is accepted, what is refused by name, and who gets which role."""

from pathlib import Path

import pytest

from server.access.policy import Policy, check_listeners, read_policy, valid_owner
from server.config import Config, ConfigError

SAMPLE = """
default_role = "guest"
published_images = ["docker.io/library/*"]

[administrators]
users = ["operator"]
groups = ["0"]
certificates = ["ops"]

[users]
alice = "researcher"

[groups]
1001 = "student"

[roles.guest]
[roles.student]
containers = 5
[roles.researcher]
cpus = 8.0
memory = "32g"
ports = "20000-29999"
max_run_time = "12h"
capabilities = ["SYS_PTRACE"]
"""


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return read_policy(path)


def test_values_are_read_in_their_units(tmp_path: Path) -> None:
    role = read(tmp_path, SAMPLE).roles["researcher"]
    assert (role.cpus, role.memory, role.ports, role.max_run_time) == (8.0, 32 << 30, (20000, 29999), 12 * 3600)
    assert role.capabilities == ("SYS_PTRACE",)
    assert not role.privileged
    assert role.disk is None


def test_the_users_own_role_precedes_groups_and_the_default(tmp_path: Path) -> None:
    policy = read(tmp_path, SAMPLE)
    assert policy.role_of("alice", (1001,)) is policy.roles["researcher"]
    assert policy.role_of("bob", (5, 1001)) is policy.roles["student"]
    assert policy.role_of("carol", (5,)) is policy.roles["guest"]
    assert Policy({}).role_of("carol", (5,)) is None


def test_administrators(tmp_path: Path) -> None:
    policy = read(tmp_path, SAMPLE)
    assert policy.administers("root", 0, (7,))
    assert policy.administers("operator", 1000, (7,))
    assert policy.administers("alice", 1001, (7, 0))
    assert not policy.administers("alice", 1001, (7,))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("roles.a.memory = '32x'", "roles.a.memory: Value error, invalid size: '32x'"),
        ("roles.a.ports = '2-1'", "roles.a: Value error, ports: the first port is greater than the last"),
        ("roles.a.ports = 'web'", "roles.a.ports: Value error, not a range such as 20000-29999"),
        ("roles.a.idle_limit = 'soon'", "roles.a.idle_limit: Value error, not a duration such as 90s, 30m, 12h or 7d"),
        ("roles.a.priviledged = true", "roles.a.priviledged: Extra inputs are not permitted"),
        ("roles.a.cpus = 0.0", "roles.a.cpus: Input should be greater than 0"),
        ("users.alice = 'a'", "policy: Value error, there is no role a"),
        ("default_role = 'a'", "policy: Value error, there is no role a"),
        ("users = [", "Invalid value"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as failed:
        read(tmp_path, text)
    assert str(failed.value).startswith(f"policy file {tmp_path}/policy.toml: ")
    assert sentence in str(failed.value)


def test_groups_that_the_host_lacks_are_named() -> None:
    policy = Policy({"administrators": {"groups": ("no-such-group",)}})
    assert policy.missing_groups == ["no-such-group"]
    assert not policy.administers("alice", 1000, (-1, 1000))


def test_tcp_needs_verified_certificates() -> None:
    check_listeners(Config(hosts=("unix:///run/a.sock", "fd://")))
    check_listeners(Config(hosts=("tcp://127.0.0.1:2376",), tls=True, tlsverify=True))
    for config in (Config(hosts=("tcp://127.0.0.1:2375",)), Config(hosts=("tcp://127.0.0.1:2376",), tls=True)):
        with pytest.raises(ConfigError, match="needs --tlsverify"):
            check_listeners(config)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a:b", "@a", ".a", "a b", "a" * 65])
def test_names_that_can_own_nothing(name: str) -> None:
    assert not valid_owner(name)
    assert valid_owner("alice.b-c_d+e@lab$")


def test_the_sample_is_valid() -> None:
    policy = read_policy(Path(__file__).parents[3] / "deploy" / "policy.toml")
    assert policy.roles.keys() == {"researcher", "student"}
    assert policy.publishes("docker.io/library/busybox:latest")
    assert policy.audit is not None
