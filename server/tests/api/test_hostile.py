"""Every endpoint, asked by a user for what belongs to another: it answers as if that didn't exist.

The tests are made of the route table and of the rules in ``hostile.py``.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from server.http.routing import ApiRoute, Audience
from server.routes import all_routes
from server.tests.api.hostile import RULES, Administrators, Named, Registry, Same, View
from server.tests.api.victim import ALICE, BOB, Victim, anonymous, dismantle, furnish, lab
from server.tests.daemon import Daemon

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def routes_of(*kinds: type) -> list[Any]:
    """The endpoints with a rule of these kinds."""
    found = [route for route in all_routes() if isinstance(RULES.get(route.spelled), kinds)]
    return [pytest.param(route, id=route.spelled) for route in found]


def test_every_endpoint_has_a_rule() -> None:
    spelled = {route.spelled for route in all_routes()}
    missing, unknown = sorted(spelled - set(RULES)), sorted(set(RULES) - spelled)
    assert not missing, f"what does a hostile user get from {missing}? Add a rule to RULES in hostile.py"
    assert not unknown, f"there are no such endpoints: {unknown}"


def test_rules_agree_with_the_audience() -> None:
    for route in all_routes():
        rule = RULES[route.spelled]
        if route.audience is Audience.ADMINISTRATORS or isinstance(rule, Administrators):
            assert route.audience is Audience.ADMINISTRATORS, route.spelled
            assert isinstance(rule, Administrators), route.spelled
        if route.audience is Audience.ALL:
            assert isinstance(rule, Same | Registry), route.spelled


def _ask(daemon: Daemon, route: ApiRoute, key: str, rule: Named | None = None) -> tuple[int, dict[str, str], str]:
    """Status, headers and body."""
    options: dict[str, Any] = {"headers": dict(rule.headers) if rule else {}}
    if rule is not None:
        options["params"] = dict(rule.query)
        if isinstance(rule.body, bytes):
            options["content"] = rule.body
        elif rule.body is not None:
            options["json"] = rule.body
    answer = daemon.request(route.method, _PARAMETER.sub(key, route.path), **options)
    headers = {name: anonymous(value, key) for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, headers, anonymous(answer.text, key)


@pytest.mark.parametrize("route", routes_of(Named))
def test_what_others_have_answers_as_what_nobody_has(victim: Victim, route: ApiRoute) -> None:
    rule = RULES[route.spelled]
    assert isinstance(rule, Named)
    for key, absent in victim.keys[rule.noun]:
        asked = _ask(victim.bob, route, key, rule)
        assert asked == _ask(victim.bob, route, absent, rule), key
        assert asked[0] in (rule.status, 400), (key, asked)  # 400: not the form of a name


@pytest.mark.parametrize("route", routes_of(Named))
def test_the_requests_of_the_rules_are_valid(victim: Victim, route: ApiRoute) -> None:
    """An answer that is not about the object would make the test above useless."""
    rule = RULES[route.spelled]
    assert isinstance(rule, Named)
    key, _ = victim.keys[rule.noun][0]
    status, _, body = _ask(victim.bob, route, key, rule)
    assert status == rule.status
    if route.method != "HEAD":
        assert "KEY" in body, body


@pytest.mark.parametrize("route", routes_of(Administrators))
def test_endpoints_of_administrators(victim: Victim, route: ApiRoute) -> None:
    expected = f"{route.method} {route.path} is for administrators of this engine"
    for key, absent in victim.keys["container"]:
        asked = _ask(victim.bob, route, key)
        assert asked == _ask(victim.bob, route, absent)
        assert (asked[0], expected in asked[2]) == (403, True)


@pytest.mark.parametrize("route", routes_of(Same))
def test_endpoints_that_say_the_same_to_all(victim: Victim, route: ApiRoute) -> None:
    for keys in victim.keys.values():
        key, absent = keys[0]
        answers = [_ask(daemon, route, each) for daemon in (victim.bob, victim.alice) for each in (key, absent)]
        assert answers == [answers[0]] * 4


def _document(daemon: Daemon, route: ApiRoute) -> Any:
    rule = RULES[route.spelled]
    assert isinstance(rule, View)
    answer = daemon.request(route.method, route.path, params=dict(rule.query))
    assert answer.status_code == 200, answer.text
    if "json" not in answer.headers.get("content-type", ""):
        return answer.content
    document = answer.json() if answer.content else None
    if isinstance(document, dict):
        assert rule.volatile <= set(document)
        return {name: value for name, value in document.items() if name not in rule.volatile}
    return document


def test_views_do_not_change_with_the_objects_of_others(tmp_path: Path) -> None:
    """Lists, counters, sums and what prunes remove, before, with, and after alice's objects."""
    views = [route for route in all_routes() if isinstance(RULES.get(route.spelled), View)]
    with lab(tmp_path) as daemon:
        alice, bob = daemon.as_uid(ALICE), daemon.as_uid(BOB)
        for user in (alice, bob):
            user.get("/networks/bridge")  # creates it
        for route in views:
            _document(bob, route)  # prunes
        before = {route.spelled: _document(bob, route) for route in views}
        furnish(alice)
        for route in views:
            assert _document(bob, route) == before[route.spelled], route.spelled
        assert len(alice.get("/containers/json", all=1).json()) == 2
        dismantle(alice)
        for route in views:
            assert _document(bob, route) == before[route.spelled], route.spelled
