"""Templates: outputs and errors, recorded from a real dockerd."""

import pytest

from server.gotemplate.parse import TemplateError
from server.gotemplate.template import render

DATA = {
    "Env": ["A=1", "B=2"],
    "Labels": {"a.b": "lv", "foo": "bar"},
    "Args": ["hello", "w"],
    "Name": lambda: "E-tag",
    "ID": lambda: "0123456789ab",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}/{{ .ID }}", "E-tag/0123456789ab"),
        ('{{index .Labels "a.b"}} {{index .Labels "nope"}}x', "lv x"),
        ("{{.Labels}} {{.Args}} {{.Labels.foo}}", "map[a.b:lv foo:bar] [hello w] bar"),
        ("{{lower .Name | upper}} {{title .Name}}", "E-TAG E-Tag"),
        ("{{with .Name}}{{.}}{{else}}none{{end}}", "E-tag"),
        ('{{if eq .Name "x"}}a{{else if eq 1 2}}b{{else}}c{{end}}', "c"),
        ("{{range $i, $e := .Args}}{{$i}}={{$e}},{{end}}", "0=hello,1=w,"),
        ("{{range .Args}}<{{.}}{{$.Name}}>{{end}}", "<helloE-tag><wE-tag>"),
        ("{{json .Env}}", '["A=1","B=2"]'),
        ('{{printf "%-8s|%q|%03d|%%" .Name .ID 5}}', 'E-tag   |"0123456789ab"|005|%'),
        ("a  {{- .Name -}}  b {{- /* left out */ -}} c", "aE-tagbc"),
        ('{{(index (split .Name "-") 1)}} {{join .Args "-"}}', "tag hello-w"),
        ("{{$x := .Name}}{{$x}}", "E-tag"),
        ('{{not .Name}} {{or "" "b"}} {{and 1 0}} {{len .Args}}', "false b 0 2"),
        ('{{slice .Name 1 3}} {{truncate .ID 3}} {{pad "x" 1 2}}|', "-t 012  x  |"),
        ('{{print 1 2 "x" 3}} {{urlquery "a b"}} {{html "<a>"}} {{js "it\\x27s"}}', "1 2x3 a+b &lt;a&gt; it\\'s"),
        ("{{`raw`}} {{true}} {{1.5}}", "raw true 1.5"),
    ],
)
def test_outputs(template: str, text: str) -> None:
    assert render("log-tag", template, DATA, "logger.Info") == text


AT = ': executing "log-tag" at '


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Foo}}", f":2{AT}<.Foo>: can't evaluate field Foo in type *logger.Info"),
        ("{{.Name.Foo}}", f":7{AT}<.Name.Foo>: can't evaluate field Foo in type string"),
        ("{{and .Name .Foo}}", f":12{AT}<.Foo>: can't evaluate field Foo in type *logger.Info"),
        ("{{foo}}", ': function "foo" not defined'),
        ("{{.Name | foo}}", ': function "foo" not defined'),
        ("{{.Name", ": unclosed action"),
        ("{{", ": unclosed action"),
        ("{{}}", ": missing value for command"),
        ("{{if}}a{{end}}", ": missing value for if"),
        ("{{end}}", ": unexpected {{end}}"),
        ("{{else}}", ": unexpected {{else}}"),
        ("{{if .Name}}", ": unexpected EOF"),
        ('{{ "abc }}', ": unterminated quoted string"),
        ("{{%}}", ': unexpected "%" in command'),
        ("{{.Name)}}", ": unexpected right paren"),
        ("{{(.Name}}", ": unclosed left paren"),
        ("{{$y}}", ': undefined variable "$y"'),
        ('{{template "x"}}', f':11{AT}<{{{{template "x"}}}}>: template "x" not defined'),
        ("{{index .Args 9}}", f":2{AT}<index .Args 9>: error calling index: index out of range: 9"),
        ("{{len 3}}", f":2{AT}<len 3>: error calling len: len of type int"),
        ("{{1 | .Name}}", f":6{AT}<.Name>: wrong number of args for Name: want 0 got 1"),
        ('{{.Name "x"}}', f":2{AT}<.Name>: wrong number of args for Name: want 0 got 1"),
        ("{{lower 1}}", f":8{AT}<1>: expected string; found 1"),
        ("{{split .Name}}", f":2{AT}<split>: wrong number of args for split: want 2 got 1"),
        ("{{range .Name}}x{{end}}", f":8{AT}<.Name>: range can't iterate over E-tag"),
        ("{{1 2}}", f":2{AT}<1>: can't give argument to non-function 1"),
    ],
)
def test_errors(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render("log-tag", template, DATA, "logger.Info")
    assert str(caught.value) == f"template: log-tag:1{words}"
