"""What the containers of a user may not ask for, and whose ids they have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from compat_tests.support.images import busybox_archive
from compat_tests.support.users import Lab, lab


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--privileged"], "--privileged"),
        (["--network", "host"], "--network host"),
        (["--pid", "host"], "--pid host"),
        (["--ipc", "host"], "--ipc host"),
        (["--uts", "host"], "--uts host"),
        (["--userns", "host"], "--userns host"),
        (["--device", "/dev/kmsg"], "--device /dev/kmsg"),
        (["--device-cgroup-rule", "a *:* rwm"], "--device-cgroup-rule a *:* rwm"),
        (["--cgroup-parent", "/elsewhere"], "--cgroup-parent /elsewhere"),
        (["--cap-add", "SYS_ADMIN"], "--cap-add SYS_ADMIN"),
        (["--cap-add", "ALL"], "--cap-add ALL"),
        (["--security-opt", "seccomp=unconfined"], "--security-opt seccomp=unconfined"),
        (["--security-opt", "apparmor=unconfined"], "--security-opt apparmor=unconfined"),
        (
            ["--security-opt", "systempaths=unconfined"],
            "--security-opt systempaths=unconfined (MaskedPaths without /proc/",
        ),
        (["--annotation", "run.oci.hooks.stdout=/etc/passwd"], "--annotation run.oci.hooks.stdout"),
        (["--oom-score-adj", "-500"], "--oom-score-adj -500"),
        (["--oom-kill-disable"], "--oom-kill-disable"),
        (["--ulimit", "nofile=99999999"], "--ulimit nofile=99999999:99999999: the engine's is "),
        (["-p", "80:80"], "--publish of the host port 80: its ports are 1024-65535"),
        (["-v", "/tmp:/x:shared"], "the propagation shared of the bind of /tmp"),
        (
            ["--mount", "type=bind,src=/tmp,dst=/x,bind-propagation=rslave"],
            "the propagation rslave of the bind of /tmp",
        ),
        (
            ["--mount", "type=volume,src=v,dst=/x,volume-opt=type=none,volume-opt=device=/etc,volume-opt=o=bind"],
            "the volume option device=/etc",
        ),
        (["--volume-driver", "rexray", "-v", "v:/x"], "the volume driver rexray: it is a plugin's"),
        (["--runtime", "io.containerd.kata.v2"], "--runtime io.containerd.kata.v2"),
    ],
    ids=lambda value: value[0].removeprefix("--") if isinstance(value, list) else "",
)
def test_options_that_a_role_refuses(shared_lab: Lab, args: list[str], what: str) -> None:
    sentence = shared_lab["alice"].refused_run(*args)
    assert sentence.startswith(f"your role does not allow {what}"), sentence


def test_an_exec_is_not_privileged(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    alice.docker("run", "-d", "--name", "exec", "busybox", "sleep", "600")
    failed = alice.docker("exec", "--privileged", "exec", "true", check=False)
    assert "your role does not allow --privileged" in failed.stderr
    alice.docker("rm", "-f", "exec")


def test_root_is_the_user_outside(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    maps = {}
    for user in (alice, bob):
        id = user.docker("run", "-d", "--name", "map", "busybox", "sleep", "600").stdout.strip()
        pid = user.docker("inspect", "-f", "{{.State.Pid}}", id).stdout.strip()
        assert os.stat(f"/proc/{pid}").st_uid == user.credentials.uid
        lines = Path(f"/proc/{pid}/uid_map").read_text().split("\n")[:-1]
        maps[user.name] = [tuple(map(int, line.split())) for line in lines]
        assert maps[user.name][0] == (0, user.credentials.uid, 1)
        user.docker("rm", "-f", id)
    (_, first, count), (_, other, _) = maps[alice.name][1], maps[bob.name][1]
    assert not first <= other < first + count
    administrators = shared_lab.engine.docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").stdout.split()
    assert administrators[:2] == ["0", "0"]


def test_nothing_is_copied_or_changed(shared_lab: Lab) -> None:
    """The layers have the ids of the container on disk: a commit has no ids of the host."""
    alice = shared_lab["alice"]
    script = "id; touch /mine; touch /theirs; chown 65534:65534 /theirs; ls -ln /mine /theirs /bin/busybox"
    alice.docker("run", "--name", "ids", "busybox", "sh", "-c", script)
    archive = alice.home / "ids.tar"
    alice.docker("export", "-o", str(archive), "ids")
    listed = alice.run("tar", "--numeric-owner", "-tvf", str(archive), "mine", "theirs").stdout.splitlines()
    assert [line.split()[1] for line in listed] == ["0/0", "65534/65534"]
    alice.docker("rm", "ids")


def test_a_build_step_is_confined(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    context = alice.home / "context"
    context.mkdir(exist_ok=True)
    text = "FROM busybox\nRUN cat /proc/self/uid_map > /map; touch /x; chown 5:5 /x\nRUN ls -ln /x > /y\n"
    (context / "Dockerfile").write_text(text)
    alice.docker("build", "-q", "-t", "confined", "context")
    out = alice.docker("run", "--rm", "confined", "cat", "/map", "/y").stdout.split("\n")
    assert out[0].split() == ["0", str(alice.credentials.uid), "1"]
    assert out[2].split()[2:4] == ["5", "5"]
    alice.docker("rmi", "confined")


def test_a_forced_user() -> None:
    policy = 'published_images = ["docker.io/library/busybox:*"]\ndefault_role = "forced"\n'
    with lab("forced", policy + "[roles.forced]\nforce_user = true\n", ("frank",)) as made:
        frank = made["frank"]
        own = [str(frank.credentials.uid), str(frank.credentials.gid)]
        script = "id -u; id -g; touch /home/forced"
        out = frank.docker("run", "--rm", "-v", f"{frank.home}:/home", "busybox", "sh", "-c", script).stdout
        assert out.split() == own
        assert (frank.home / "forced").stat().st_uid == frank.credentials.uid
        sentence = frank.refused_run("--user", "0")
        assert sentence == f"your role does not allow --user 0: it runs containers as the user {':'.join(own)}"


def test_a_user_of_the_image(shared_lab: Lab) -> None:
    script = "id -u; echo x > /tmp/x; echo y > /dev/null; cat /tmp/x"
    out = shared_lab["alice"].docker("run", "--rm", "--user", "65534", "-w", "/new/dir", "busybox", "sh", "-c", script)
    assert out.stdout == "65534\nx\n"


def test_the_engine_closes_its_directories(shared_lab: Lab) -> None:
    """No user of the host can enter idmapped mounts of the data root, directories of containers, or volumes."""
    alice = shared_lab["alice"]
    id = alice.docker("run", "-d", "-v", "closed:/data", "busybox", "sleep", "600").stdout.strip()
    root = shared_lab.engine.resources.root
    for path in (
        f"{root}/run/owners/{alice.name}",
        f"{root}/run/containers/{id}",
        f"{root}/data/volumes/@{alice.name}",
    ):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700, path
    for path in (f"{root}/run/owners/{alice.name}/0.0/0/wharf.db", f"{root}/data/containers/{id}"):
        failed = alice.run("cat", path, check=False)
        assert "ermission denied" in failed.stderr
    alice.docker("rm", "-f", id)
    alice.docker("volume", "rm", "closed")


def test_the_owner_of_a_container_stays_after_a_restart(shared_lab: Lab) -> None:
    """A container that runs over a restart of the daemon keeps its user namespace; a new one has the same ids."""
    alice = shared_lab["alice"]
    alice.docker("run", "-d", "--name", "over", "-v", "over:/data", "busybox", "sleep", "600")
    shared_lab.engine.restart()
    alice.docker("exec", "over", "touch", "/data/after")
    alice.docker("restart", "-t", "0", "over")
    assert alice.docker("exec", "over", "ls", "-ln", "/data/after").stdout.split()[2] == "0"
    alice.docker("rm", "-f", "over")
    alice.docker("volume", "rm", "over")


def test_names_of_a_container(shared_lab: Lab) -> None:
    """In a user namespace the domain name can't be written to ``/proc/sys``."""
    options = ("--runtime", "crun", "--hostname", "box", "--domainname", "lab.example")
    script = "hostname; cat /proc/sys/kernel/domainname"
    shown = shared_lab["alice"].docker("run", "--rm", *options, "busybox", "sh", "-c", script)
    assert shown.stdout.split() == ["box", "lab.example"]


def test_a_killed_daemon_leaves_no_mounts_of_users() -> None:
    """The clean stop of the next daemon unmounts those that the killed one made; ``lab`` checks it."""
    with lab("killed", '[users]\n{alice} = "member"\n\n[roles.member]\n', ("alice",)) as made:
        alice = made["alice"]
        alice.run("sh", "-c", "cat > image", input=busybox_archive())
        alice.docker("load", "-q", "-i", "image")
        alice.docker("run", "-d", "--name", "ended", "busybox", "sleep", "600")
        made.engine.kill("wharfd")
        made.engine.start()
        alice.docker("rm", "-f", "ended")
