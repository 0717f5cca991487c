"""``wharf policy check``: reads a policy as the engine does, without an engine."""

import json
import pwd
from pathlib import Path

from server.access.policy import Policy, PolicyError, read_policy


def check(path: Path, *, as_json: bool) -> int:
    """Prints each mistake of the policy, and what it names and this host lacks. Returns the exit status: 0 if the
    policy is valid."""
    problems: tuple[str, ...] = ()
    notes: list[str] = []
    roles: list[str] = []
    try:
        policy = read_policy(path)
    except PolicyError as error:
        problems = error.problems
    else:
        notes, roles = _notes(policy), list(policy.roles)
    if as_json:
        print(json.dumps({"Valid": not problems, "Problems": problems, "Notes": notes, "Roles": roles}, indent=2))
        return 1 if problems else 0
    for problem in problems:
        print(f"{path}: {problem}")
    for note in notes:
        print(f"{path}: note: {note}")
    if not problems:
        print(f"{path}: valid; roles: {', '.join(roles) or '(none)'}")
    return 1 if problems else 0


def _notes(policy: Policy) -> list[str]:
    notes = [f"this host has no group {name}" for name in policy.missing_groups]
    for name in (*policy.administrators.users, *policy.named_users):
        try:
            pwd.getpwnam(name)
        except KeyError:
            notes.append(f"this host has no user {name}: the name can only be that of a client certificate")
    return notes
