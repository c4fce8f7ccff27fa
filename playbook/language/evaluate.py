"""Jinja expressions, parsed by Jinja and computed here.

Why not let Jinja run them: it compiles templates to Python, and generated Python can be sandboxed but not bounded. So Jinja's parser
gives the syntax tree, `inspect` refuses every node, filter, test and method that is not on a list, and a small evaluator walks the rest.
Filters and tests are Jinja's own. There is no attribute access at all (`room.title` reads a key), no clock, no randomness, and every value
that is made is weighed against a budget. A test compares the results with Jinja's.

Imported only when a template is more than a name: importing Jinja takes a third of a cold start.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from playbook.errors import near_or_all
from playbook.language.templates import ENTRY, MAX_WEIGHT, Piece, Refused, no_value, weigh, work_of

MAX_BITS = 256
"""Of a whole number."""
NODE = 50
"""The work of any operation, besides that of going through its values."""

FILTERS = frozenset(
    (
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "first",
        "float",
        "int",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "max",
        "min",
        "replace",
        "reverse",
        "round",
        "sort",
        "string",
        "sum",
        "title",
        "trim",
        "unique",
        "upper",
        "wordcount",
    )
)
TESTS = frozenset(
    (
        "boolean",
        "defined",
        "divisibleby",
        "eq",
        "equalto",
        "even",
        "false",
        "float",
        "ge",
        "greaterthan",
        "gt",
        "in",
        "integer",
        "le",
        "lessthan",
        "lower",
        "lt",
        "mapping",
        "ne",
        "none",
        "number",
        "odd",
        "sequence",
        "string",
        "true",
        "undefined",
        "upper",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
    )
)
METHODS = frozenset(
    (
        "capitalize",
        "count",
        "endswith",
        "find",
        "get",
        "index",
        "items",
        "join",
        "keys",
        "lower",
        "lstrip",
        "replace",
        "rfind",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "title",
        "upper",
        "values",
    )
)
FUNCTIONS = frozenset({"range"})

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0)


def parse(text: str) -> tuple[str | Piece, ...]:
    """The pieces of a scalar, as Jinja sees them."""
    try:
        if "{%" in text and any(token[1] in ("block_begin", "raw_begin") for token in _ENVIRONMENT.lexer.tokeniter(text, None)):
            remedy = "logic is `when` and `foreach`; within a value write {{ a if condition else b }}"
            raise Refused("PB303", "template statements {% … %} are refused", "{%", remedy)
        pieces: list[str | Piece] = []
        for output in _ENVIRONMENT.parse(text).body:
            assert isinstance(output, nodes.Output)  # nothing else comes without statements
            for node in output.nodes:
                if isinstance(node, nodes.TemplateData):
                    pieces.append(node.data)
                else:
                    names: set[str] = set()
                    inspect(node, names)
                    pieces.append(Piece(frozenset(names), node))
        return tuple(pieces)
    except TemplateSyntaxError as error:
        reason = (error.message or "").replace("unexpected 'end of print statement'", "the expression ends too soon")
        remedy = "an expression ends with two braces" if reason == "unexpected '}'" else "an expression stands in double braces"
        raise Refused("PB301", f"malformed template: {reason}", "{{", remedy + ": {{ name }}") from error
    except (ValueError, OverflowError) as error:  # a literal with thousands of digits
        raise Refused("PB307", "a number in a template is too large", "{{") from error
    except RecursionError as error:
        raise Refused("PB307", "a template is nested too deep", "{{") from error


def inspect(node: nodes.Node, names: set[str]) -> None:
    """Refuse whatever is not on the lists; note the names that are used."""
    kind = type(node)
    if kind is nodes.Name:
        assert isinstance(node, nodes.Name)
        names.add(node.name)
        return
    if isinstance(node, nodes.Call):
        _inspect_call(node)
        callee = [node.node.node] if isinstance(node.node, nodes.Getattr) else []
        for child in (*callee, *node.args, *node.kwargs):
            inspect(child, names)
        return
    if kind not in _EVALUATORS and kind not in (nodes.Pair, nodes.Keyword, nodes.Operand, nodes.Slice):
        raise Refused("PB305", f"templates may not use {kind.__name__.lower()} here", "{{")
    if isinstance(node, (nodes.Filter, nodes.Test)):
        allowed, what = (FILTERS, "filter") if isinstance(node, nodes.Filter) else (TESTS, "test")
        if node.name not in allowed:
            raise Refused("PB305", f"templates have no {what} '{node.name}'", node.name, f"there are {', '.join(sorted(allowed))}", allowed)
        if node.dyn_args or node.dyn_kwargs:
            raise Refused("PB305", "templates have no * arguments", "*")
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        raise Refused("PB305", f"templates may not reach for '{node.attr}'", node.attr)
    for child in node.iter_child_nodes():
        inspect(child, names)


def _inspect_call(node: nodes.Call) -> None:
    callee = node.node
    if node.dyn_args or node.dyn_kwargs:
        raise Refused("PB305", "templates have no * arguments", "*")
    if isinstance(callee, nodes.Name):
        if callee.name not in FUNCTIONS:
            raise Refused("PB305", f"templates have no function '{callee.name}'", callee.name, "the only function is range", FUNCTIONS)
    elif isinstance(callee, nodes.Getattr):
        if callee.attr not in METHODS:
            methods = ", ".join(sorted(METHODS))
            raise Refused("PB305", f"templates have no method '{callee.attr}'", callee.attr, f"there are {methods}", METHODS)
    else:
        raise Refused("PB305", "templates may not call this", "{{")


def compute(node: nodes.Expr, values: Callable[[str], Any], spend: Callable[[int], None]) -> Any:
    """The value of an expression, as plain data.

    `values` gives a name's value; `spend` is told the weight of everything that is made, and may raise. Raises `Refused`.
    """
    try:
        evaluation = _Evaluation(values, spend)
        value = evaluation.of(node)
        evaluation.reads(value)
        return _data(value)
    except Refused:
        raise
    except UndefinedError as error:
        raise Refused("PB302", str(error.message), "{{") from error
    except RecursionError as error:
        raise Refused("PB307", "a template is nested too deep", "{{") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, TemplateError) as error:
        raise Refused("PB306", f"the template cannot be computed: {error or type(error).__name__}", "{{") from error


def missing(name: str) -> Any:
    """What stands for a declared variable without a value: an error when it is used, but `is defined` and `default` understand it."""
    return _ENVIRONMENT.undefined(name=name, exc=lambda _: no_value(name))  # type: ignore[arg-type]  # it is called, and what it gives raised


class _Evaluation:
    """One walk through one expression."""

    def __init__(self, values: Callable[[str], Any], spend: Callable[[int], None]) -> None:
        self._values = values
        self._spend = spend

    def of(self, node: nodes.Node) -> Any:
        """The value of a node, weighed if it is a new one."""
        self._spend(NODE)
        try:
            value = _EVALUATORS[type(node)](self, node)
        except TypeError as error:  # Python's words for it are no author's
            callee = getattr(node, "node", None)
            name = node.name if isinstance(node, (nodes.Filter, nodes.Test)) else getattr(callee, "attr", getattr(callee, "name", "this"))
            raise Refused("PB306", f"the template cannot be computed: {name} does not go with what it is given", "{{") from error
        if isinstance(node, (nodes.Name, nodes.Getattr)):
            return value
        kind = type(value)
        if kind is int:
            if value.bit_length() > MAX_BITS:
                raise Refused("PB307", "a template makes a number that is too large", "{{")
        elif kind is float:
            if not math.isfinite(value):
                raise ValueError("the number is infinite")
        elif kind is str or kind is list or kind is dict or kind is tuple:
            self._charge(*weigh(value))
        elif value is not None and kind is not bool and not isinstance(value, Undefined):
            raise TypeError(f"a {kind.__name__} is no plain data")
        return value

    def _charge(self, characters: int, entries: int = 0) -> None:
        """Refuse what is too heavy, before it is made where that can be known."""
        self._spend(min(characters, MAX_WEIGHT) + ENTRY * min(entries, MAX_WEIGHT))
        if characters + entries > MAX_WEIGHT:
            raise Refused("PB307", f"a template makes more than {MAX_WEIGHT:,} characters or entries", "{{")

    def reads(self, *values: Any, times: int = 1) -> None:
        """Count the work of going through values."""
        for value in values:
            if isinstance(value, (str, list, tuple, dict)):
                self._spend(times * work_of(value))

    # values

    def _name(self, node: nodes.Name) -> Any:
        return self._values(node.name)

    def _const(self, node: nodes.Const) -> Any:
        return node.value

    def _list(self, node: nodes.List) -> Any:
        return [self.of(item) for item in node.items]

    def _tuple(self, node: nodes.Tuple) -> Any:
        return tuple(self.of(item) for item in node.items)

    def _dict(self, node: nodes.Dict) -> Any:
        return {self.of(pair.key): self.of(pair.value) for pair in node.items}

    # operators

    def _binary(self, node: nodes.BinExpr) -> Any:
        left, right = self.of(node.left), self.of(node.right)
        sign = node.operator
        if sign == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                    characters, entries = weigh(one)
                    self._charge(characters * max(other, 0), entries * max(other, 0))
        elif sign == "%" and isinstance(left, str):
            raise Refused("PB305", "templates may not format text with %", "{{", "join text with ~")
        elif sign == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
            raise Refused("PB307", "a template makes a number that is too large", "{{")
        elif sign == "+" and isinstance(left, (str, list, tuple)):
            (a, b), (c, d) = weigh(left), weigh(right)
            self._charge(a + c, b + d)
        try:
            return _BINARY[sign](left, right)
        except TypeError as error:
            remedy = "join text with ~" if sign == "+" and isinstance(left, str) != isinstance(right, str) else ""
            raise _unfit(f"{_noun(left)} {sign} {_noun(right)}", remedy, left, right) from error

    def _unary(self, node: nodes.UnaryExpr) -> Any:
        value = self.of(node.node)
        try:
            return not value if node.operator == "not" else -value if node.operator == "-" else +value
        except TypeError as error:
            raise _unfit(f"{node.operator} {_noun(value)}", "", value) from error

    def _and(self, node: nodes.And) -> Any:
        return self.of(node.left) and self.of(node.right)

    def _or(self, node: nodes.Or) -> Any:
        return self.of(node.left) or self.of(node.right)

    def _concat(self, node: nodes.Concat) -> Any:
        values = [self.of(part) for part in node.nodes]
        self.reads(*values)
        parts = [self.text(value) for value in values]
        self._charge(sum(map(len, parts)))
        return "".join(parts)

    def text(self, value: Any) -> str:
        """A value as text, as Jinja prints it."""
        return value if isinstance(value, str) else str(value)

    def _compare(self, node: nodes.Compare) -> Any:
        left = self.of(node.expr)
        for operand in node.ops:
            right = self.of(operand.expr)
            self.reads(left, right)
            try:
                if not _COMPARE[operand.op](left, right):
                    return False
            except TypeError as error:
                sign = {"in": "in", "notin": "not in", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">="}[operand.op]
                raise _unfit(f"{_noun(left)} {sign} {_noun(right)}", "", left, right) from error
            left = right
        return True

    def _condition(self, node: nodes.CondExpr) -> Any:
        if self.of(node.test):
            return self.of(node.expr1)
        if node.expr2 is None:
            return _ENVIRONMENT.undefined("the condition is false and there is no else")
        return self.of(node.expr2)

    # access

    def _getattr(self, node: nodes.Getattr) -> Any:
        return self._item(self.of(node.node), node.attr)

    def _getitem(self, node: nodes.Getitem) -> Any:
        holder = self.of(node.node)
        if isinstance(node.arg, nodes.Slice):
            bounds = (self.of(part) if part is not None else None for part in (node.arg.start, node.arg.stop, node.arg.step))
            return holder[slice(*bounds)]
        return self._item(holder, self.of(node.arg))

    def _item(self, holder: Any, key: Any) -> Any:
        if isinstance(holder, Undefined):
            holder._fail_with_undefined_error()
        if isinstance(holder, (dict, list, tuple, str)):
            try:
                return holder[key]
            except (LookupError, TypeError):
                pass
        meant = near_or_all(key, filter(_is_text, holder), "") if isinstance(key, str) and isinstance(holder, dict) else ""
        hint = f"there is no {key!r} here" + (f"; {meant}" if meant else "")
        return _ENVIRONMENT.undefined(hint)

    # calls

    def _call(self, node: nodes.Call) -> Any:
        args = [self.of(arg) for arg in node.args]
        kwargs = {arg.key: self.of(arg.value) for arg in node.kwargs}
        if isinstance(node.node, nodes.Name):
            numbers = range(*args, **kwargs)
            self._charge(len(numbers))
            return list(numbers)
        assert isinstance(node.node, nodes.Getattr)
        holder, method = self.of(node.node.node), node.node.attr
        if isinstance(holder, Undefined):
            holder._fail_with_undefined_error()
        if not isinstance(holder, (str, list, tuple, dict)) or not hasattr(holder, method):
            raise Refused("PB306", f"the template cannot be computed: {_noun(holder)} has no method {method}", method)
        if method != "get":
            self.reads(holder, *args)
        if method == "join":
            args = [list(args[0])] if len(args) == 1 else args
            self._charge_join(holder, args[0] if args else [])
        elif method == "replace":
            self._charge_replace(self.text(holder), *args[:2])
        result = getattr(holder, method)(*args, **kwargs)
        return result if isinstance(result, (str, int, float, list, dict, tuple)) or result is None else _plain(result)

    def _charge_join(self, separator: Any, items: Iterable[Any]) -> None:
        pieces = list(items)
        characters, entries = weigh(pieces)
        self._charge(characters + len(pieces) * len(self.text(separator)), entries)

    def _charge_replace(self, text: str, old: Any = "", new: Any = "", **_: Any) -> None:
        old, new = self.text(old), self.text(new)
        self._charge(len(text) + (text.count(old) if old else len(text) + 1) * len(new))

    def _filter(self, node: nodes.Filter) -> Any:
        value, args, kwargs = self._operands(node)
        if node.name not in ("default", "d") and isinstance(value, Undefined):
            value._fail_with_undefined_error()
        if node.name not in _BRIEF:
            self.reads(value, *args, *kwargs.values(), times=_TIMES.get(node.name, 1))
        if len(args) > _POSITIONAL.get(node.name, len(args)):
            raise Refused("PB305", f"too many values for the filter '{node.name}'", node.name, "give `attribute` by its name")
        if "attribute" in kwargs:  # a key, and one that is there: Jinja would go on to look for methods
            value = list(value)
            if not all(isinstance(each, dict) and kwargs["attribute"] in each for each in value):
                raise KeyError(f"not every entry has {kwargs['attribute']!r}")
        if node.name == "join":
            self._charge_join(args[0] if args else kwargs.get("d", ""), value)
        elif node.name == "replace":
            self._charge_replace(self.text(value), *args[:2], **kwargs)
        elif node.name == "sum" and "start" in kwargs:
            raise Refused("PB305", "the filter 'sum' takes no start", "sum")
        elif node.name == "round" and not all(abs(each) <= 20 for each in [*args[:1], kwargs.get("precision", 0)]):
            raise Refused("PB307", "the filter 'round' takes at most 20 places", "round")
        return _plain(_ENVIRONMENT.call_filter(node.name, value, args, kwargs))

    def _test(self, node: nodes.Test) -> Any:
        value, args, kwargs = self._operands(node)
        if node.name not in _BRIEF:
            self.reads(value, *args)
        return _ENVIRONMENT.call_test(node.name, value, args, kwargs)

    def _operands(self, node: nodes.Filter | nodes.Test) -> tuple[Any, list[Any], dict[str, Any]]:
        assert node.node is not None  # only a filter block, which is a statement, has none
        named = cast("list[nodes.Keyword]", node.kwargs)  # Jinja's annotation says pairs
        return self.of(node.node), [self.of(arg) for arg in node.args], {arg.key: self.of(arg.value) for arg in named}


_NOUNS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "nothing",
}


def _noun(value: Any) -> str:
    return _NOUNS.get(type(value), "this")


def _unfit(what: str, remedy: str, *values: Any) -> Exception:
    """The complaint about values that do not go together, in our words; a value that is missing has its own."""
    for value in values:
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()
    return Refused("PB306", f"the template cannot be computed: {what}", "{{", remedy)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _data(value: Any) -> Any:
    """Plain data of a computed value: lists for tuples, text for keys, nothing undefined."""
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("the keys of an object are text")
        return {key: _data(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(each) for each in value]
    return value


def _plain(value: Any) -> Any:
    """What a filter or method gives, as plain data (some give iterators, views or markup)."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, (list, tuple, dict, Undefined)):
        return list(value)
    return value


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda one, other: one in other,
    "notin": lambda one, other: one not in other,
}
_BRIEF = frozenset(("count", "length", "first", "last", "default", "d", "defined", "undefined", "none", "boolean", "true", "false")) | {
    *("integer", "number", "mapping", "sequence")
}
"""Filters and tests that do not go through what they are given."""
_TIMES = {"sort": 4, "unique": 3, "min": 3, "max": 3, "sum": 2}
"""How many times the work of others these filters are, for each entry."""
_POSITIONAL = {"join": 1, "sum": 0, "unique": 1, "sort": 2, "min": 1, "max": 1}
"""How many values these filters take before `attribute`, which must be named so that it is seen."""
_E = _Evaluation
_EVALUATORS: dict[type, Callable[[_Evaluation, Any], Any]] = {
    nodes.Name: _E._name,
    nodes.Const: _E._const,
    nodes.List: _E._list,
    nodes.Tuple: _E._tuple,
    nodes.Dict: _E._dict,
    nodes.And: _E._and,
    nodes.Or: _E._or,
    nodes.Concat: _E._concat,
    nodes.Compare: _E._compare,
    nodes.CondExpr: _E._condition,
    nodes.Getattr: _E._getattr,
    nodes.Getitem: _E._getitem,
    nodes.Call: _E._call,
    nodes.Filter: _E._filter,
    nodes.Test: _E._test,
    **dict.fromkeys((nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow), _E._binary),
    **dict.fromkeys((nodes.Not, nodes.Neg, nodes.Pos), _E._unary),
}
