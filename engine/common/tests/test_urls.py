"""Invalid URLs raise Go's sentences, and no other exception."""

import pytest

from engine.common.errors import WharfError
from engine.common.urls import parse_url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://[a-z", "missing ']' in host"),
        ("http://[::1", "missing ']' in host"),
        ("http://a:b/", 'invalid port ":b" after host'),
        ("http://a:-1/", 'invalid port ":-1" after host'),
        ("http://\x7fa/", "net/url: invalid control character in URL"),
        ("http://%zz/", 'invalid URL escape "%zz"'),
        ("http://%2Fdata%2Ffile.tar", 'invalid URL escape "%2F"'),
        ("http://a%25b/", 'invalid URL escape "%25"'),
        ("http://[fe80::1%2F]/", 'invalid URL escape "%2F"'),
        ("http://a b/", 'invalid character " " in host name'),
        ("http://[zz]/x", ""),
        ("http://a:99999999/", ""),
        ("http://\u2100/", ""),
    ],
)
def test_refused(url: str, why: str) -> None:
    with pytest.raises(WharfError) as refused:
        parse_url(url)
    assert refused.value.message.startswith('parse "http://')
    assert refused.value.message.endswith(why)


@pytest.mark.parametrize(
    "url",
    [
        "http://a/b?c=%zz#d",
        "https://u:p@h:1/x",
        "http://[::1]:80/",
        "http://h:",
        "http://",
        "git://h/x%20y",
        "http://[fe80::1%25eth0]/",
        "http://%C3%A9/",
    ],
)
def test_accepted(url: str) -> None:
    assert parse_url(url).geturl()
