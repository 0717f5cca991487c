"""Who has which GPU, and which GPUs a container can get now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from api_models.times import rfc3339
from engine.common.errors import Kind, WharfError, invalid
from server.access.owners import is_within, user_of
from server.access.refusal import refused
from server.gpus.catalog import Catalog
from server.gpus.demand import ALL, Demand

#: How many GPUs with their holders a sentence names.
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Terms:
    """What the role of a container's owner allows. ``most``: different GPUs of the user at one time, None: any number.
    ``shared``: CDI names of GPUs that its containers share with others. ``job``: different GPUs of the job socket."""

    most: int | None = None
    shared: frozenset[str] = frozenset()
    job: int | None = None

    @property
    def bound(self) -> int | None:
        """The most GPUs of one container; None: any number."""
        return min((each for each in (self.most, self.job) if each is not None), default=None)


@dataclass(frozen=True, slots=True)
class Hold:
    """The GPUs of one container. ``shared``: those of them that other containers may have, too. ``names``: the CDI
    devices that the container gets: those of the request, if it has names."""

    container: str
    owner: str
    gpus: frozenset[str]
    shared: frozenset[str]
    since_ns: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A demand that this host and the role can satisfy at some time. ``gpus``: those that are named, ``names``: their
    names in the request. ``counts``: how many more, by kind."""

    container: str
    owner: str
    gpus: frozenset[str]
    names: tuple[str, ...]
    counts: Mapping[str, int]
    terms: Terms
    shared: frozenset[str]

    @property
    def user(self) -> str:
        return user_of(self.owner)

    @property
    def total(self) -> int:
        return len(self.gpus) + sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a claim can't be satisfied now. ``usable``: the free GPUs that it could use. ``own``: the user's containers
    have as many GPUs as the role allows, so only their exits help."""

    message: str
    usable: frozenset[str] = frozenset()
    own: bool = False


@dataclass(slots=True)
class Allocator:
    """The GPUs of all containers. The caller makes all calls on one thread."""

    catalog: Catalog = field(default_factory=Catalog)
    #: By the container's id.
    holds: dict[str, Hold] = field(default_factory=dict)

    def replace_catalog(self, catalog: Catalog) -> None:
        """Takes over a changed catalog. A GPU that is in use and has another name there keeps its holders."""
        old, self.catalog = self.catalog, catalog

        def renamed(gpus: frozenset[str]) -> frozenset[str]:
            found: set[str] = set()
            for gpu in gpus:
                names = old.gpus[gpu].names if gpu in old.gpus else (gpu,)
                found |= frozenset().union(*map(catalog.covered, names)) or {gpu}
            return frozenset(found)

        for id, hold in self.holds.items():
            self.holds[id] = replace(hold, gpus=renamed(hold.gpus), shared=renamed(hold.shared))

    def claim(self, container: str, owner: str, demand: Demand, terms: Terms) -> Claim:
        """The claim for a demand. ``ALL`` is as many GPUs as the role allows, or all of this host.

        :raises WharfError: INVALID_ARGUMENT: this host lacks the GPUs; PERMISSION_DENIED: more than the role allows.
        """
        gpus: set[str] = set()
        for name in demand.names:
            covered = self.catalog.covered(name)
            if not covered:
                raise invalid(f"CDI device injection failed: unresolvable CDI devices {name}")
            gpus |= covered
        counts = {}
        for kind, count in demand.counts.items():
            present = len([gpu for gpu in self.catalog.of_kind(kind) if gpu.name not in gpus])
            if count == ALL:
                most = present if terms.bound is None else max(terms.bound - len(gpus), 1)
                count = max(min(present, most), 1)
            if count > present:
                raise invalid(f"{_gpus(count)} {kind} requested, but this host has {present}")
            counts[kind] = count
        shared = frozenset(gpu for name in terms.shared for gpu in self.catalog.covered(name))
        claim = Claim(container, owner, frozenset(gpus), demand.names, counts, terms, shared)
        if terms.bound is not None and claim.total > terms.bound:
            raise refused(f"{_gpus(claim.total)}: its limit is {terms.bound}")
        return claim

    def adopt(self, container: str, owner: str, gpus: Iterable[str], terms: Terms, since_ns: int) -> None:
        """Adds the GPUs of a container that runs already."""
        names = tuple(gpus)
        covered = {gpu for name in names for gpu in self.catalog.covered(name) or (name,)}
        shared = {gpu for name in terms.shared for gpu in self.catalog.covered(name)}
        self.holds[container] = Hold(container, owner, frozenset(covered), frozenset(covered & shared), since_ns, names)

    def allocate(self, claim: Claim, now_ns: int, reserved: frozenset[str] = frozenset()) -> Hold | Shortage:
        """Gives the claim's container its GPUs, all or none. ``reserved``: those that others wait for.

        Of GPUs that are only counted, it prefers those that nobody may share.
        """
        short: set[str] = set(claim.gpus) - self._free(claim, claim.gpus, reserved)
        picked = set(claim.gpus) - short
        names = list(claim.names)
        for kind, count in claim.counts.items():
            candidates = [gpu for gpu in self.catalog.of_kind(kind) if gpu.name not in claim.gpus]
            free = self._free(claim, (gpu.name for gpu in candidates), reserved)
            preferred = sorted(
                (gpu for gpu in candidates if gpu.name in free),
                key=lambda gpu: (gpu.name in claim.shared, len(self.holders(gpu.name))),
            )[:count]
            picked |= {gpu.name for gpu in preferred}
            names += [gpu.named(kind) for gpu in preferred]
            if len(preferred) < count:
                short |= {gpu.name for gpu in candidates} - free
        for scope, who, most in (
            (claim.user, f"{_user(claim.user)} has", claim.terms.most),
            (claim.owner, "the job socket has", claim.terms.job),
        ):
            own = self.within(scope)
            wanted = len(own | picked) if not short else len(own) + claim.total
            if most is not None and wanted > most:
                whose = "role's" if scope == claim.user else "job socket's"
                return Shortage(f"{who} {_gpus(len(own))}, and the {whose} limit is {most}", own=True)
        if short:
            return Shortage(self._busy(short, reserved), frozenset(picked))
        hold = Hold(
            claim.container, claim.owner, frozenset(picked), frozenset(picked & claim.shared), now_ns, tuple(names)
        )
        self.holds[claim.container] = hold
        return hold

    def _free(self, claim: Claim, gpus: Iterable[str], reserved: frozenset[str]) -> set[str]:
        return {
            gpu
            for gpu in gpus
            if gpu not in reserved and all(gpu in hold.shared and gpu in claim.shared for hold in self.holders(gpu))
        }

    def holders(self, gpu: str) -> list[Hold]:
        """The containers that have a GPU, the first of them first."""
        return sorted((hold for hold in self.holds.values() if gpu in hold.gpus), key=lambda hold: hold.since_ns)

    def within(self, scope: str) -> set[str]:
        """The GPUs of the containers of a user or of a job socket (``is_within``)."""
        return {gpu for hold in self.holds.values() if is_within(hold.owner, scope) for gpu in hold.gpus}

    def release(self, container: str) -> Hold | None:
        """Ends the allocation of a container; returns what it had."""
        return self.holds.pop(container, None)

    def _busy(self, gpus: Iterable[str], reserved: frozenset[str]) -> str:
        names = self.catalog.sorted(gpus)
        sentences = []
        for name in names[:_NAMED]:
            holders = self.holders(name)
            if holders:
                since = " and ".join(f"{_user(user_of(each.owner))} since {rfc3339(each.since_ns)}" for each in holders)
                sentences.append(f"{name} is held by {since}")
            elif name in reserved:
                sentences.append(f"{name} is reserved for a container that waits")
        if len(names) > _NAMED:
            sentences.append(f"{len(names) - _NAMED} more are in use")
        return ", ".join(sentences)


def busy(shortage: Shortage) -> WharfError:
    """The error for a claim that can't be satisfied now."""
    return WharfError(Kind.CONFLICT, f"not enough free GPUs: {shortage.message}")


def _user(user: str) -> str:
    return user or "an administrator"


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"
