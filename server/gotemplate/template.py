"""The part of Go's text/template that ``--log-opt tag=`` needs.

It has actions, pipelines, fields, variables, ``if``, ``with``, ``range``, the built-in functions for text, and those
that Docker adds. The data are dicts (structs and maps), lists, strings, numbers and booleans; a callable is a method.
Errors have Go's sentences.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.common import jsontext, limits
from server.gotemplate.functions import COUNTS, FUNCTIONS, TEXTS, gotype, to_text, truth

_TOKEN = re.compile(
    r"""\s+|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)|(?P<char>'(?:\\.|[^'\\])+')|(?P<number>[+-]?\d[\w.]*)"""
    r"""|(?P<field>\.[A-Za-z_]\w*)|(?P<variable>\$\w*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[.()|,=])"""
)
_TRIM_LEFT, _TRIM_RIGHT = re.compile(r"\{\{-\s"), re.compile(r"\s-\}\}")
_KEYWORDS = ("if", "else", "end", "with", "range", "break", "continue", "define", "template", "block")


class TemplateError(ValueError):
    """A malformed template, or an error of its execution; the message is Go's."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(slots=True)
class _Node:
    """A node of the syntax tree. ``kind``: text, pipe, if, with or range. ``names``: the declared variables. ``other``:
    the nodes after ``else``."""

    kind: str
    text: str = ""
    pipe: "list[_Command]" = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    body: "list[_Node]" = field(default_factory=list)
    other: "list[_Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Command:
    """A command of a pipeline. ``words``: its operands, which are tokens (constants and functions) or chains. ``text``:
    its source, which errors quote; ``at``: the source's offset."""

    words: list[Any]
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain of fields such as ``.A.B``. ``base``: None for the dot, a variable's token, or a pipeline in
    parentheses."""

    base: Any
    fields: tuple[_Token, ...]
    text: str
    at: int


def render(name: str, source: str, data: Mapping[str, Any], typename: str) -> str:
    """The output of a template. ``name``: the template's name, ``typename``: the name of the type of ``data``, both for
    errors.

    :raises TemplateError: the template is malformed, refers to an unknown field, or exceeds a limit.
    """
    if len(source) > limits.TEMPLATE_BYTES:
        raise TemplateError(f"template: {name}: exceeds the limit TEMPLATE_BYTES ({limits.TEMPLATE_BYTES})")
    try:
        nodes = _Parser(name, source).parse()
        return _Run(name, typename, data).nodes(nodes, data)
    except RecursionError:
        raise TemplateError(f"template: {name}: exceeded maximum template depth") from None


class _Parser:
    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source
        self._at = 0
        self._tokens: list[_Token] = []
        self._variables = ["$"]

    def _error(self, message: str) -> TemplateError:
        line = self._source.count("\n", 0, self._at) + 1
        return TemplateError(f"template: {self._name}:{line}: {message}")

    def parse(self) -> list[_Node]:
        nodes, ended = self._list()
        if ended:
            raise self._error(f"unexpected {{{{{ended}}}}}")
        return nodes

    def _list(self) -> tuple[list[_Node], str]:
        """Parses nodes up to the end of the source, ``end`` or ``else``. Returns them and the keyword, "" at the end of
        the source. ``self._tokens`` has the tokens after the keyword."""
        nodes: list[_Node] = []
        while self._at < len(self._source):
            begin = self._source.find("{{", self._at)
            text = self._source[self._at :] if begin < 0 else self._source[self._at : begin]
            if begin >= 0 and _TRIM_LEFT.match(self._source, begin):
                text = text.rstrip()
            if text:
                nodes.append(_Node("text", text))
            if begin < 0:
                self._at = len(self._source)
                break
            word = self._action(begin)
            if word in ("end", "else"):
                return nodes, word
            if word in ("if", "with", "range"):
                nodes.append(self._block(word))
            elif self._tokens:
                nodes.append(self._pipeline_node("pipe"))
        return nodes, ""

    def _action(self, begin: int) -> str:
        """Reads the tokens of the action at ``begin`` into ``self._tokens``. Returns its keyword, "" if it has none."""
        self._at = begin
        inside = begin + (3 if _TRIM_LEFT.match(self._source, begin) else 2)
        comment = re.compile(r"\s*/\*.*?\*/\s*-?\}\}", re.DOTALL).match(self._source, inside)
        self._tokens = []
        if comment:
            self._end_action(comment.end())
            return ""
        at = inside
        while not self._source.startswith("}}", at):
            if _TRIM_RIGHT.match(self._source, at):
                at = self._source.index("}}", at)
                break
            if at >= len(self._source) or self._source[at] == "\n":
                raise self._error("unclosed action")
            found = _TOKEN.match(self._source, at)
            if found is None:
                if self._source[at] in "\"`'":
                    raise self._error("unterminated quoted string")
                raise self._error(f"unexpected {json.dumps(self._source[at])} in command")
            if found.lastgroup:
                self._tokens.append(_Token(found.lastgroup, found[0], at))
            at = found.end()
        self._end_action(at + 2)
        if not self._tokens:
            raise self._error("missing value for command")
        first = self._tokens[0]
        if first.kind == "word" and first.text in _KEYWORDS:
            if first.text == "template" and len(self._tokens) > 1:
                named = self._tokens[1]
                text, message = f"{{{{template {named.text}}}}}", f"template {named.text} not defined"
                raise _execution_error(self._name, named.at, text, message)
            if first.text not in ("if", "else", "end", "with", "range"):
                raise self._error(f"{{{{{first.text}}}}} is not supported here")
            del self._tokens[0]
            return first.text
        return ""

    def _end_action(self, end: int) -> None:
        """Continues after an action that ends at ``end``; skips the white space after ``-}}``."""
        self._at = end
        if _TRIM_RIGHT.match(self._source, max(0, end - 4)):
            while self._at < len(self._source) and self._source[self._at].isspace():
                self._at += 1

    def _block(self, kind: str) -> _Node:
        known = len(self._variables)
        node = self._pipeline_node(kind)
        node.body, ended = self._list()
        if ended == "else":
            if self._tokens and self._tokens[0].text in ("if", "with"):
                word = self._tokens.pop(0).text
                node.other = [self._block(word)]
                return node
            node.other, ended = self._list()
        if ended != "end":
            raise self._error("unexpected EOF" if not ended else f"unexpected {{{{{ended}}}}}")
        del self._variables[known:]
        return node

    def _pipeline_node(self, kind: str) -> _Node:
        node = _Node(kind)
        declared = [token.text for token in self._tokens]
        if ":=" in declared or "=" in declared:
            where = declared.index(":=" if ":=" in declared else "=")
            node.names = [text for text in declared[:where] if text != ","]
            del self._tokens[: where + 1]
        node.pipe = self._pipeline(kind)
        if self._tokens:
            raise self._error("unexpected right paren")
        self._variables += node.names
        return node

    def _pipeline(self, where: str) -> list[_Command]:
        commands: list[_Command] = []
        while True:
            command = self._command()
            if command is None:
                raise self._error(f"missing value for {'command' if where == 'pipe' else where}")
            commands.append(command)
            if not (self._tokens and self._tokens[0].text == "|"):
                return commands
            del self._tokens[0]

    def _command(self) -> _Command | None:
        words: list[Any] = []
        begin = end = self._tokens[0].at if self._tokens else 0
        while self._tokens and self._tokens[0].text not in ("|", ")"):
            token = self._tokens.pop(0)
            base: Any = token
            end = token.at + len(token.text)
            if token.text == "(":
                base = self._pipeline("parenthesized pipeline")
                if not self._tokens:
                    raise self._error("unclosed left paren")
                end = self._tokens.pop(0).at + 1
            else:
                self._check(token)
            fields: list[_Token] = [token] if token.kind == "field" else []
            while self._tokens and self._tokens[0].kind == "field" and self._tokens[0].at == end:
                fields.append(self._tokens.pop(0))
                end = fields[-1].at + len(fields[-1].text)
            text = self._source[token.at : end]
            if token.kind == "field" or token.text == ".":
                words.append(_Chain(None, tuple(fields), text, token.at))
            elif fields or token.kind == "variable" or token.text == "(":
                words.append(_Chain(base, tuple(fields), text, token.at))
            else:
                words.append(base)
        return _Command(words, self._source[begin:end], begin) if words else None

    def _check(self, token: _Token) -> None:
        if token.kind == "word" and token.text not in ("true", "false", "nil") and token.text not in FUNCTIONS:
            raise self._error(f'function "{token.text}" not defined')
        if token.kind == "variable" and token.text not in self._variables:
            raise self._error(f'undefined variable "{token.text}"')
        if token.text in (",", "=", ":="):
            raise self._error(f"unexpected {json.dumps(token.text)} in operand")


def _execution_error(name: str, at: int, text: str, message: str) -> TemplateError:
    """The error of the operand ``text`` at the offset ``at`` of the template ``name``."""
    return TemplateError(f'template: {name}:1:{at}: executing "{name}" at <{text}>: {message}')


class _Run:
    """One execution of a template."""

    def __init__(self, name: str, typename: str, data: Any) -> None:
        self._name, self._typename = name, typename
        self._root = data
        self._variables: list[tuple[str, Any]] = [("$", data)]
        self._steps = 0
        self._size = 0

    def _error(self, at: int, text: str, message: str) -> TemplateError:
        return _execution_error(self._name, at, text, message)

    def nodes(self, nodes: Sequence[_Node], dot: Any) -> str:
        return "".join(self._node(node, dot) for node in nodes)

    def _node(self, node: _Node, dot: Any) -> str:
        self._steps += 1
        if self._steps > limits.TEMPLATE_STEPS:
            raise TemplateError(f"template: {self._name}: exceeds the limit TEMPLATE_STEPS ({limits.TEMPLATE_STEPS})")
        if node.kind == "text":
            return self._count(node.text)
        scope = len(self._variables)
        value = self._pipe(node.pipe, dot)
        if node.kind == "pipe":
            if not node.names:
                return self._count(self._to_text(value))
            self._variables.append((node.names[-1], value))
            return ""
        if node.kind == "range":
            text = self._range(node, value, dot)
        else:
            self._variables += [(name, value) for name in node.names]
            chosen = truth(value)
            inner = value if node.kind == "with" and chosen else dot
            text = self.nodes(node.body if chosen else node.other, inner)
        del self._variables[scope:]
        return text

    def _count(self, text: str) -> str:
        """Returns ``text`` and adds its length to that of the output.

        :raises TemplateError: the output exceeds its limit.
        """
        self._size += len(text)
        if self._size > limits.TEMPLATE_BYTES:
            raise TemplateError(f"template: {self._name}: exceeds the limit TEMPLATE_BYTES ({limits.TEMPLATE_BYTES})")
        return text

    def _to_text(self, value: Any) -> str:
        if value is self._root:
            return "{" + " ".join(to_text(item) for item in value.values() if not callable(item)) + "}"
        return to_text(value)

    def _range(self, node: _Node, value: Any, dot: Any) -> str:
        if not isinstance(value, Mapping | list):
            last = node.pipe[-1]
            raise self._error(last.at, last.text, f"range can't iterate over {to_text(value)}")
        pairs: list[tuple[Any, Any]]
        pairs = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
        if not pairs:
            return self.nodes(node.other, dot)
        parts = []
        for key, item in pairs:
            scope = len(self._variables)
            self._variables += zip(node.names, (key, item) if len(node.names) > 1 else (item,), strict=False)
            parts.append(self.nodes(node.body, item))
            del self._variables[scope:]
        return "".join(parts)

    def _pipe(self, commands: Sequence[_Command], dot: Any) -> Any:
        last: list[Any] = []
        for command in commands:
            last = [self._call(command, dot, last)]
        return last[0]

    def _call(self, command: _Command, dot: Any, last: list[Any]) -> Any:
        first, *rest = command.words
        arguments = [self._value(word, dot) for word in rest] + last
        if isinstance(first, _Token) and first.text in FUNCTIONS:
            self._check_arguments(first, rest, arguments)
            try:
                return FUNCTIONS[first.text](*arguments)
            except (TypeError, ValueError, LookupError) as error:
                reason = str(error) if isinstance(error, ValueError) else "wrong number or type of args"
                raise self._error(command.at, command.text, f"error calling {first.text}: {reason}") from None
        return self._value(first, dot, arguments)

    def _check_arguments(self, name: _Token, words: Sequence[Any], arguments: Sequence[Any]) -> None:
        """Checks the number and types of a function's arguments, whose operands are ``words``.

        :raises TemplateError: they don't match.
        """
        kinds = TEXTS.get(name.text, ())
        expected = len(kinds) or COUNTS.get(name.text)
        if expected is not None and expected != len(arguments):
            message = f"wrong number of args for {name.text}: want {expected} got {len(arguments)}"
            raise self._error(name.at, name.text, message)
        for word, kind, value in zip(words, kinds, arguments, strict=False):
            if not isinstance(value, kind):
                type_name = {str: "string", int: "integer", list: "[]string"}[kind]
                text = getattr(word, "text", "")
                raise self._error(getattr(word, "at", name.at), text, f"expected {type_name}; found {text}")

    def _value(self, word: Any, dot: Any, arguments: Sequence[Any] = ()) -> Any:
        if isinstance(word, _Chain):
            return self._chain(word, dot, arguments)
        if word.text in FUNCTIONS:
            return self._call(_Command([word], word.text, word.at), dot, [])
        if arguments:
            raise self._error(word.at, word.text, f"can't give argument to non-function {word.text}")
        if word.kind in ("string", "char"):
            text = word.text
            return text[1:-1] if text[0] == "`" else self._unquoted(word) if text[0] == '"' else ord(text[1])
        if word.kind == "number":
            return float(word.text) if re.search(r"[.eE]", word.text[1:]) else int(word.text, 0)
        return {"true": True, "false": False, "nil": None}[word.text]

    def _unquoted(self, word: _Token) -> str:
        # Converts the escapes of Go that JSON doesn't have.
        text = re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", word.text).replace("\\a", "\\u0007").replace("\\v", "\\u000b")
        try:
            return str(jsontext.loads(text))
        except ValueError:
            raise TemplateError(f"template: {self._name}:1: invalid syntax") from None

    def _chain(self, chain: _Chain, dot: Any, arguments: Sequence[Any]) -> Any:
        value = dot
        if isinstance(chain.base, list):
            value = self._pipe(chain.base, dot)
        elif chain.base is not None:
            value = next((item for name, item in reversed(self._variables) if name == chain.base.text), None)
        if arguments and not chain.fields:
            raise self._error(chain.at, chain.text, f"can't give argument to non-function {chain.text}")
        for number, item in enumerate(chain.fields):
            last = number == len(chain.fields) - 1
            value = self._field(chain, item, value, arguments if last else ())
        return value

    def _field(self, chain: _Chain, item: _Token, value: Any, arguments: Sequence[Any]) -> Any:
        name, root = item.text[1:], value is self._root
        if not isinstance(value, Mapping) or (root and name not in value):
            type_name = f"*{self._typename}" if root else gotype(value)
            raise self._error(item.at, chain.text, f"can't evaluate field {name} in type {type_name}")
        found = value.get(name, "")  # a missing key of Go's map[string]string is ""
        if not callable(found):
            if arguments:
                raise self._error(item.at, chain.text, f"{name} has arguments but cannot be invoked as function")
            return found
        expected = 1 if name == "ExtraAttributes" else 0
        if len(arguments) != expected:
            message = f"wrong number of args for {name}: want {expected} got {len(arguments)}"
            raise self._error(item.at, chain.text, message)
        return found(*arguments)
