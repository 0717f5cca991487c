"""What the containers of a user may not do to the host, to the engine and to other users."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat_tests.support.host.exchanging import exchanging
from compat_tests.support.users import Lab, User, lab


def refused(user: User, *args: str) -> str:
    """The daemon's sentence for a ``docker run`` that it refuses."""
    failed = user.docker("run", "--rm", *args, "busybox", "true", check=False)
    assert failed.status in (125, 126), failed.stderr
    return failed.stderr.rpartition("docker: Error response from daemon: ")[2].split("\n")[0].rstrip(".")


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
    sentence = refused(shared_lab["alice"], *args)
    assert sentence.startswith(f"your role does not allow {what}"), sentence


def test_an_exec_is_not_privileged(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    alice.docker("run", "-d", "--name", "exec", "busybox", "sleep", "600")
    failed = alice.docker("exec", "--privileged", "exec", "true", check=False)
    assert "your role does not allow --privileged" in failed.stderr
    alice.docker("rm", "-f", "exec")


# root inside is not root outside


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
        sentence = refused(frank, "--user", "0")
        assert sentence == f"your role does not allow --user 0: it runs containers as the user {':'.join(own)}"


def test_a_user_of_the_image(shared_lab: Lab) -> None:
    script = "id -u; echo x > /tmp/x; echo y > /dev/null; cat /tmp/x"
    out = shared_lab["alice"].docker("run", "--rm", "--user", "65534", "-w", "/new/dir", "busybox", "sh", "-c", script)
    assert out.stdout == "65534\nx\n"


# volumes


def set_id(user: User, source: str) -> None:
    """Make a set-id program of the container's root, ``su``, on a volume or a bind."""
    script = "cp /bin/busybox /x/su && chmod 4755 /x/su"
    user.docker("run", "--rm", "-v", f"{source}:/x", "busybox", "sh", "-c", script)


def test_a_set_id_program_on_a_volume(shared_lab: Lab) -> None:
    """It belongs to the host's root on disk: nobody may reach it there. In a container it is the user's."""
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    set_id(alice, "programs")
    point = Path(alice.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "programs").stdout.strip())
    info = (point / "su").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (0, 0o4755)
    for user in (alice, bob):
        failed = user.run("sh", "-c", f"{point}/su id", check=False)
        assert "ermission denied" in failed.stderr
    inside = alice.docker("run", "--rm", "-v", "programs:/x", "busybox", "ls", "-ln", "/x/su").stdout.split()
    assert (inside[0], inside[2]) == ("-rwsr-xr-x", "0")
    alice.docker("volume", "rm", "programs")


def test_a_set_id_program_on_a_bind(shared_lab: Lab) -> None:
    """It belongs to the user, as one that the user makes on the host."""
    alice = shared_lab["alice"]
    set_id(alice, f"{alice.home}/programs")
    assert (alice.home / "programs" / "su").stat().st_uid == alice.credentials.uid
    # A set-id program of the host's root has no effect: its owner does not exist in the container.
    out = alice.docker(
        "run",
        "--rm",
        "-u",
        "65534",
        "-v",
        "/usr/bin:/host",
        "busybox",
        "sh",
        "-c",
        "ls -ln /host/su | cut -c1-10; id -u",
    )
    assert out.stdout.endswith("65534\n")


def test_a_device_node_can_not_be_made(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    failed = alice.docker(
        "run", "--rm", "-v", f"{alice.home}:/home", "busybox", "mknod", "/home/disk", "b", "8", "0", check=False
    )
    assert "Operation not permitted" in failed.stderr


# binds


def test_files_on_a_bind_belong_to_the_user(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    run = alice.home / "run"
    script = "mkdir /run/d && touch /run/f /run/g && chown 5:5 /run/g && ls -ln /run"
    alice.docker("run", "--rm", "-v", f"{run}:/run", "busybox", "sh", "-c", script)
    for path in (run, run / "d", run / "f"):
        info = path.stat()
        assert (info.st_uid, info.st_gid) == (alice.credentials.uid, alice.credentials.gid)
    other = (run / "g").stat()
    assert other.st_uid not in (5, 0, alice.credentials.uid)
    alice.run("rm", str(run / "f"), str(run / "g"))


def test_a_container_with_the_users_own_id(shared_lab: Lab) -> None:
    """``-u $(id -u):$(id -g)``, as in many Makefiles: the id is the same inside and outside."""
    alice = shared_lab["alice"]
    own = f"{alice.credentials.uid}:{alice.credentials.gid}"
    where = alice.home / "own"
    script = "id -u; id -g; touch /x/f; ls -ln /x/f"
    out = alice.docker("run", "--rm", "-u", own, "-v", f"{where}:/x", "busybox", "sh", "-c", script).stdout.split()
    assert ":".join(out[:2]) == ":".join(out[4:6]) == own
    info = (where / "f").stat()
    assert f"{info.st_uid}:{info.st_gid}" == own
    binds = ("-u", own, "-v", f"{alice.home}:/home", "-v", "/etc:/x")
    alice.docker("run", "-d", "--name", "own", *binds, "busybox", "sleep", "600")
    alice.docker("cp", str(where / "f"), "own:/home/copied")
    assert (alice.home / "copied").stat().st_uid == alice.credentials.uid
    assert alice.docker("cp", "own:/x/shadow", ".", check=False).status != 0
    # A container that joins its namespaces has its user namespace.
    script = "touch /y; ls -ln /y; cat /proc/self/uid_map"
    for runtime in ("crun", "runc"):
        joined = alice.docker(
            "run", "--rm", "--runtime", runtime, "--network", "container:own", "busybox", "sh", "-c", script
        ).stdout.split("\n")
        assert joined[0].split()[2:4] == ["0", "0"]
        assert joined[2].split() == [str(alice.credentials.uid)] * 2 + ["1"]
    # As root, ids are others: root is the user, and the user's own id is a subordinate one.
    shown = alice.docker("run", "--rm", "-v", f"{where}:/x", "busybox", "ls", "-ln", "/x/f").stdout.split()
    assert shown[2:4] == ["0", "0"]
    alice.docker("rm", "-f", "own")


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file of root in a directory that everybody may enter."""
    directory = Path(f"/var/tmp/wharf-secret-{os.getpid()}")
    directory.mkdir(mode=0o755)
    found = directory / "secret"
    found.write_text("the secret")
    found.chmod(0o600)
    yield found
    found.unlink()
    directory.rmdir()


def read(user: User, *args: str) -> str:
    done = user.docker("run", "--rm", *args, "busybox", "sh", "-c", "cat /x /x/* 2>&1; true", check=False)
    return done.stdout + done.stderr


def test_files_of_others_are_not_read(shared_lab: Lab, secret: Path) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    (bob.home / "private").write_text("the secret of bob")
    (bob.home / "private").chmod(0o644)
    inaccessible = (str(bob.home / "private"), "/root/.profile", f"{shared_lab.engine.resources.root}/data/wharf.db")
    for path in inaccessible:
        assert "ermission denied" in read(alice, "-v", f"{path}:/x")
        assert "bind source path does not exist" in read(alice, "--mount", f"type=bind,src={path},dst=/x")
    # Reached by path, but not readable.
    for path in (str(secret), str(secret.parent), "/etc/shadow"):
        out = read(alice, "-v", f"{path}:/x")
        assert "Permission denied" in out
        assert "secret\n" not in out
    data = shared_lab.engine.resources.root / "data"
    script = f"cat /x/{secret} /x/etc/shadow /x{bob.home}/private; ls /x/root /x{data} /x/proc"
    done = alice.docker("run", "--rm", "-v", "/:/x", "busybox", "sh", "-c", script, check=False)
    assert "secret" not in done.stdout
    assert "wharf.db" not in done.stdout
    assert done.stderr.count("ermission denied") == 5


def test_files_of_others_are_not_written(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    for script in ("echo x > /x/new", "rm /x/hostname", "echo x >> /x/passwd", "chmod 666 /x/shadow"):
        done = alice.docker("run", "--rm", "-v", "/etc:/x", "busybox", "sh", "-c", script, check=False)
        assert done.status != 0
    # Runtimes make the destinations of mounts.
    assert refused(alice, "-v", "/etc:/x", "-v", "volume:/x/new")
    alice.docker("volume", "rm", "volume")
    assert not Path("/etc/new").exists()
    assert "ermission denied" in refused(alice, "-v", "/etc/new:/x")
    assert not Path("/etc/new").exists()


def test_docker_cp_has_the_users_rights(shared_lab: Lab, secret: Path) -> None:
    """The engine copies files for the user: it must not be the host's root where a bind leads to the host's files."""
    alice = shared_lab["alice"]
    (alice.home / "mine").write_text("own")
    binds = ("-v", "/etc:/x", "-v", f"{secret.parent}:/y", "-v", f"{alice.home}:/home", "-v", "/:/all")
    for command in (("create",), ("run", "-d")):
        alice.docker(*command, "--name", "copies", *binds, "busybox", "sleep", "600")
        for source, target in (
            ("copies:/x/shadow", "."),
            ("copies:/y/secret", "."),
            (f"copies:/all/{secret}", "."),
            ("copies:/all/proc/self/maps", "."),
            ("mine", "copies:/x/new"),
            ("mine", "copies:/y/secret"),
        ):
            failed = alice.docker("cp", source, target, check=False)
            assert failed.status != 0, (command, source)
        alice.docker("cp", "mine", "copies:/home/copied")
        alice.docker("cp", "mine", "copies:/root/copied")
        alice.docker("cp", "copies:/root/copied", "back")
        assert (alice.home / "copied").stat().st_uid == alice.credentials.uid
        assert (alice.home / "back").read_text() == "own"
        alice.docker("rm", "-f", "copies")
    assert secret.read_text() == "the secret"
    assert not Path("/etc/new").exists()


def test_users_of_a_container_are_not_looked_up_in_files_of_others(shared_lab: Lab, secret: Path) -> None:
    alice = shared_lab["alice"]
    secret.write_text("spy:x:4242:4242::/:\n")
    alice.docker("run", "-d", "--name", "spy", "-v", f"{secret}:/etc/passwd", "busybox", "sleep", "600")
    failed = alice.docker("exec", "-u", "spy", "spy", "id", check=False)
    assert failed.status != 0
    assert "4242" not in failed.stdout
    alice.docker("rm", "-f", "spy")


@pytest.mark.parametrize(
    "path",
    ["/proc", "/proc/self", "/proc/1/root", "/proc/self/root", "/proc/self/fd/3", "/proc/thread-self/cwd", "/dev/fd"],
)
def test_proc_is_not_mounted(shared_lab: Lab, path: str) -> None:
    failed = shared_lab["alice"].docker("run", "--rm", "-v", f"{path}:/x", "busybox", "ls", "/x", check=False)
    assert failed.status in (125, 126)
    assert "proc file system" in failed.stderr or "magic link" in failed.stderr or "ermission denied" in failed.stderr


def test_sockets_of_the_engine(shared_lab: Lab) -> None:
    """The users' socket may be mounted; the administrators' one lets nobody in."""
    alice = shared_lab["alice"]
    engine = shared_lab.engine
    for path in (engine.resources.socket, f"{engine.resources.root}/run/containerd/containerd.sock"):
        script = "echo -e 'GET /_ping HTTP/1.0\\r\\n\\r' | nc local:/x"
        done = alice.docker("run", "--rm", "-v", f"{path}:/x", "busybox", "sh", "-c", script, check=False)
        assert "200 OK" not in done.stdout


def test_exchanged_paths(shared_lab: Lab, secret: Path) -> None:
    """A path that alternates between the user's file and a link to another's: the kernel decides at each step with the
    rights of the user, and the engine mounts what it has opened."""
    alice = shared_lab["alice"]
    own, link = alice.home / "swap", alice.home / "link"
    own.mkdir()
    (own / "secret").write_text("own")
    link.symlink_to("/root")
    os.chown(own, alice.credentials.uid, alice.credentials.gid)
    with exchanging(own, link):
        for _ in range(15):
            out = read(alice, "-v", f"{own}:/x")
            assert "own" in out or "ermission denied" in out
            assert ".bashrc" not in out
            assert "the secret" not in out


def test_the_bind_is_opened_again_at_each_start(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    path = alice.home / "later"
    path.mkdir()
    os.chown(path, alice.credentials.uid, alice.credentials.gid)
    alice.docker("create", "--name", "later", "-v", f"{path}:/x", "busybox", "ls", "/x")
    alice.docker("start", "-a", "later")
    path.rmdir()
    path.symlink_to("/root/nothing")
    failed = alice.docker("start", "-a", "later", check=False)
    assert failed.status != 0
    assert "ermission denied" in failed.stderr
    alice.docker("rm", "later")


def test_the_engine_closes_its_directories(shared_lab: Lab) -> None:
    """Idmapped mounts of the data root, mounted root file systems, layers: a user of the host enters none of them."""
    alice = shared_lab["alice"]
    id = alice.docker("run", "-d", "busybox", "sleep", "600").stdout.strip()
    root = shared_lab.engine.resources.root
    for path in (
        f"{root}/run/owners/{alice.name}",
        f"{root}/run/containers/{id}",
        f"{root}/data/volumes/@{alice.name}",
    ):
        if os.path.exists(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    for path in (f"{root}/run/owners/{alice.name}/0.0/0/wharf.db", f"{root}/data/containers/{id}"):
        failed = alice.run("cat", path, check=False)
        assert "ermission denied" in failed.stderr
    alice.docker("rm", "-f", id)


# volumes of two users


def test_two_users_have_a_volume_of_the_same_name(shared_lab: Lab) -> None:
    alice, bob = shared_lab["alice"], shared_lab["bob"]
    for user in (alice, bob):
        user.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", f"echo {user.name} > /data/who")
    for user in (alice, bob):
        assert user.docker("volume", "ls", "-q").stdout == "data\n"
        shown = user.docker("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/who").stdout
        assert shown == f"{user.name}\n"
    rows = json.loads(shared_lab.engine.docker("volume", "inspect", f"@{alice.name}/data").stdout)
    assert rows[0]["Labels"]["io.wharf.owner"] == alice.name
    failed = bob.docker("volume", "rm", f"@{alice.name}/data", check=False)
    assert "no such volume" in failed.stderr
    for user in (alice, bob):
        user.docker("volume", "rm", "data")


def test_the_files_of_an_image_fill_a_volume(shared_lab: Lab) -> None:
    alice = shared_lab["alice"]
    out = alice.docker("run", "--rm", "-v", "etc:/etc", "busybox", "ls", "-ln", "/etc/passwd").stdout
    assert out.split()[2:4] == ["0", "0"]
    alice.docker("volume", "rm", "etc")


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
