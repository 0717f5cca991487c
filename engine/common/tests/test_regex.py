"""Regular expressions have Go's syntax and match in linear time."""

import re
import sys
import time

import pytest

from engine.common import regex


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^x*y?z$", "xxz"),
        ("[a-c]{2,3}d", "zabcd"),
        ("[a-c]{2,3}d", "zad"),
        ("a{0}b", "b"),
        ("(?i)HeLLo", "say hello"),
        ("(?i:a)b", "Ab"),
        ("foo|bar", "xbar"),
        (r"\bfoo\b", "a foo b"),
        (r"\bfoo\b", "afoo"),
        ("^$", ""),
        ("^$", "a"),
        ("[^a]", "a"),
        (r"\d+\.\d", "a1.2"),
        ("(?:ab)*c", "c"),
        ("()", "x"),
        ("{", "{"),
        ("a{,2}", "a{,2}"),
        ("[]a]", "]"),
        ("[a-]", "-"),
        ("^/?foo$", "/foo"),
        ("(?m)^b$", "a\nb\nc"),
        (".", "\n"),
        ("(?s).", "\n"),
        ("a+?b", "aab"),
        ("(a|b)*c", "ababc"),
        (r"[\w-]+@", "a-b@"),
        ("é", "café"),
    ],
)
def test_syntax_shared_with_python(pattern: str, text: str) -> None:
    assert regex.compiled(pattern).search(text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [("[[:alpha:]_]+1", "ab_1", True), (r"\z", "", True), (r"\Qa.b\E", "a.b", True), (r"\x{41}", "A", True)],
)
def test_syntax_that_python_lacks(pattern: str, text: str, found: bool) -> None:
    assert regex.compiled(pattern).search(text) is found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("x**", "invalid nested repetition operator: `**`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("(", "missing closing ): `(`"),
        (")", "unexpected ): `)`"),
        ("[a-z", "missing closing ]: `[a-z`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(a)\\1", "invalid escape sequence: `\\1`"),
        ("\\", "trailing backslash at end of expression: ``"),
        ("((a{1000}){1000}){1000}", "invalid repeat count: `{1000}`"),
        ("((){1000}){1000}", "invalid repeat count: `{1000}`"),
        (r"(\pL{500}){2}" * 40, "pattern too large - compile failed: `"),
        ("x" * 5000, "expression exceeds the limit REGEX_BYTES (4096): `xxx"),
    ],
)
def test_refused(pattern: str, message: str) -> None:
    with pytest.raises(regex.RegexError, match=re.escape(f"error parsing regexp: {message}")):
        regex.compiled(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "a?" * 200 + "a" * 200 + "b", "(.*)*x", "(" * 5000])
def test_no_backtracking(pattern: str) -> None:
    begin = time.monotonic()
    try:
        assert not regex.compiled(pattern).search("a" * 250 + "!")
    except regex.RegexError:
        assert pattern.startswith("((")
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("^/images/", "/images/create", True),
        ("^/images/", "x/images/", False),
        ("-init$", "a-init", True),
        ("-init$", "a-init\n", False),
        ("^[0-9a-f]", "f1", True),
        ("^[0-9a-f]", "run-1", False),
        ("^$", "", True),
        ("^$", "\n", False),
        ("", "x", True),
    ],
)
def test_simple_expressions_match_as_with_re2_and_do_not_load_it(
    pattern: str, text: str, matches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re2

    assert (re2.search(pattern, text) is not None) is matches
    monkeypatch.setitem(sys.modules, "re2", None)  # its import fails
    regex.compiled.cache_clear()
    assert regex.compiled(pattern).search(text) is matches


def test_an_invalid_range_has_gos_words() -> None:
    with pytest.raises(regex.RegexError, match="invalid character class range: `z-a`"):
        regex.compiled("^[z-a]")
