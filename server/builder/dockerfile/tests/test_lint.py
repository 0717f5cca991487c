"""Build checks of whole Dockerfiles."""

import pytest

from server.builder.dockerfile.lint import findings, undefined
from server.builder.dockerfile.parse import parse


@pytest.mark.parametrize(
    ("text", "rule", "sentence"),
    [
        (
            "FROM a\nrun x\n",
            "ConsistentInstructionCasing",
            "Command 'run' should match the case of",
        ),
        ("FROM a AS b\nFROM c AS b\n", "DuplicateStageName", 'Duplicate stage name "b"'),
        ("FROM a$X\n", "UndefinedArgInFrom", "FROM argument 'X' is not declared"),
        ("ARG TAG=1\nFROM a:${TAGG:-x}\n", "UndefinedArgInFrom", "(did you mean TAG?)"),
        ("ARG T\nFROM a:$T\n", "InvalidDefaultArgInFrom", "Default value for ARG a:$T"),
        ("FROM --platform=linux/arm64 a\n", "FromPlatformFlagConstDisallowed", '"linux/arm64"'),
        ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform", "predefined $TARGETPLATFORM"),
        ("FROM a\nCMD b\nCMD c\n", "MultipleInstructionsDisallowed", "Multiple CMD instructions"),
        ("FROM a\nWORKDIR b\n", "WorkdirRelativePath", 'Relative workdir "b"'),
        ("FROM a\nENV DB_PASSWORD=x\n", "SecretsUsedInArgOrEnv", 'ENV "DB_PASSWORD"'),
        ("FROM a\nARG TOKEN\n", "SecretsUsedInArgOrEnv", 'ARG "TOKEN"'),
        ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", "'80/TCP'"),
    ],
)
def test_found(text: str, rule: str, sentence: str) -> None:
    found = findings(parse(text))
    assert [item.rule for item in found] == [rule]
    assert sentence in found[0].message


@pytest.mark.parametrize(
    "text",
    [
        "from a\nrun b\ncopy c d\n",
        "ARG T=1\nFROM a:${T}\nFROM a:${T:-2}\nWORKDIR /x\nWORKDIR y\n",
        "FROM --platform=$BUILDPLATFORM a AS b\nWORKDIR /x\nFROM b\nWORKDIR c\nCMD x\n",
        "FROM a\nENV PUBLIC_KEY=x KEYBOARD=y\nEXPOSE 80/tcp $P/udp\nCMD x\nENTRYPOINT y\n",
        "ARG I=x\nFROM $I\n",
    ],
)
def test_nothing_to_find(text: str) -> None:
    assert findings(parse(text)) == []


def test_undefined_variables() -> None:
    file = parse("ARG G\nFROM a$G AS b\nARG D\nRUN x\nFROM b\nENV E=$PAHT\n")
    env, base = file.stages[1].instructions[0].span, file.stages[0].base.span
    found = undefined(file, [("PAHT", env, ["PATH"]), ("PAHT", env, ["PATH"]), ("D", env, []), ("G", base, [])])
    assert [item.message for item in found] == ["Usage of undefined variable '$PAHT' (did you mean $PATH?)"]
