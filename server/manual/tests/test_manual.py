"""The generated man pages and completions, in the shells that are installed."""

import argparse
import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from server.config.options import OPTIONS
from server.manual.__main__ import main
from server.manual.command import Command, from_parser
from server.manual.completion import bash, fish, zsh
from server.manual.roff import man_page
from server.manual.wharf import wharf
from server.manual.wharfd import wharfd


def example() -> Command:
    """A program with commands of two levels, and texts that roff or a shell could take for their own."""
    parser = argparse.ArgumentParser(prog="tool", description="A tool.\n\n.SH is no heading; it's a 'text'.")
    parser.add_argument("--form", choices=["json", "table"], default="table", help="Form: %(default)s, or $HOME [x]")
    commands = parser.add_subparsers()
    users = commands.add_parser("users", help="List `users`")
    users.add_argument("-a", "--all", action="store_true", help="All of them")
    policy = commands.add_parser("policy", help="The policy")
    check = policy.add_subparsers().add_parser("check", help="Check it")
    check.add_argument("--label", action="append", metavar="KEY=VALUE", help="A label")
    check.add_argument("level", choices=["low", "high"], help="How strict")
    return from_parser(parser, summary="a tool for tests")


def complete(tmp_path: Path, command: Command, *words: str) -> set[str]:
    """Return what bash offers for the last word."""
    file = tmp_path / "completion"
    file.write_text(bash(command))
    script = """
        source "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=(old)
        "_$1" "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-uec", script, "bash", str(file), command.name, *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_man_page_of_wharfd_has_every_option() -> None:
    page = man_page(wharfd(), section=8, version="1.2").replace("\\", "")
    for option in OPTIONS:
        if not option.refused and not option.only_file:
            assert f"fB--{option.flag}fR" in page
        elif not option.only_flag:
            assert f"fB{option.name}fR" in page
    assert page.startswith('.TH WHARFD 8 "" "Wharf 1.2"')


def test_no_text_is_a_request_of_roff() -> None:
    page = man_page(example(), section=1, version="1")
    assert "\\&.SH is no heading" in page
    assert [line for line in page.splitlines() if line.startswith(("'", ".SH is"))] == []
    assert ".SS tool policy check\n" in page
    assert "Form: table, or $HOME [x]." in page


def test_bash_completes_flags_values_and_commands(tmp_path: Path) -> None:
    assert complete(tmp_path, wharfd(), "--log-f") == {"--log-format"}
    assert complete(tmp_path, wharfd(), "-l", "w") == {"warn"}
    assert complete(tmp_path, wharfd(), "--log-format", "=", "t") == {"text"}
    assert complete(tmp_path, wharfd(), "--log-format", "=") == {"text", "json"}
    assert complete(tmp_path, wharfd(), "--tlscert", "") == set()
    assert "--nri-opts" not in complete(tmp_path, wharfd(), "--")
    assert complete(tmp_path, wharf(), "socket", "") == {"--help", "create", "rm"}
    assert complete(tmp_path, wharf(), "socket", "create", "--t") == {"--ttl"}
    tool = example()
    assert complete(tmp_path, tool, "") == {"--help", "--form", "users", "policy"}
    assert complete(tmp_path, tool, "--form", "json", "policy", "") == {"--help", "check"}
    assert complete(tmp_path, tool, "policy", "check", "--label", "x", "") == {"--help", "--label", "low", "high"}
    assert complete(tmp_path, tool, "policy", "check", "--label", "") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("command", [wharfd(), wharf(), example()], ids=lambda command: command.name)
def test_the_shells_read_their_completions(tmp_path: Path, shell: str, command: Command) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "completion"
    file.write_text({"bash": bash, "zsh": zsh, "fish": fish}[shell](command))
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(tmp_path: Path) -> None:
    file = tmp_path / "completion.fish"
    file.write_text(fish(example()))

    def offered(line: str) -> set[str]:
        script = f"source {file}; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, timeout=60
        )
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}

    assert offered("tool --form ") == {"json", "table"}
    assert {"users", "policy"} <= offered("tool ")
    assert "low" in offered("tool policy check ")
    assert "check" not in offered("tool policy check ")
    assert offered("tool users --a") == {"--all"}


def test_the_files(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "man/man1/wharf.1.gz",
        "man/man8/wharfd.8.gz",
        "bash-completion/completions/wharf",
        "bash-completion/completions/wharfd",
        "zsh/vendor-completions/_wharf",
        "zsh/vendor-completions/_wharfd",
        "fish/vendor_completions.d/wharf.fish",
        "fish/vendor_completions.d/wharfd.fish",
    }
    first = (tmp_path / "man/man8/wharfd.8.gz").read_bytes()
    assert b".SH OPTIONS" in gzip.decompress(first)
    main([str(tmp_path)])
    assert (tmp_path / "man/man8/wharfd.8.gz").read_bytes() == first
