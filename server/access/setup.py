"""Makes and reloads the gate of an engine that has a policy or sockets with a scope."""

from collections.abc import Iterable
from pathlib import Path

from server.access.caller import Caller
from server.access.gate import Gate, Gated
from server.access.policy import Ids, Policy, check_listeners, read_policy
from server.access.scope import Scope
from server.config.hosts import parse_host
from server.config.model import Config
from server.config.types import ConfigError

#: The scope that needs no table in the policy: everything may be read.
READ = Scope("read")


def read(config: Config, endpoints: Iterable[str] | None = None) -> tuple[Policy | None, dict[str, Caller]]:
    """Reads the policy and the scopes of the sockets: the first two parameters of ``Gate.reload``.

    ``endpoints``: those of the engine, spelled as in ``Scope``; None: names of endpoints are not checked.
    :raises ConfigError: the policy is invalid, a socket has a scope that doesn't exist or names an unknown endpoint, or
        the clients of a socket have no identity.
    """
    policy = None
    if config.has_policy:
        check_listeners(config)
        policy = read_policy(Path(config.policy_file))
    callers = _callers(config, policy)
    known = frozenset(endpoints) if endpoints is not None else None
    for scope in (*(policy.scopes.values() if policy is not None else ()), READ):
        unknown = sorted(scope.endpoints - known) if scope.endpoints is not None and known is not None else ()
        if unknown:
            raise ConfigError(f"scope {scope.name}: there is no endpoint {unknown[0]}")
    return policy, callers


def pool_of_ids(config: Config) -> tuple[int, int]:
    """The first and the last id of the policy's pool (``Ids``).

    :raises ConfigError: the policy is invalid.
    """
    return read_policy(Path(config.policy_file)).ids.pool if config.has_policy else Ids().pool


def make_gate(config: Config, endpoints: Iterable[str], engine: Gated) -> Gate:
    """The parameters: see ``read`` and ``Gate``.

    :raises ConfigError: see ``read``.
    """
    policy, callers = read(config, endpoints)
    return Gate(engine, policy, callers)


def reread(gate: Gate, config: Config, endpoints: Iterable[str]) -> tuple[Policy | None, dict[str, Caller]]:
    """As ``read``, for a reload of ``gate``. A policy that appears or disappears needs a restart: the objects of an
    engine without a policy have no owners, and without the policy they would belong to everybody.

    :raises ConfigError: also: the policy is missing.
    """
    if gate.policy is not None and not config.has_policy:
        raise ConfigError(f"policy file {config.policy_file}: no such file: the former policy stays")
    policy, callers = read(config, endpoints)
    return (policy if gate.policy is not None else None), callers


def _callers(config: Config, policy: Policy | None) -> dict[str, Caller]:
    """The callers of the sockets with a scope, by path: who may connect is decided by the mode of the socket."""
    found = {}
    for host in map(parse_host, config.hosts):
        if not host.scope:
            continue
        scope = policy.scopes.get(host.scope) if policy is not None else None
        if scope is None and host.scope == READ.name:
            scope = READ
        if scope is None:
            raise ConfigError(f"{host}: the policy has no scope {host.scope}")
        found[host.path] = Caller(user=f"scope {scope.name}", scope=scope)
    return found
