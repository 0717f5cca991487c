"""The declarations of log drivers: options, and the settings for the shim's modules."""

from importlib import import_module
from typing import Any

import pytest

from engine.common.errors import Kind, WharfError
from engine.shim.logs import remote
from server.logdrivers.driver import Info
from server.logdrivers.drivers import DRIVERS
from server.logdrivers.options import check_log_options

INFO = Info(
    container_id="c" * 64,
    container_name="one",
    image_id="sha256:1",
    image_name="x",
    command="sh -c true",
    created="2023-01-01T00:00:00Z",
    tag="the-tag",
    options={"gelf-address": "udp://h:1"},
    attributes=lambda: {"a-label": "1"},
)


def test_each_driver_has_its_module_in_the_shim() -> None:
    for driver in DRIVERS.values():
        if driver.settings is not None:
            assert callable(import_module(f"{remote.__name__}.{driver.name}").make), driver.name


def test_settings_name_the_container() -> None:
    seen: dict[str, Any] = {}
    for name in ("syslog", "gelf", "fluentd", "journald"):
        make = DRIVERS[name].settings
        assert make is not None
        seen[name] = make(INFO)
    assert (seen["syslog"]["scheme"], seen["syslog"]["facility"], seen["syslog"]["tag"]) == ("", 3, "the-tag")
    assert (seen["gelf"]["scheme"], seen["gelf"]["port"], seen["gelf"]["compression"]) == ("udp", 1, "gzip")
    assert {"_tag": "the-tag", "_a-label": "1"}.items() <= seen["gelf"]["fields"].items()
    assert seen["fluentd"]["record"] == {
        "container_id": "c" * 64,
        "container_name": "/one",
        "a-label": "1",
    }
    assert {"CONTAINER_TAG": "the-tag", "A_LABEL": "1"}.items() <= seen["journald"]["fields"].items()


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("json-file", {"max-siz": "1"}, "unknown log opt 'max-siz' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("gelf", {"nope": "x"}, 'unknown log opt "nope" for gelf log driver'),
        ("gelf", {}, "gelf-address is a required parameter"),
        (
            "gelf",
            {"gelf-address": "udp://h:1", "gelf-tcp-max-reconnect": "3"},
            '"gelf-tcp-max-reconnect" is only',
        ),
        ("syslog", {"syslog-facility": "nope"}, "invalid syslog facility"),
        ("syslog", {"syslog-address": "sctp://h"}, "unsupported scheme: 'sctp'"),
        ("fluentd", {"fluentd-async": "true", "fluentd-async-connect": "true"}, "cannot specify both"),
        ("fluentd", {"fluentd-retry-wait": "soon"}, 'time: invalid duration "soon"'),
        ("splunk", {}, "log driver splunk is not supported by this engine"),
        ("nosuch", {}, 'error looking up logging plugin nosuch: plugin "nosuch" not found'),
        ("journald", {"mode": "odd"}, "logger: logging mode not supported: odd"),
    ],
)
def test_options_refused_in_dockerds_words(kind: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(WharfError) as caught:
        check_log_options(kind, options)
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert sentence in caught.value.message


def test_valid_options() -> None:
    check_log_options("none", {"anything": "x"})
    check_log_options("json-file", {"max-size": "1m", "labels": "a", "cache-disabled": "true"})
    check_log_options("fluentd", {"fluentd-address": "unix:///s", "fluentd-buffer-limit": "1m", "mode": "blocking"})
