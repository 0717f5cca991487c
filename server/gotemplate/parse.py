"""The parser of templates: a syntax tree of nodes, commands and chains from the source. Errors have Go's sentences."""

import json
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""\s+|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)|(?P<char>'(?:\\.|[^'\\])+')|(?P<number>[+-]?\d[\w.]*)"""
    r"""|(?P<field>\.[A-Za-z_]\w*)|(?P<variable>\$\w*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[.()|,=])"""
)
_TRIM_LEFT, _TRIM_RIGHT = re.compile(r"\{\{-\s"), re.compile(r"\s-\}\}")
_KEYWORDS = ("if", "else", "end", "with", "range", "break", "continue", "define", "template", "block")


class TemplateError(ValueError):
    """A malformed template, or an error of its execution; the message is Go's."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an action. ``kind``: the name of its group in ``_TOKEN``; ``at``: its offset in the source."""

    kind: str
    text: str
    at: int


@dataclass(slots=True)
class Node:
    """A node of the syntax tree. ``kind``: text, pipe, if, with or range. ``names``: the declared variables. ``other``:
    the nodes after ``else``."""

    kind: str
    text: str = ""
    pipe: "list[Command]" = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    body: "list[Node]" = field(default_factory=list)
    other: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a pipeline. ``words``: its operands, which are tokens (constants and functions) or chains. ``text``:
    its source, which errors quote; ``at``: the source's offset."""

    words: list[Any]
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of fields such as ``.A.B``. ``base``: None for the dot, a variable's token, or a pipeline in
    parentheses."""

    base: Any
    fields: tuple[Token, ...]
    text: str
    at: int


def execution_error(name: str, at: int, text: str, message: str) -> TemplateError:
    """The error of the operand ``text`` at the offset ``at`` of the template ``name``."""
    return TemplateError(f'template: {name}:1:{at}: executing "{name}" at <{text}>: {message}')


class Parser:
    """Parses the source of a template. ``name``: the template's name in errors. ``functions``: their names."""

    def __init__(self, name: str, source: str, functions: Container[str]) -> None:
        self._name, self._source, self._functions = name, source, functions
        self._at = 0
        self._tokens: list[Token] = []
        self._variables = ["$"]

    def _error(self, message: str) -> TemplateError:
        line = self._source.count("\n", 0, self._at) + 1
        return TemplateError(f"template: {self._name}:{line}: {message}")

    def parse(self) -> list[Node]:
        nodes, ended = self._list()
        if ended:
            raise self._error(f"unexpected {{{{{ended}}}}}")
        return nodes

    def _list(self) -> tuple[list[Node], str]:
        """Parses nodes up to the end of the source, ``end`` or ``else``. Returns them and the keyword, "" at the end of
        the source. ``self._tokens`` has the tokens after the keyword."""
        nodes: list[Node] = []
        while self._at < len(self._source):
            begin = self._source.find("{{", self._at)
            text = self._source[self._at :] if begin < 0 else self._source[self._at : begin]
            if begin >= 0 and _TRIM_LEFT.match(self._source, begin):
                text = text.rstrip()
            if text:
                nodes.append(Node("text", text))
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
                self._tokens.append(Token(found.lastgroup, found[0], at))
            at = found.end()
        self._end_action(at + 2)
        if not self._tokens:
            raise self._error("missing value for command")
        first = self._tokens[0]
        if first.kind == "word" and first.text in _KEYWORDS:
            if first.text == "template" and len(self._tokens) > 1:
                named = self._tokens[1]
                text, message = f"{{{{template {named.text}}}}}", f"template {named.text} not defined"
                raise execution_error(self._name, named.at, text, message)
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

    def _block(self, kind: str) -> Node:
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

    def _pipeline_node(self, kind: str) -> Node:
        node = Node(kind)
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

    def _pipeline(self, where: str) -> list[Command]:
        commands: list[Command] = []
        while True:
            command = self._command()
            if command is None:
                raise self._error(f"missing value for {'command' if where == 'pipe' else where}")
            commands.append(command)
            if not (self._tokens and self._tokens[0].text == "|"):
                return commands
            del self._tokens[0]

    def _command(self) -> Command | None:
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
            fields: list[Token] = [token] if token.kind == "field" else []
            while self._tokens and self._tokens[0].kind == "field" and self._tokens[0].at == end:
                fields.append(self._tokens.pop(0))
                end = fields[-1].at + len(fields[-1].text)
            text = self._source[token.at : end]
            if token.kind == "field" or token.text == ".":
                words.append(Chain(None, tuple(fields), text, token.at))
            elif fields or token.kind == "variable" or token.text == "(":
                words.append(Chain(base, tuple(fields), text, token.at))
            else:
                words.append(base)
        return Command(words, self._source[begin:end], begin) if words else None

    def _check(self, token: Token) -> None:
        if token.kind == "word" and token.text not in ("true", "false", "nil") and token.text not in self._functions:
            raise self._error(f'function "{token.text}" not defined')
        if token.kind == "variable" and token.text not in self._variables:
            raise self._error(f'undefined variable "{token.text}"')
        if token.text in (",", "=", ":="):
            raise self._error(f"unexpected {json.dumps(token.text)} in operand")
