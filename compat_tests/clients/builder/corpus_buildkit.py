"""Dockerfiles that BuildKit alone knows how to build, and what it refuses."""

from __future__ import annotations

from compat_tests.clients.builder.builds import Case

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
    "modifiers": Case("""
FROM busybox
ARG V=foo.bar.baz
ENV A=${V#*.} B=${V##*.} C=${V%.*} D=${V%%.*} E=${V/ba/X} F=${V//ba/X} G=${N:-d} H=${V:+y} I=${V#foo} J=${V/o/} K=${N-e}
ENV L=${V%"z"} M=${V//./_}
RUN echo $A $B $C $D $E $F $G $H $I $J $K > /m
"""),
    "mounts": Case(
        """
FROM busybox AS tools
RUN mkdir -p /opt/t && echo tool > /opt/t/tool && chown 4:5 /opt/t/tool
FROM busybox
RUN --mount=type=cache,id=k1,target=/c,sharing=locked,uid=3,gid=4,mode=0751 stat -c '%u %g %a' /c > /cache
RUN --mount=type=cache,target=/c2,from=tools,source=/opt/t cat /c2/tool > /from-cache; echo more > /c2/tool || true
RUN --mount=type=bind,from=tools,source=/opt/t/tool,target=/one cat /one > /file-bind
RUN --mount=type=bind,source=d,target=/ctx ls /ctx > /ctx-list; touch /ctx/no 2>/dev/null || echo ro > /ro
RUN --mount=type=tmpfs,target=/t,size=1048576 df -k /t | tail -1 | awk '{print $2}' > /tmpfs-size

RUN --mount=target=/def cat /def/d/f > /def-type
RUN --network=none ip -o link | wc -l > /links
RUN --mount=type=secret,id=none cat /run/secrets/none 2>/dev/null || echo none > /no-secret
RUN --mount=type=bind,from=tools,target=/m --mount=type=tmpfs,target=/m2 ls /m/opt /m2 > /several
""",
        {"d/f": "f", "d/g": "g"},
    ),
    "more-heredocs": Case("""
FROM busybox
ARG X=val
COPY --chown=3:4 --chmod=640 <<A.txt <<"B.txt" <<-C.txt /h/
$X ${X:-no}
A.txt
$X raw
B.txt
\tindent $X
C.txt
ADD <<E /added
add
E
RUN <<A cat > /cat && cat <<B > /cat2
first
A
second $X
B
RUN sh <<EOF
echo "sub $X" > /sub
EOF
RUN <<'EOF'
cat > /quoted <<X
nested $0
X
EOF
RUN <<EOF /bin/sh -e
true
echo flag > /flag
EOF
"""),
    "stages-bk": Case("""
FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETOS TARGETARCH TARGETPLATFORM BUILDPLATFORM BUILDARCH
RUN echo $TARGETOS $TARGETARCH $TARGETPLATFORM $BUILDPLATFORM $BUILDARCH > /p
FROM busybox AS unused
RUN exit 9
FROM scratch AS data
COPY --from=build --link /p /in/p
FROM busybox AS Mixed
COPY --from=data / /
FROM mixed
RUN cat /in/p > /q
"""),
    "linked": Case(
        """
FROM busybox
RUN mkdir /real && ln -s /real /lnk
COPY --link --chown=7:8 d /deep/er/
COPY --link f g /many/
ADD --link f /added
WORKDIR /lnk2
COPY --link f rel/
""",
        {"f": "f", "g": "g", "d/x": "x"},
    ),
    "heredoc-name": Case("FROM busybox\nCOPY <<EOF <<EOF /x/\na\nEOF\nb\nEOF\n"),
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
    "sharing": Case("FROM busybox\nRUN --mount=type=cache,target=/x,sharing=foo true\n"),
    "checksum": Case("FROM busybox\nADD --checksum=foo f /f\n", {"f": ""}),
    "checksum-local": Case(
        "FROM busybox\nADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d f /f\n",
        {"f": ""},
    ),
    "arg-blank": Case("FROM busybox\nARG\n"),
    "from-three": Case("FROM busybox AS\n"),
    "empty-from": Case("ARG X\nFROM $X\n"),
    "self": Case("FROM busybox AS x\nCOPY --from=x /a /b\n"),
    "onbuild": Case("FROM busybox\nONBUILD ONBUILD RUN x\n"),
    "copy-outside": Case("FROM busybox\nCOPY ../x /x\n"),
    "healthcheck": Case("FROM busybox\nHEALTHCHECK --interval=x CMD y\n"),
    "label": Case("FROM busybox\nLABEL x\n"),
    "env-blank": Case("FROM busybox\nENV =x\n"),
    "expose": Case("FROM busybox\nEXPOSE a\nRUN true\n"),
    "shell": Case("FROM busybox\nSHELL /bin/sh\n"),
    "secret-mode": Case("FROM busybox\nRUN --mount=type=secret,id=x,mode=zz true\n"),
    "failing-second": Case("FROM busybox\nRUN true && \\\n  true && \\\n  exit 4\nRUN true\n"),
}
