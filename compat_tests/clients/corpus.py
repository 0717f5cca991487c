"""Dockerfiles that every classic builder can build: all instructions, and the places where builders come to differ."""

from __future__ import annotations

import gzip
import json
import tarfile

from compat_tests.clients.builds import Case
from compat_tests.images import Node, layer

CASES: dict[str, Case] = {
    "metadata": Case(
        """
FROM busybox
MAINTAINER Somebody <a@b.c>
LABEL one=1 "two words"="a b" three='it is'
ENV A=b C="d e" F=g\\ h
ENV OLD value with spaces
EXPOSE 80 443/tcp 53/udp
VOLUME /data ["/more"]
VOLUME ["/d1", "/d2"]
USER 1000:100
WORKDIR /srv
WORKDIR deeper
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=2s --start-period=1m --retries=4 CMD wget -q localhost || exit 1
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["top"]
CMD ["-b", "-n", "1"]
ONBUILD RUN echo triggered
ONBUILD COPY . /on
"""
    ),
    "shell-forms": Case("FROM busybox\nENTRYPOINT exec top -b\nCMD echo $HOME\n"),
    "cmd-cleared": Case('FROM busybox\nCMD one\nENTRYPOINT ["two"]\n'),
    "health-none": Case("FROM busybox\nHEALTHCHECK NONE\n"),
    "expansion": Case(
        """
ARG TAG=latest
FROM busybox:${TAG}
ARG V=1
ARG W
ARG TAG
ENV A=${V} B=${W:-unset} C=${V:+set} D=$V-$W E='$V' F="\\$V" G=${NOPE}
ENV H=${A}x I=$A$B
LABEL l=$A m="${B}"
WORKDIR /w/$V
COPY f $A/
EXPOSE ${PORT:-8080}
RUN echo "$A $B $V $W $TAG $HTTP_PROXY" > /out
USER u$V
VOLUME /v/$A
STOPSIGNAL ${V}5
""",
        {"f": "x"},
        {"buildargs": json.dumps({"W": "given", "HTTP_PROXY": "http://proxy:1"})},
    ),
    "run": Case(
        """
FROM busybox
RUN echo one > /one && chmod 4755 /one && chown 3:4 /one
RUN ["sh", "-c", "echo two > /two"]
RUN mkdir -m 1777 /sticky && ln -s ../one /sticky/link && ln /one /hard && mknod /pipe p
RUN rm -r /var/www && rm /etc/shadow && mkdir /var/www
RUN echo \\
  # a comment between
  continued \\
  > /three
USER 1000
RUN id -u > /tmp/user && pwd >> /tmp/user && env | grep -v HOSTNAME | sort > /tmp/env
"""
    ),
    "copy": Case(
        """
FROM busybox
COPY a.txt /renamed
COPY a.txt b.txt /into/
COPY dir /dir
COPY dir/ /etc
COPY d*/*.md *.txt /globs/
COPY --chown=1000:100 dir /owned
COPY --chown=mail a.txt /mail.txt
COPY link /through-link
COPY ["with space", "/sp ace/"]
WORKDIR /work
COPY a.txt .
COPY . ./all/
RUN mkdir /real && ln -s /real /lnk
COPY dir /lnk
COPY a.txt /lnk/
""",
        {
            "a.txt": Node(b"a", mode=0o640, uid=7, gid=8),
            "b.txt": Node(b"b", mode=0o755),
            "dir/one.md": "1",
            "dir/two.md": "2",
            "dir/sub/three": "3",
            "link": Node(kind=tarfile.SYMTYPE, link="a.txt", mode=0o777),
            "with space": "s",
        },
    ),
    "add": Case(
        """
FROM busybox
ADD archive.tar /unpacked/
ADD archive.tar.gz /gz/
ADD plain.txt /plain/
ADD broken.tar /broken/
COPY archive.tar /copied/
""",
        {
            "archive.tar": layer({"in/side": "z", "in/mode": Node(b"m", mode=0o700, uid=5, gid=6)}),
            "archive.tar.gz": gzip.compress(layer({"deep/er": "y"}), mtime=0),
            "plain.txt": "p",
            "broken.tar": "no archive",
        },
    ),
    "stages": Case(
        """
FROM busybox AS base
RUN echo base > /base
FROM base AS left
RUN echo left > /left && chown 1:2 /left
FROM base AS right
ENV SIDE=right
RUN echo $SIDE > /right
FROM scratch AS files
COPY --from=left /left /
COPY --from=right /right /sub/
FROM busybox
COPY --from=files / /got
COPY --from=0 /base /from-number
COPY --from=busybox:latest /etc/passwd /from-image
"""
    ),
    "target": Case(
        "FROM busybox AS one\nENV S=1\nFROM one AS two\nENV S=2\nFROM two\nENV S=3\n", query={"target": "two"}
    ),
    "ignored": Case(
        "FROM busybox\nCOPY . /all/\n",
        {
            ".dockerignore": "Dockerfile\n.dockerignore\n",
            "kept": "k",
            "sub/kept": "k",
        },
    ),
    "scratch": Case("FROM scratch\nCOPY f /\nLABEL only=label\n", {"f": "x"}),
    "labels": Case("FROM busybox\nLABEL a=1 b=2\n", query={"labels": json.dumps({"b": "3", "c": "x y"})}),
    "other-name": Case("FROM nothing\n", {"sub/Other": "FROM busybox\nENV other=1\n"}, {"dockerfile": "sub/Other"}),
    "escape-directive": Case("# escape=`\nFROM busybox\nENV A=c:\\d\nRUN echo `\n  two > /two\n"),
}

# What a builder refuses. dockerd's sentence is compared.
BAD: dict[str, Case] = {
    "unknown-instruction": Case("FROM busybox\nFOO bar\n"),
    "no-dockerfile": Case("", {"x": ""}, {"dockerfile": "other"}),
    "empty": Case("\n"),
    "outside": Case("FROM busybox\n", query={"dockerfile": "../other"}),
    "failing-run": Case("FROM busybox\nRUN exit 3\n"),
    "missing-source": Case("FROM busybox\nCOPY nofile /x\n"),
    "source-outside": Case("FROM busybox\nCOPY ../x /x\n"),
    "many-to-file": Case("FROM busybox\nCOPY a b /x\n", {"a": "", "b": ""}),
    "no-target": Case("FROM busybox AS a\n", query={"target": "zz"}),
    "bad-labels": Case("FROM busybox\n", query={"labels": "zz"}),
    "bad-ulimits": Case("FROM busybox\n", query={"ulimits": "zz"}),
    "bad-version": Case("FROM busybox\n", query={"version": "3"}),
    "isolation": Case("FROM busybox\n", query={"isolation": "hyperv"}),
    "squash": Case("FROM busybox\n", query={"squash": "1"}),
    "security": Case("FROM busybox\n", query={"securityopt": '["x"]'}),
    "no-from": Case("RUN true\n"),
    "unknown-flag": Case("FROM busybox\nCOPY --nope=1 a /b\n"),
    "empty-env": Case("FROM busybox\nENV\n"),
    "nested-onbuild": Case("FROM busybox\nONBUILD ONBUILD RUN true\n"),
    "bad-healthcheck": Case("FROM busybox\nHEALTHCHECK WHAT\n"),
    "bad-port": Case("FROM busybox\nEXPOSE x\n"),
    "stage-name": Case("FROM busybox AS 1a\n"),
}

# What BuildKit alone knows: built by buildx on both engines.
BUILDKIT: dict[str, Case] = {
    "heredocs": Case(
        """
FROM busybox
ARG WHO=me
COPY <<EOF /plain
hi $WHO
EOF
COPY <<'one' <<-two /several/
$WHO
one
\ttabs
\ttwo
RUN <<EOF
echo a > /a
echo $WHO > /b
EOF
RUN cat <<x > /c && echo d > /d
in $WHO
x
RUN <<EOF
#!/bin/sh
echo script > /e
EOF
"""
    ),
    "flags": Case(
        """
FROM busybox AS a
RUN mkdir -p /src/deep && echo 1 > /src/deep/f && echo 2 > /src/g && chown 5:6 /src/g
FROM busybox
ARG D=x
ARG C
COPY --from=a --chown=1:2 --chmod=750 /src/g /owned
COPY --link --from=a /src /linked/
COPY --chmod=755 f g /y/
COPY *.none /nothing/
ADD --chown=3 f $D
RUN --mount=type=bind,from=a,source=/src,target=/m cp /m/g /copied
RUN --mount=type=bind,target=/ctx,rw touch /ctx/new && cp /ctx/f /from-context
RUN --mount=type=tmpfs,target=/t --network=none touch /t/x
RUN --mount=type=cache,target=/cache,uid=7,mode=0700 stat -c %u:%a /cache > /cache-stat
USER 5
WORKDIR a/$D
HEALTHCHECK --start-interval=3s --retries=48 CMD ["a","b c"]
CMD echo hi
""",
        {"f": "f", "g": "g"},
    ),
}

BUILDKIT_BAD: dict[str, Case] = {
    "no-key": Case("FROM busybox\nENV a\n"),
    "no-pair": Case("FROM busybox\nENV a=b c\n"),
    "mount-type": Case("FROM busybox\nRUN --mount=type=foo x\n"),
    "mount-key": Case("FROM busybox\nRUN --mount=target=/x,nope=1 x\n"),
    "mount-target": Case("FROM busybox\nRUN --mount=type=cache x\n"),
    "secret": Case("FROM busybox\nRUN --mount=type=secret,id=k,required x\n"),
    "agent": Case("FROM busybox\nRUN --mount=type=ssh,required true\n"),
    "exit": Case("FROM busybox\nRUN exit 3\n"),
    "modifier": Case("FROM busybox\nENV a=${x:?gone}\nRUN true\n"),
    "quote": Case('FROM busybox\nENV a="b\n'),
    "heredoc": Case("FROM busybox\nCOPY <<EOF /x\nhi\n"),
    "network": Case("FROM busybox\nRUN --network=foo true\n"),
    "host-network": Case("FROM busybox\nRUN --network=host true\n"),
    "signal": Case("FROM busybox\nSTOPSIGNAL foo\nRUN true\n"),
    "protocol": Case("FROM busybox\nEXPOSE 80/foo\n"),
    "stage-index": Case("FROM busybox\nCOPY --from=9 x /y\n"),
    "missing-in-stage": Case("FROM busybox\nCOPY missing /y\n"),
    "user": Case("FROM busybox\nUSER nope\nRUN true\n"),
    "escape": Case("# escape=x\nFROM busybox\n"),
    "onbuild-from": Case("FROM busybox\nONBUILD FROM x\n"),
    "stage-name": Case("FROM busybox AS 1a\n"),
    "no-instruction": Case("# nothing\n"),
    "no-stage": Case("RUN x\n"),
    "unknown": Case("FROM busybox\nFOO bar\n"),
    "flag": Case("FROM busybox\nCOPY --nope=1 a /b\n"),
}
