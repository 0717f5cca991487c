"""The table of all flags and keys: the options that ``Config`` declares, and those without a setting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, get_args, get_origin

from server.config.model import Config
from server.config.option import Kind, Option
from server.config.types import AddressPool, BuilderGc, Runtime, Ulimit

_NO_GOSSIP = "the nodes of a swarm do not gossip"
_NO_RAFT = "a swarm does not use Raft"
_KINDS: Mapping[object, Kind] = {
    str: Kind.TEXT,
    Path: Kind.TEXT,
    bool: Kind.BOOL,
    int: Kind.INT,
    tuple[str, ...]: Kind.LIST,
    tuple[AddressPool, ...]: Kind.POOLS,
    Mapping[str, str]: Kind.MAP,
    Mapping[str, Mapping[str, str]]: Kind.NETWORK_OPTS,
    Mapping[str, Runtime]: Kind.RUNTIMES,
    Mapping[str, Ulimit]: Kind.ULIMITS,
    BuilderGc: Kind.BUILDER,
}


def _declared() -> Iterator[Option]:
    """The options of the fields of ``Config``, with key, kind and flag."""
    for field in fields(Config):
        if get_origin(field.type) is not Annotated:
            continue
        value, *marks = get_args(field.type)
        key = field.name.replace("_", "-")
        kind = next((mark for mark in marks if isinstance(mark, Kind)), None) or _KINDS[value]
        for option in marks:
            if isinstance(option, Option):
                yield replace(option, key=key if option.flag else "", flag=option.flag or key, kind=kind)


_OTHERS = (
    Option("Print usage", "help", kind=Kind.BOOL, only_flag=True),
    Option("Accepted: the log has no colours", "raw-logs", kind=Kind.BOOL),
    Option("Check the configuration and exit", "validate", kind=Kind.BOOL, only_flag=True),
    Option("Print the version and exit", "version", kind=Kind.BOOL, short="v", only_flag=True),
    # dockerd's, refused by name.
    Option(flag="allow-nondistributable-artifacts", kind=Kind.LIST, refused="removed from the Engine API in 1.49"),
    Option(flag="api-cors-header", refused="put a proxy that sets CORS headers in front of the API"),
    Option(flag="containerd-plugins-namespace", key="containerd-plugin-namespace", refused="no plugins"),
    Option(flag="cpu-rt-period", kind=Kind.INT, refused="set real-time limits on the containers", allowed=0),
    Option(flag="cpu-rt-runtime", kind=Kind.INT, refused="set real-time limits on the containers", allowed=0),
    Option(flag="cri-containerd", kind=Kind.BOOL, refused="the supervisor has no CRI", allowed=False),
    Option(flag="default-init", only_file=True, refused="name it by init-path"),
    Option(flag="firewall-backend", refused="the engine uses nftables", allowed="nftables"),
    Option(flag="network-control-plane-mtu", kind=Kind.INT, refused=_NO_GOSSIP, allowed=1500),
    Option(flag="network-diagnostic-port", kind=Kind.INT, refused=_NO_GOSSIP, allowed=0),
    Option(flag="nri-opts", kind=Kind.SWITCHES, refused="the engine has no NRI plugins", allowed={"enable": False}),
    Option(flag="resolv-conf", only_file=True, refused="name the servers by dns"),
    Option(flag="rootless", kind=Kind.BOOL, refused="the engine needs root", allowed=False),
    Option(flag="selinux-enabled", kind=Kind.BOOL, refused="SELinux labels are not supported", allowed=False),
    Option(flag="storage-opt", key="storage-opts", kind=Kind.LIST, refused="the snapshotters have no options"),
    Option(flag="swarm-raft-election-tick", kind=Kind.INT, only_file=True, refused=_NO_RAFT, allowed=0),
    Option(flag="swarm-raft-heartbeat-tick", kind=Kind.INT, only_file=True, refused=_NO_RAFT, allowed=0),
    Option(flag="userland-proxy-path", refused="the engine has its own proxy"),
)

#: All options, in the order of ``--help``.
OPTIONS: Sequence[Option] = tuple(sorted((*_declared(), *_OTHERS), key=lambda option: option.flag))
BY_FLAG = {option.flag: option for option in OPTIONS if not option.only_file}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}
BY_KEY = {option.name: option for option in OPTIONS if not option.only_flag}
# Objects in the file whose members are keys themselves: "proxies": {"http-proxy": ...}.
FLATTENED = frozenset({"proxies"})
# Keys that may be in the file although the flag is given: both are merged.
MERGED = frozenset({"runtimes"})
