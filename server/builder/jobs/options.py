"""The options of the built-in front end: checks, and their effect on steps."""

import re
from collections.abc import Mapping, Sized

from engine.common import limits as bounds
from engine.common.errors import invalid, not_implemented
from server.builder.options import Limits

BUILT_IN = re.compile(r"^(docker\.io/)?docker/dockerfile(-upstream)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$")
"""Front-end images of the Dockerfile syntax, which the built-in front end replaces."""

IGNORED = frozenset(
    ("frontend.caps", "multi-platform", "build-arg-casing", "local-sessionid", "vcs:revision", "vcs:source")
)
_PREFIXES = ("build-arg:", "label:", "context:", "input-metadata:", "vcs:", "local-sessionid:", "attest:", "input:")
KNOWN = IGNORED | {
    "filename",
    "target",
    "platform",
    "no-cache",
    "image-resolve-mode",
    "add-hosts",
    "shm-size",
    "ulimit",
    "cgroup-parent",
    "force-network-mode",
    "hostname",
    "context",
    "contextkey",
    "contextsubdir",
    "dockerfilekey",
    "cmdline",
    "source",
    "cache-imports",
    "cache-from",
    "memory",
    "memswap",
    "cpushares",
    "cpuperiod",
    "cpuquota",
    "cpusetcpus",
    "cpusetmems",
    "requestid",
    "override-copy-image",
}


def check_count(*lists: Sized) -> None:
    """Check the number of options before they are copied. Raises INVALID_ARGUMENT, naming the limit."""
    if max(map(len, lists)) > bounds.BUILD_OPTIONS:
        raise bounds.exceeded("BUILD_OPTIONS", "the number of options of the build")


def check_options(options: Mapping[str, str]) -> None:
    """Refuse unsupported options by name. Raises NOT_IMPLEMENTED or INVALID_ARGUMENT."""
    for key, value in options.items():
        if key in KNOWN:
            continue
        if not key.startswith(_PREFIXES):
            raise not_implemented(f"the build option {key} is not supported")
        if key.startswith("attest:"):
            _check_attestation(key.removeprefix("attest:"), value)
    for key in ("source", "cmdline"):
        if options.get(key) and not BUILT_IN.match(options[key].split()[0]):
            raise not_implemented(
                f"front-end image {options[key]} is not supported: only docker/dockerfile is, built in"
            )


def _check_attestation(kind: str, value: str) -> None:
    words = dict(item.partition("=")[::2] for item in value.split(",")) if value else {}
    if words.get("disabled") == "true":
        return
    if kind != "provenance":
        raise not_implemented(f"attestations ({kind}) are not supported")
    if words.get("mode", "min") not in ("min", ""):
        raise not_implemented(f"provenance with mode={words['mode']} is not supported: only mode=min is")


def attests(options: Mapping[str, str]) -> bool:
    """Whether the client requested provenance explicitly. buildx's default (inline-only) is ignored: it would turn
    every image into an index, and make equal builds differ."""
    value = options.get("attest:provenance")
    words = dict(item.partition("=")[::2] for item in value.split(",")) if value else {}
    return value is not None and "true" not in (words.get("inline-only"), words.get("disabled"))


def limits(options: Mapping[str, str]) -> Limits:
    def number(key: str) -> int:
        text = options.get(key, "")
        try:
            return int(text) if text else 0
        except ValueError:
            raise invalid(f"invalid {key}: {text}") from None

    ulimits = []
    for item in filter(None, options.get("ulimit", "").split(",")):
        match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", item)
        if match is None:
            raise invalid(f"invalid ulimit: {item}")
        ulimits.append((match[1], int(match[2]), int(match[3] or match[2])))
    hosts = []
    for item in filter(None, options.get("add-hosts", "").split(",")):
        name, separator, address = item.partition("=")
        if not separator:
            raise invalid(f"invalid host: {item}")
        hosts.append(f"{name}:{address.strip('[]')}")
    return Limits(
        memory=number("memory"),
        memory_swap=number("memswap"),
        cpu_shares=number("cpushares"),
        cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"),
        cpuset_cpus=options.get("cpusetcpus", ""),
        cpuset_mems=options.get("cpusetmems", ""),
        shm_size=number("shm-size"),
        cgroup_parent=options.get("cgroup-parent", ""),
        ulimits=tuple(ulimits),
        extra_hosts=tuple(hosts),
        hostname=options.get("hostname", ""),
    )
