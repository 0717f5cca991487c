"""The limits of a template's time and memory."""

import time

import pytest

from server.gotemplate.parse import TemplateError
from server.gotemplate.template import render

GROWING = '{{$a:="xxxxxxxxxx"}}' + '{{$a:=printf "%s%s%s%s%s%s%s%s%s%s" $a $a $a $a $a $a $a $a $a $a}}' * 9
LOOPS = "{{range .L}}{{range $.L}}{{range $.L}}{{range $.L}}x{{end}}{{end}}{{end}}{{end}}"


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        ('{{pad "x" 999999999 999999999}}', "TEMPLATE_BYTES"),
        ('{{printf "' + "%999999d" * 100 + '" 1}}', "TEMPLATE_BYTES"),
        (GROWING, "TEMPLATE_BYTES"),
        (LOOPS, "TEMPLATE_STEPS"),
        ('{{printf "%9999s" "x"}}' * 1000, "TEMPLATE_BYTES"),
        ("x" * 2_000_000, "TEMPLATE_BYTES"),
        ("{{" + "(" * 50_000 + "1" + ")" * 50_000 + "}}", "maximum template depth"),
    ],
)
def test_limits(source: str, limit: str) -> None:
    begin = time.monotonic()
    with pytest.raises(TemplateError, match=limit):
        render("log-tag", source, {"L": ["x"] * 300}, "logger.Info")
    assert time.monotonic() - begin < 60


def test_too_wide_fields_have_gos_errors() -> None:
    assert render("t", '{{printf "%999999999d" 1}}', {}, "x") == "%!(BADWIDTH)"
    assert render("t", '{{printf "%.9999999d" 1}}', {}, "x") == "%!(BADPREC)"
    assert render("t", '{{printf "%5d|%-3s|%.1f" 1 "a" 2.25}}', {}, "x") == "    1|a  |2.2"
