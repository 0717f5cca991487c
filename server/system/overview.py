"""What ``/wharf/v1`` shows of the policy: to administrators all users, to a user the own rights, limits and objects."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api_models.wharf import CallerPolicy, UserSummary
from server.access.caller import Caller
from server.access.identity import Account, account_of_name
from server.access.owners import user_of
from server.access.policy import Policy, Role
from server.containers.service import Containers
from server.images.service import Images
from server.networks.service import Networks
from server.volumes.service import Volumes


@dataclass(slots=True)
class Owned:
    """How many objects belong to a user, those of the user's job sockets included."""

    containers: int = 0
    running: int = 0
    volumes: int = 0
    networks: int = 0
    images: int = 0


async def owned(containers: Containers, networks: Networks, volumes: Volumes, images: Images) -> dict[str, Owned]:
    """What exists for the caller of these services, by user."""
    found: defaultdict[str, Owned] = defaultdict(Owned)
    for container in containers.visible:
        has = found[user_of(container.owner)]
        has.containers += 1
        has.running += container.state.running
    for network in networks.visible:
        if not network.predefined:
            found[user_of(network.owner)].networks += 1
    for volume in volumes.all():
        found[user_of(volume.owner)].volumes += 1
    for owner, count in (await images.list.count_by_owner()).items():
        found[user_of(owner)].images += count
    return dict(found)


def rules(role: Role | None) -> tuple[dict[str, Any], dict[str, Any]] | tuple[None, None]:
    """The rights and the limits of a role, with the names of ``policy.toml``. Limits that don't exist are left out."""
    if role is None:
        return None, None
    values = role.model_dump(mode="json")
    limits = set(limit_names())
    return (
        {name: value for name, value in values.items() if name not in limits},
        {name: value for name, value in values.items() if name in limits and value is not None},
    )


def limit_names() -> Iterable[str]:
    """A limit may be absent; a right is refused unless it is given."""
    return (name for name, field in Role.model_fields.items() if field.default is None)


def rule_schemas() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """The JSON schemas of rights and limits: parameter ``replaced`` of ``server.http.openapi.description``."""
    properties = {name: {**schema} for name, schema in Role.model_json_schema()["properties"].items()}
    limits = set(limit_names())
    for name, schema in properties.items():
        del schema["title"], schema["default"]
        if name in limits:
            schema.update(schema.pop("anyOf")[0])

    def table(names: Iterable[str], *, required: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"type": ["object", "null"], "properties": {name: properties[name] for name in names}}
        return {**found, "required": list(found["properties"])} if required else found

    rights = table((name for name in properties if name not in limits), required=True)
    shown = table((name for name in properties if name in limits), required=False)
    return {
        (CallerPolicy.__name__, "Rights"): rights,
        (CallerPolicy.__name__, "Limits"): shown,
        (UserSummary.__name__, "Limits"): shown,
    }


def caller_policy(policy: Policy, caller: Caller) -> CallerPolicy:
    rights, limits = rules(caller.role)
    return CallerPolicy(
        user=caller.user,
        administrator=caller.administrator,
        role=policy.name_of(caller.role),
        scope=caller.scope.name if caller.scope is not None else "",
        rights=rights,
        limits=limits,
    )


async def users(
    policy: Policy,
    caller: Caller,
    owned: Mapping[str, Owned],
    *,
    by_name: Callable[[str], Account | None] = account_of_name,
) -> list[UserSummary]:
    """A row for each user who is named in the policy or to whom something belongs, by name, the administrators first;
    for a user the own row. ``owned``: what exists for the caller, by user. ``by_name`` looks up the host's users, in a
    thread."""
    if not caller.administrator:
        return [_summary(policy, caller.user, caller.role, owned, administrator=False)]
    scope = caller.scope
    names = [
        name
        for name in sorted({"", *policy.named_users, *owned})
        if scope is None or scope.owners is None or name in scope.owners
    ]
    accounts = await asyncio.to_thread(lambda: {name: by_name(name) for name in names if name})
    found = []
    for name in names:
        account = accounts.get(name) or Account(name, -1)
        administrator = not name or policy.administers(name, account.uid, account.gids)
        role = None if administrator else policy.role_of(name, account.gids)
        found.append(_summary(policy, name, role, owned, administrator=administrator))
    return found


def _summary(
    policy: Policy, user: str, role: Role | None, owned: Mapping[str, Owned], *, administrator: bool
) -> UserSummary:
    has = owned.get(user) or Owned()
    return UserSummary(
        user=user,
        administrator=administrator,
        role=policy.name_of(role),
        containers=has.containers,
        running=has.running,
        volumes=has.volumes,
        networks=has.networks,
        images=has.images,
        limits=rules(role)[1],
    )
