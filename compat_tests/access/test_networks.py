"""Networks of several owners: the same names, and no packets between networks of different owners."""

from __future__ import annotations

from ipaddress import IPv4Network

from compat_tests.support.users import Lab, User


def address(user: User, name: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return user.docker("inspect", "-f", form, name).stdout.strip()


def serve(user: User, name: str, *words: str) -> None:
    """Run a container that answers with the user's name on TCP port 80."""
    script = f"echo {user.name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    user.docker("run", "-d", "--name", name, *words, "busybox", "sh", "-c", script)


def asked(user: User, where: str, *words: str, tries: int = 5) -> str:
    """The answer that a new container of the user gets, "" for none. ``tries``: the server may still be starting."""
    script = f"for i in $(seq {tries}); do wget -q -T 1 -O - http://{where}/ && exit; sleep 0.2; done"
    return user.docker("run", "--rm", *words, "busybox", "sh", "-c", script, check=False).stdout.strip()


def test_the_default_bridges_of_two_users_are_isolated(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    serve(alice, "web")
    serve(bob, "web")
    assert asked(alice, address(alice, "web")) == alice.name
    assert asked(bob, address(bob, "web")) == bob.name
    assert asked(bob, address(alice, "web"), tries=1) == ""  # alice's server has answered above
    for user in (alice, bob):
        user.docker("rm", "-f", "web")


def test_networks_of_one_name(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    for user in (alice, bob):
        user.docker("network", "create", "net")
        serve(user, "web", "--network", "net")
    assert asked(alice, "web", "--network", "net") == alice.name
    assert asked(bob, "web", "--network", "net") == bob.name
    id = alice.docker("network", "inspect", "-f", "{{.Id}}", "net").stdout.strip()
    for words in (("inspect", id), ("connect", id, "web"), ("rm", id)):
        failed = bob.docker("network", *words, check=False)
        assert failed.status != 0
        assert f"network {id} not found" in failed.stderr
    assert bob.docker("run", "--rm", "--network", id, "busybox", check=False).status != 0
    for user in (alice, bob):
        names = user.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
        assert sorted(names) == ["bridge", "host", "net", "none"]
        user.docker("rm", "-f", "web")
    assert bob.docker("network", "prune", "-f").stdout.split()[2:] == ["net"]
    assert "net" in alice.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    alice.docker("network", "rm", "net")


def test_networks_survive_a_restart(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    serve(alice, "web")
    before = alice.docker("network", "inspect", "bridge").stdout
    shared_lab.engine.restart()
    assert alice.docker("network", "inspect", "bridge").stdout == before
    assert asked(alice, address(alice, "web")) == alice.name
    alice.docker("rm", "-f", "web")


def test_subnets_of_the_host_are_refused(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    subnet = shared_lab.engine.docker(
        "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge"
    ).stdout.strip()
    shared_lab.engine.docker("run", "-d", "--name", "up", "busybox", "sleep", "600")
    failed = alice.docker("network", "create", "--subnet", subnet, "net", check=False)
    assert f"your role does not allow the subnet {subnet}: the host has a route to {subnet}" in failed.stderr
    shared_lab.engine.docker("rm", "-f", "up")


def test_a_subnet_is_free_after_the_network_is_removed(shared_lab: Lab) -> None:
    """The removal of the bridge, to which the host has a route, goes on after the answer."""
    alice, base = shared_lab["alice"], shared_lab.engine.resources.pool.split(",")[0].removeprefix("base=")
    *_, last = IPv4Network(base).subnets(new_prefix=28)
    body = {"Name": "again", "IPAM": {"Config": [{"Subnet": str(last)}]}}
    for _ in range(10):
        created = alice.api.post("/networks/create", body)
        assert created.status == 201, created.body
        assert alice.api.delete("/networks/again").status == 204
