"""The Dockerfile parser: accepted syntax, and the error sentences for invalid syntax."""

import textwrap
import time

import pytest

from engine.common import limits
from engine.common.errors import WharfError
from server.builder.dockerfile import instructions as ins
from server.builder.dockerfile.errors import DockerfileError, Span, excerpt
from server.builder.dockerfile.expand import expand, expand_heredoc, expand_raw, expand_words
from server.builder.dockerfile.ignore import Ignore, read
from server.builder.dockerfile.parse import parse, parse_instruction
from server.builder.dockerfile.words import duration


def _parse(text: str) -> ins.Dockerfile:
    return parse(textwrap.dedent(text).lstrip("\n"))


def _only(text: str) -> ins.Instruction:
    return _parse("FROM x\n" + text).stages[0].instructions[0]


def test_stages_arguments_directives_and_comments() -> None:
    file = _parse(
        """
        # syntax=docker/dockerfile:1
        # escape=`
        ARG BASE=busybox
        # build  compiles it all
        FROM --platform=$BUILDPLATFORM ${BASE} AS build
        RUN echo one `
            # in between

            && echo two
        FROM build
        COPY --from=build /a /b
        """
    )
    assert file.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert file.arguments[0].values == (("BASE", "busybox"),)
    build, last = file.stages
    assert (build.base.image, build.base.name, build.base.platform) == ("${BASE}", "build", "$BUILDPLATFORM")
    assert build.base.comment == "compiles it all"
    run = build.instructions[0]
    assert isinstance(run, ins.Run)
    assert run.args == ("echo one     && echo two",)
    assert run.span == Span(6, 9)
    assert last.name == "stage-1"
    assert [warning.rule for warning in file.warnings] == ["NoEmptyContinuation"]


def test_heredocs() -> None:
    run = _only("RUN <<EOF\necho a\necho $b\nEOF\n")
    assert isinstance(run, ins.Run)
    assert run.heredocs[0].content == "echo a\necho $b\n"
    assert run.heredocs[0].expand
    copy = _only("COPY <<'one' <<-two.txt file /dest/\n$x\none\n\t\ttab\n\ttwo.txt\n")
    assert isinstance(copy, ins.Copy)
    assert copy.sources == ("file",)
    assert [(d.name, d.content, d.expand) for d in copy.heredocs] == [
        ("one", "$x\n", False),
        ("two.txt", "tab\n", True),
    ]
    shell = _only("RUN cat <<<word && python3 - <<PY 3<<X\nprint(1)\nPY\nx\nX\n")
    assert isinstance(shell, ins.Run)
    assert [(d.name, d.fd) for d in shell.heredocs] == [("PY", 0), ("X", 3)]


def test_flags_of_run_and_copy() -> None:
    run = _only(
        "RUN --mount=type=cache,target=/c,sharing=locked --mount=type=secret,id=k,required --network=none "
        '--mount=from=build,target=/b,rw ["a","b"]'
    )
    assert isinstance(run, ins.Run)
    assert [m.type for m in run.mounts] == ["cache", "secret", "bind"]
    assert run.mounts[0].sharing == "locked"
    assert run.mounts[1].required
    assert run.mounts[2].readonly is False
    assert (run.network, run.shell, run.args) == ("none", False, ("a", "b"))
    copy = _only('ADD --chown=1:2 --chmod=u+x --link --exclude=*.o --exclude=b --checksum=sha256:aa ["a b", "/c d"]')
    assert isinstance(copy, ins.Copy)
    assert (copy.sources, copy.target) == (("a b",), "/c d")
    assert (copy.chown, copy.chmod, copy.link, copy.exclude) == ("1:2", "u+x", True, ("*.o", "b"))


def test_env_label_forms() -> None:
    env = _only("ENV a=1 b=\"two words\" c='x y' d=a\\ b")
    assert isinstance(env, ins.Env)
    assert env.values == (("a", "1"), ("b", '"two words"'), ("c", "'x y'"), ("d", "a\\ b"))
    old = _only("ENV name some value")
    assert isinstance(old, ins.Env)
    assert old.values == (("name", "some value"),)


def test_healthcheck() -> None:
    check = _only("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=4 CMD curl -f x || exit 1")
    assert isinstance(check, ins.Healthcheck)
    assert check.test == ("CMD-SHELL", "curl -f x || exit 1")
    assert (check.interval_ns, check.timeout_ns, check.retries) == (90 * 10**9, 500_000_000, 4)
    assert duration("1h0.5s") == 3600_500_000_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM x\nRUNN y", "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
        ("", "file with no instructions"),
        ("# only a comment", "file with no instructions"),
        ("RUN x", "no build stage in current context"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM x\nCOPY a", "COPY requires at least two arguments, but only one was provided"),
        ("FROM x\nCOPY --frm=a b c", "unknown flag: frm (did you mean from?)"),
        ("FROM x\nRUN --mount=type=foo,target=/x y", 'unsupported mount type "foo"'),
        ("FROM x\nRUN --mount=type=cache y", 'invalid mount target "/"'),
        ("FROM x\nENV", "ENV requires at least one argument"),
        ("FROM x\nENV a", "ENV must have two arguments"),
        ("FROM x\nENV a=1 b", 'Syntax error - can\'t find = in "b". Must be of the form: name=value'),
        ("FROM x\nSHELL bash", "SHELL requires the arguments to be in JSON form"),
        ("FROM x\nONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM x\nONBUILD FROM y", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM x\nHEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("FROM x\nHEALTHCHECK --interval=5 CMD x", 'time: missing unit in duration "5"'),
        ("FROM x\nWORKDIR", "WORKDIR requires exactly one argument"),
        ("FROM x\nRUN <<EOF\nx", "unterminated heredoc"),
        ("FROM x AS 1a", "invalid name for build stage"),
        ("# escape=x\nFROM x", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM x", "only one escape parser directive can be used"),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert sentence in caught.value.sentence


def test_excerpt() -> None:
    lines = [f"l{number}" for number in range(1, 10)]
    shown = excerpt("Dockerfile", lines, Span(5, 6)).splitlines()
    assert shown[0] == "Dockerfile:5"
    assert "   5 | >>> l5" in shown
    assert "   4 |     l4" in shown
    assert len(shown) == 3 + 8


VARIABLES = {"a": "one", "e": "", "path": "/usr/local/lib.tar.gz", "sp": "x y"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$a", "one"),
        ("${a}b", "oneb"),
        ("'$a'", "$a"),
        ('"$a b"', "one b"),
        (r"\$a", "$a"),
        ("${n:-d}", "d"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${a:+y}${n:+z}${e+w}", "yw"),
        ("${n:-${a}}", "one"),
        ("${path##*/}", "lib.tar.gz"),
        ("${path#*/}", "usr/local/lib.tar.gz"),
        ("${path%.*}", "/usr/local/lib.tar"),
        ("${path%%.*}", "/usr/local/lib"),
        ("${path/lib/LIB}", "/usr/local/LIB.tar.gz"),
        ("${path//l/L}", "/usr/LocaL/Lib.tar.gz"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("${n}", ""),
        ('""', ""),
    ],
)
def test_expand(text: str, value: str) -> None:
    assert expand(text, VARIABLES).text == value


def test_expand_kinds_and_errors() -> None:
    assert expand_words("80 $sp \"a b\" ''", VARIABLES).words == ["80", "x", "y", "a b", ""]
    assert expand_raw("a='$a' \"$a\"", VARIABLES).text == "a='$a' \"one\""
    assert expand_heredoc('it\'s $a \\$a "q"\n', VARIABLES).text == 'it\'s one $a "q"\n'
    assert expand("$n$a", VARIABLES).unknown == {"n"}
    for bad in ("${a", "'x", '"x', "${a:=b}", "${n:?}", "${n?said so}"):
        with pytest.raises(WharfError):
            expand(bad, VARIABLES)


def test_dockerignore() -> None:
    patterns = read("# c\n\n  *.o  \n/build/\n!build/keep\n**/secret\na/*/c\n")
    assert patterns == ["*.o", "build", "!build/keep", "**/secret", "a/*/c"]
    ignore = Ignore(patterns)
    left_out = ["x.o", "build", "build/x", "secret", "d/e/secret", "d/secret/f", "a/b/c", "a/b/c/d"]
    kept = ["d/x.o", "build/keep", "build/keep/x", "a/b/d", "a/c", "secrets"]
    assert [path for path in left_out if not ignore.ignores(path)] == []
    assert [path for path in kept if ignore.ignores(path)] == []
    assert ignore.may_contain_kept("build")
    assert not Ignore(["build"]).may_contain_kept("build")
    assert Ignore(["*", "!a/b"]).may_contain_kept("a")
    with pytest.raises(WharfError):
        Ignore(["[a"])


def test_single_instruction() -> None:
    env = parse_instruction("ENV a=b")
    assert isinstance(env, ins.Env)
    with pytest.raises(DockerfileError):
        parse_instruction("ENV a=b\nRUN x")


def test_many_patterns_that_leave_files_out() -> None:
    names = [f"name{number}" for number in range(limits.IGNORE_PATTERNS - 4)]
    ignore = Ignore([*names, "!name7/kept", "a*", "!ab", "name8/kept/x"])
    begin = time.monotonic()
    assert all(ignore.ignores(f"name{number}/below/it") for number in range(8, 15_000))
    assert time.monotonic() - begin < 60
    assert not ignore.ignores("other/name1")
    assert not ignore.ignores("name7/kept")
    assert ignore.ignores("name7/other")
    assert ignore.ignores("name8/kept")
    assert ignore.ignores("abc")
    assert not ignore.ignores("ab")
    assert ignore.may_contain_kept("name7")
    assert not ignore.may_contain_kept("name8")
    with pytest.raises(WharfError, match=r"exceeds the limit IGNORE_PATTERNS \(20000\)"):
        Ignore([*names, *"abcde"])
