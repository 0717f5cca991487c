"""Owners: the text in records that says to whom an object belongs (see the package's docstring)."""

#: The label of inspect and of lists, with which an administrator sees an object's owner.
OWNER_LABEL = "io.wharf.owner"


def user_of(owner: str) -> str:
    """The user to whom an owner belongs; "" for the administrators."""
    return owner.partition(":")[0]


def is_within(owner: str, scope: str) -> bool:
    """Whether an object of ``owner`` counts for the limits of ``scope``: a user, with all its job sockets, or the owner
    of what is created through one job socket."""
    return owner == scope or user_of(owner) == scope


def qualified(owner: str, name: str) -> str:
    """The engine-wide form of a name that each owner may use: ``@alice/data``; the name itself for administrators.

    Names of volumes and images can't begin with ``@``.
    """
    return f"@{owner}/{name}" if owner else name


def unqualified(name: str) -> tuple[str, str]:
    """The owner and the name of a ``qualified`` name."""
    if not name.startswith("@"):
        return "", name
    owner, _, own = name[1:].partition("/")
    return owner, own
