"""Dockerfiles that every classic builder can build: all instructions, and the places where builders come to differ."""

from __future__ import annotations

import gzip
import json
import tarfile

from compat_tests.clients.builder.builds import Case
from compat_tests.support.images import Node, layer

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

# What builders differ in: scopes of arguments, triggers, owners, links, volumes, quoting.
MORE: dict[str, Case] = {
    "arg-scopes": Case(
        """
ARG A=global
ARG B=outer
FROM busybox AS one
ARG A
ARG B=inner
RUN echo "$A $B $C" > /one
ARG C=late
RUN echo "$A $B $C" >> /one
FROM busybox AS two
RUN echo "[$A][$B]" > /two
ARG A=mine
ENV A=env
ARG B
RUN echo "[$A][$B]" >> /two
FROM two
COPY --from=one /one /one
RUN echo "[$A][$B][$C]" > /three
ENV B=${B:-none} D=${A}-$A
RUN echo "[$A][$B][$D]" >> /three
""",
        {},
        {"buildargs": json.dumps({"C": "given"})},
    ),
    "triggers": Case(
        """
FROM busybox AS base
ONBUILD ARG V=1
ONBUILD ENV T=$V
ONBUILD COPY f /f
ONBUILD RUN echo $T > /t
FROM base
RUN cat /t /f > /all
FROM base
WORKDIR /w
RUN echo again $T > here
""",
        {"f": "x"},
    ),
    "users": Case(
        """
FROM busybox
RUN echo 'app:x:1234:2345::/home/app:/bin/sh' >> /etc/passwd && echo 'grp:x:2345:' >> /etc/group
RUN mkdir -p /home/app && chown app:grp /home/app
USER app
RUN id -u > /home/app/id; id -g >> /home/app/id; echo $HOME >> /home/app/id
COPY --chown=app f /owned/f
COPY --chown=app:grp f /owned/g
COPY --chown=:grp f /owned/h
USER app:100
RUN id -g >> /home/app/id
USER 77:88
WORKDIR /tmp/made
RUN id -u > /tmp/x; id -g >> /tmp/x
""",
        {"f": "x"},
    ),
    "links": Case(
        """
FROM busybox
COPY tree /tree
COPY tree/dirlink /dirlink
COPY tree/real/ /flat/
RUN ln -s /flat /lnk && mkdir /dst && ln -s nowhere /dst/dangling
COPY tree/real/file /lnk/other
COPY tree/filelink /filelink
ADD tree/filelink /added/
""",
        {
            "tree/real/file": "f",
            "tree/real/deep/er": "d",
            "tree/dirlink": Node(kind=tarfile.SYMTYPE, link="real", mode=0o777),
            "tree/filelink": Node(kind=tarfile.SYMTYPE, link="real/file", mode=0o777),
            "tree/dangling": Node(kind=tarfile.SYMTYPE, link="gone", mode=0o777),
        },
    ),
    "overwritten": Case(
        """
FROM busybox
COPY a/f /x/f
COPY b /x
RUN rm -rf /x/f && mkdir /x/d && echo 1 > /x/d/1
COPY a /x/
RUN rm -rf /x/d && echo file > /x/d
COPY a/f /x/d
RUN chmod 600 /x/f && chown 9:9 /x
COPY b/g /x/g
""",
        {"a/f": "a", "b/f": "b", "b/g": "g"},
    ),
    "volumes": Case(
        """
FROM busybox
RUN mkdir /v && echo before > /v/before
VOLUME /v
RUN echo after > /v/after; ls /v > /seen
COPY f /v/copied
RUN ls /v > /seen2
""",
        {"f": "x"},
    ),
    "ports": Case("FROM busybox\nARG P=9\nEXPOSE 8000-8003 $P/udp 80/TCP\nEXPOSE 8001\n"),
    "reset": Case("""
FROM busybox AS a
CMD ["a"]
ENTRYPOINT ["e"]
HEALTHCHECK --interval=3s CMD true
STOPSIGNAL 9
LABEL x=1 y=2
ENV P=1 Q=2
FROM a
ENTRYPOINT []
HEALTHCHECK NONE
LABEL y="" z=3
ENV Q= R="a b"
CMD []
"""),
    "quoting": Case(r"""
FROM busybox
ENV A="a\"b" B='c"d' C=e\ f D="$A" E='$A' F=\$A G="\\x" H=a'b'"c"
LABEL "k e y"="v a l" k2=a\
b k3="multi \
line"
RUN echo "$A|$B|$C|$D|$E|$F|$G|$H" > /q
CMD ["sh", "-c", "echo \"x\" \u00e9"]
"""),
    "continued": Case(
        """
# comment
FROM busybox

RUN echo a \\

 && echo b > /b
   RUN echo indented > /i
run echo lower > /l
Copy f \\
  # inside
  /f
ENV \\
  X=1 \\
  Y=2
""",
        {"f": "x"},
    ),
    "ignore-patterns": Case(
        "FROM busybox\nCOPY . /c\n",
        {
            ".dockerignore": "# note\n**/*.log\n!keep.log\ndir/*\n!dir/in\n/top\nz?\n\n  spaced  \n[ab].c\n",
            "x.log": "",
            "keep.log": "",
            "sub/y.log": "",
            "dir/in": "",
            "dir/out": "",
            "top": "",
            "sub/top": "",
            "za": "",
            "zab": "",
            "spaced": "",
            "a.c": "",
            "c.c": "",
        },
    ),
    "json-forms": Case(
        """
FROM busybox
RUN ["/bin/sh", "-c", "echo $HOME > /home-var"]
ADD ["f", "g", "/two dirs/"]
VOLUME ["/a b"]
SHELL ["/bin/sh", "-xc"]
RUN echo shell > /shell
ENTRYPOINT echo $0
""",
        {"f": "f", "g": "g"},
    ),
}

MORE_BAD: dict[str, Case] = {
    "mount": Case("FROM busybox\nRUN --mount=type=cache,target=/x true\n"),
    "run-network": Case("FROM busybox\nRUN --network=none true\n"),
    "chmod": Case("FROM busybox\nCOPY --chmod=755 f /f\n", {"f": ""}),
    "bad-platform": Case("FROM busybox\n", query={"platform": "foo"}),
    "cachefrom": Case("FROM busybox\n", query={"cachefrom": "zz"}),
    "copy-self": Case("FROM busybox\nCOPY --from=0 /x /y\n"),
    "bad-user": Case("FROM busybox\nUSER nobody-here\nRUN true\n"),
    "stopsignal": Case("FROM busybox\nSTOPSIGNAL nope\n"),
    "workdir-blank": Case("FROM busybox\nWORKDIR\n"),
    "volume-blank": Case('FROM busybox\nVOLUME [""]\n'),
    "onbuild-maintainer": Case("FROM busybox\nONBUILD MAINTAINER x\n"),
    "from-blank": Case("ARG X\nFROM $X\n"),
}
