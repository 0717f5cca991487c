"""The names of steps in a progress display; the expectations are BuildKit's (dockerd 28.5.2)."""

import pytest

from server.builder.dockerfile.parse import parse
from server.builder.plan import formatting

VARIABLES = {"X": "1", "Y": "two words", "Z": "lit$X", "V": "a.b"}


@pytest.mark.parametrize(
    ("instruction", "shown"),
    [
        (
            """RUN echo "a b" 'c $X' $X ${X:-y} \\$X "$Y" fir''st $UNDEF ${HOME} "$Z" """.strip(),
            """RUN echo "a b" 'c $X' 1 1 $X "two words" fir''st $UNDEF ${HOME} "lit$X\"""",
        ),
        ("""RUN ["echo", "$X", "it's"]""", """RUN ["echo", "1", "it's"]"""),
        ("RUN echo $X \\\n  && echo $Y", "RUN echo 1   && echo two words"),
        ("RUN <<EOF\necho $X\nEOF", "RUN <<EOF (echo $X)".replace("$X", "1")),
        ("RUN <<EOF\n\n#!/bin/sh\necho a\nEOF", "RUN <<EOF (#!/bin/sh...)"),
        ("RUN <<A cat > /x && cat <<B\nfoo\nA\nbar\nB", "RUN <<A cat > /x && cat <<B"),
        ("copy f /dir$X/", "COPY f /dir1/"),
        ("RUN echo 'unterminated ${X' ; true", "RUN echo 'unterminated ${X' ; true"),
        ("""RUN echo ${V#a} ${V:+z} ${V//./-} $ $$ ${V} "a\\"b" a\\ b 'x\\y'""",
         """RUN echo .b z a-b $ $$ a.b "a"b" a b 'x\\y'"""),
    ],
)  # fmt: skip
def test_titles(instruction: str, shown: str) -> None:
    file = parse(f"FROM x\n{instruction}\n")
    assert formatting.title(file.stages[0].instructions[0], VARIABLES, file.escape) == shown


@pytest.mark.parametrize(
    ("platform", "variables", "shown"),
    [
        ("linux/amd64", {}, ""),
        ("linux/amd64", {"TARGETPLATFORM": "linux/arm/v7"}, "->arm/v7"),
        ("linux/amd64", {"TARGETPLATFORM": "linux/amd64"}, ""),
        ("linux/amd64", {"TARGETARCH": "arm64", "TARGETVARIANT": ""}, "->arm64"),
        ("linux/amd64", {"TARGETOS": "windows"}, "->windows/amd64"),
    ],
)
def test_cross_platform_suffix(platform: str, variables: dict[str, str], shown: str) -> None:
    assert formatting.cross(platform, variables) == shown
