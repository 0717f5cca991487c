"""The execution of templates: the part of Go's text/template that ``--log-opt tag=`` and services need.

It has actions, pipelines, fields, variables, ``if``, ``with``, ``range`` and functions. The data are dicts (structs and
maps), lists, strings, numbers and booleans; a callable is a method. Errors have Go's sentences.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.common import jsontext, limits
from server.gotemplate.functions import COUNTS, FUNCTIONS, TEXTS, Struct, gotype, to_text, truth
from server.gotemplate.parse import Chain, Command, Node, Parser, TemplateError, Token, execution_error


def render(
    name: str,
    source: str,
    data: Mapping[str, Any],
    typename: str,
    *,
    functions: Mapping[str, Callable[..., Any]] = FUNCTIONS,
    missing_key_error: bool = False,
) -> str:
    """The output of a template. ``name``: the template's name, ``typename``: the name of the type of ``data``, both for
    errors. ``functions``: by name; a ValueError of one has the reason. ``missing_key_error``: a field that a map lacks
    is an error, not "".

    :raises TemplateError: the template is malformed, refers to an unknown field, or exceeds a limit.
    """
    if len(source) > limits.TEMPLATE_BYTES:
        raise TemplateError(f"template: {name}: exceeds the limit TEMPLATE_BYTES ({limits.TEMPLATE_BYTES})")
    try:
        nodes = Parser(name, source, functions).parse()
        return _Run(name, typename, data, functions, missing_key_error=missing_key_error).nodes(nodes, data)
    except RecursionError:
        raise TemplateError(f"template: {name}: exceeded maximum template depth") from None


class _Run:
    """One execution of a template."""

    def __init__(
        self,
        name: str,
        typename: str,
        data: Any,
        functions: Mapping[str, Callable[..., Any]],
        *,
        missing_key_error: bool,
    ) -> None:
        self._name, self._typename = name, typename
        self._functions, self._missing_key_error = functions, missing_key_error
        self._root = data
        self._variables: list[tuple[str, Any]] = [("$", data)]
        self._steps = 0
        self._size = 0

    def _error(self, at: int, text: str, message: str) -> TemplateError:
        return execution_error(self._name, at, text, message)

    def nodes(self, nodes: Sequence[Node], dot: Any) -> str:
        return "".join(self._node(node, dot) for node in nodes)

    def _node(self, node: Node, dot: Any) -> str:
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

    def _range(self, node: Node, value: Any, dot: Any) -> str:
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

    def _pipe(self, commands: Sequence[Command], dot: Any) -> Any:
        last: list[Any] = []
        for command in commands:
            last = [self._call(command, dot, last)]
        return last[0]

    def _call(self, command: Command, dot: Any, last: list[Any]) -> Any:
        first, *rest = command.words
        arguments = [self._value(word, dot) for word in rest] + last
        if isinstance(first, Token) and first.text in self._functions:
            function = self._functions[first.text]
            if function is FUNCTIONS.get(first.text):
                self._check_arguments(first, rest, arguments)
            try:
                return function(*arguments)
            except (TypeError, ValueError, LookupError) as error:
                reason = str(error) if isinstance(error, ValueError) else "wrong number or type of args"
                raise self._error(command.at, command.text, f"error calling {first.text}: {reason}") from None
        return self._value(first, dot, arguments)

    def _check_arguments(self, name: Token, words: Sequence[Any], arguments: Sequence[Any]) -> None:
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
        if isinstance(word, Chain):
            return self._chain(word, dot, arguments)
        if word.text in self._functions:
            return self._call(Command([word], word.text, word.at), dot, [])
        if arguments:
            raise self._error(word.at, word.text, f"can't give argument to non-function {word.text}")
        if word.kind in ("string", "char"):
            text = word.text
            return text[1:-1] if text[0] == "`" else self._unquoted(word) if text[0] == '"' else ord(text[1])
        if word.kind == "number":
            return float(word.text) if re.search(r"[.eE]", word.text[1:]) else int(word.text, 0)
        return {"true": True, "false": False, "nil": None}[word.text]

    def _unquoted(self, word: Token) -> str:
        # Converts the escapes of Go that JSON doesn't have.
        text = re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", word.text).replace("\\a", "\\u0007").replace("\\v", "\\u000b")
        try:
            return str(jsontext.loads(text))
        except ValueError:
            raise TemplateError(f"template: {self._name}:1: invalid syntax") from None

    def _chain(self, chain: Chain, dot: Any, arguments: Sequence[Any]) -> Any:
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

    def _field(self, chain: Chain, item: Token, value: Any, arguments: Sequence[Any]) -> Any:
        name, root = item.text[1:], value is self._root
        # Go's position of a chain is that of its second field; of a single field its own.
        at = chain.fields[min(1, len(chain.fields) - 1) if chain.base is None else 0].at
        if not isinstance(value, Mapping) or (name not in value and (root or isinstance(value, Struct))):
            type_name = f"*{self._typename}" if root else gotype(value)
            raise self._error(at, chain.text, f"can't evaluate field {name} in type {type_name}")
        if self._missing_key_error and name not in value:
            raise self._error(at, chain.text, f'map has no entry for key "{name}"')
        found = value.get(name, "")  # a missing key of Go's map[string]string is ""
        if not callable(found):
            if arguments:
                raise self._error(at, chain.text, f"{name} has arguments but cannot be invoked as function")
            return found
        expected = 1 if name == "ExtraAttributes" else 0
        if len(arguments) != expected:
            message = f"wrong number of args for {name}: want {expected} got {len(arguments)}"
            raise self._error(at, chain.text, message)
        return found(*arguments)
