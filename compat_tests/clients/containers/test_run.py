"""`docker run`: output, exit codes, the process's environment, errors in dockerd's words."""

from __future__ import annotations

import concurrent.futures

import pytest

from compat_tests.fields.matrix import honours
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until

pytestmark = pytest.mark.core

RUN = ("run", "--rm", "--network", "none")


def test_output_and_exit_code(engine: Engine) -> None:
    assert engine.docker(*RUN, "busybox", "echo", "hi").stdout == "hi\n"
    done = engine.docker(*RUN, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert (
        engine.docker(*RUN, "busybox", "sh", "-c", "trap 'exit 9' TERM; kill -TERM 1 & wait", check=False).status == 9
    )


@honours("Config.OpenStdin", "Config.StdinOnce")
def test_stdin_and_end_of_input(engine: Engine) -> None:
    text = "".join(f"line {number}\n" for number in range(5000))
    assert engine.docker(*RUN, "-i", "busybox", "cat", input=text).stdout == text
    assert engine.docker(*RUN, "-i", "busybox", "wc", "-l", input=text).stdout.strip() == "5000"


def test_burst_of_output_is_complete(engine: Engine) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done"
    for _ in range(3):
        assert engine.docker(*RUN, "busybox", "sh", "-c", script).stdout.split() == [str(i) for i in range(3000)]


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("nosuchprogram",), 127, '"nosuchprogram": executable file not found in $PATH'),
        (("/etc",), 126, "permission denied"),
        (("/etc/passwd",), 126, "permission denied"),
        (("/no/such",), 127, "no such file or directory"),
    ],
)
def test_exit_code_of_a_command_that_cannot_run(engine: Engine, argv: tuple[str, ...], status: int, words: str) -> None:
    done = engine.docker(*RUN, "busybox", *argv, check=False)
    assert done.status == status, done.output
    assert "failed to create task for container: failed to create shim task: OCI runtime create failed" in done.stderr
    assert words in done.stderr


@honours("Config.Image")
def test_a_missing_image_and_a_bad_option(engine: Engine) -> None:
    done = engine.docker("run", "--pull", "never", "--rm", "nosuchimage", "true", check=False)
    assert done.status == 125
    assert "No such image: nosuchimage:latest" in done.stderr
    done = engine.docker("run", "--rm", "--memory", "1m", "busybox", "true", check=False)
    assert done.status == 125
    assert "Minimum memory limit allowed is 6MB" in done.stderr


@honours(
    "Config.Hostname", "Config.User", "Config.Env", "Config.WorkingDir", "HostConfig.Ulimits", "HostConfig.OomScoreAdj"
)
def test_environment_of_the_process(engine: Engine) -> None:
    script = "id -u; id -g; pwd; hostname; echo $HOSTNAME $A $HOME; tty; cat /proc/self/oom_score_adj; ulimit -n"
    done = engine.docker(
        *(*RUN, "-u", "12:34", "-w", "/made/here", "-h", "somename", "-e", "A=b c", "--oom-score-adj", "77"),
        *("--ulimit", "nofile=123:456", "busybox", "sh", "-c", script),
    )
    lines = done.stdout.splitlines()
    assert lines[:5] == ["12", "34", "/made/here", "somename", "somename b c /"]
    assert lines[5:] == ["not a tty", "77", "123"]


@honours("Config.Cmd", "Config.Entrypoint")
def test_entrypoint_and_command(engine: Engine) -> None:
    assert engine.docker(*RUN, "--entrypoint", "echo", "busybox", "a", "b").stdout == "a b\n"
    done = engine.docker(*RUN, "--entrypoint", "", "busybox", check=False)
    assert done.status == 125
    assert "no command specified" in done.stderr


@honours("Config.Tty")
def test_terminal_of_a_container(engine: Engine) -> None:
    # Without a terminal, the CLI requests one in the container only if stdin is not attached.
    name = engine.docker("run", "-d", "-t", "--network", "none", "busybox", "sh", "-c", "tty; stty size").stdout.strip()
    try:
        assert engine.docker("wait", name).stdout.strip() == "0"
        assert engine.docker("logs", name).stdout.splitlines()[0] == "/dev/pts/0"
    finally:
        engine.docker("rm", "-f", name)


@honours("HostConfig.Init")
def test_init_reaps_and_forwards(engine: Engine) -> None:
    done = engine.docker(*RUN, "--init", "busybox", "sh", "-c", "cat /proc/1/comm; exit 3", check=False)
    assert (done.status, done.stdout.strip()) == (3, "docker-init")


@honours("HostConfig.CapAdd", "HostConfig.CapDrop", "HostConfig.SecurityOpt")
def test_security_of_an_ordinary_container(engine: Engine) -> None:
    script = (
        "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; echo x > /proc/sys/kernel/hostname || echo refused"
    )
    lines = engine.docker(*RUN, "busybox", "sh", "-c", script).stdout.split()
    assert lines == ["CapEff:", "00000000a80425fb", "NoNewPrivs:", "0", "Seccomp:", "2", "refused"]
    done = engine.docker(
        *(*RUN, "--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges"),
        *("--security-opt", "seccomp=unconfined", "busybox", "sh", "-c", script),
    )
    assert done.stdout.split()[:6] == ["CapEff:", "0000000000000001", "NoNewPrivs:", "1", "Seccomp:", "0"]


@honours("HostConfig.ReadonlyRootfs")
def test_a_read_only_root(engine: Engine) -> None:
    script = "touch /x 2>/dev/null || echo refused; touch /t/x && touch /dev/shm/x && echo fine"
    done = engine.docker(*RUN, "--read-only", "--tmpfs", "/t", "busybox", "sh", "-c", script)
    assert done.stdout.split() == ["refused", "fine"]


def test_concurrent_runs(engine: Engine) -> None:
    def one(number: int) -> str:
        return engine.docker(*RUN, "busybox", "echo", str(number)).stdout.strip()

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, range(12))) == [str(number) for number in range(12)]


@honours("HostConfig.AutoRemove")
def test_rm_removes_anonymous_volumes(engine: Engine) -> None:
    engine.docker(*RUN, "-v", "/data", "--name", "gone", "busybox", "touch", "/data/x")
    assert until(lambda: engine.api.get("/containers/gone/json").status == 404)
    assert until(lambda: not engine.docker("volume", "ls", "-q").stdout)


def test_detached_with_a_cidfile_and_labels(engine: Engine, tmp_path: object) -> None:
    file = f"{tmp_path}/cid"
    done = engine.docker(
        *("run", "-d", "--cidfile", file, "--label", "a=b", "--network", "none", "busybox", "sleep", "600")
    )
    identity = done.stdout.strip()
    try:
        with open(file) as written:
            assert written.read() == identity
        assert engine.docker("ps", "-q", "--no-trunc", "--filter", "label=a=b").stdout.split() == [identity]
    finally:
        engine.docker("rm", "-f", identity)
