"""Jinja's sandbox, made to count: what is gone through and what is made is weighed, and ends in `BadTemplate` when it is too much.

Filters and tests are Jinja's own, and arithmetic is Python's. Each is wrapped so that its work is counted before it is done, where that
can be known, and its result is plain data of a bounded size.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from playbook.language.values import ENTRY, MAX_WEIGHT, BadTemplate, Spend, entry, no_entry, no_value, weigh, work_of

MAX_BITS = 256
"""Of a whole number."""

FILTERS = frozenset(
    (
        *("abs", "capitalize", "count", "d", "default", "first", "float", "int", "join", "last", "length"),
        *("list", "lower", "max", "min", "replace", "reverse", "round", "sort", "string", "sum", "title"),
        *("trim", "unique", "upper", "wordcount"),
    )
)
TESTS = frozenset(
    (
        *("boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge"),
        *("greaterthan", "gt", "in", "integer", "le", "lessthan", "lower", "lt", "mapping", "ne", "none"),
        *("number", "odd", "sequence", "string", "true", "undefined", "upper", "==", "!=", "<", "<=", ">"),
        *(">=",),
    )
)
METHODS = frozenset(
    (
        *("capitalize", "count", "endswith", "find", "get", "index", "items", "join", "keys", "lower"),
        *("lstrip", "replace", "rfind", "rstrip", "split", "splitlines", "startswith", "strip", "title"),
        *("upper", "values"),
    )
)
FUNCTIONS = frozenset({"range"})

_BRIEF_FILTERS = frozenset(("count", "length", "first", "last", "default", "d"))
_BRIEF_TESTS = frozenset(["defined", "undefined", "none", "boolean", "true", "false", "integer", "number", "mapping", "sequence"])
"""Filters and tests that do not go through what they are given."""
_TIMES = {"sort": 4, "unique": 3, "min": 3, "max": 3, "sum": 2}
"""How many times the work of others these filters are, for each entry."""
_POSITIONAL = {"join": 1, "sum": 0, "unique": 1, "sort": 2, "min": 1, "max": 1}
"""How many values these filters take before `attribute`, which must be named so that it is seen."""
_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
_COMPARE: Mapping[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "eq": ("==", operator.eq),
    "ne": ("!=", operator.ne),
    "gt": (">", operator.gt),
    "gteq": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "lteq": ("<=", operator.le),
    "in": ("in", lambda one, other: one in other),
    "notin": ("not in", lambda one, other: one not in other),
}
_NOUNS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "nothing",
}


class Meter:
    """Counts the work of one evaluation, and refuses what is too heavy."""

    NAME = "meter"
    """What it is called in Jinja's context."""

    def __init__(self, spend: Spend) -> None:
        self._spend = spend

    def reads(self, *values: Any, times: int = 1) -> None:
        """Count the work of going through values."""
        for value in values:
            if isinstance(value, (str, list, tuple, dict)):
                self._spend(times * work_of(value))

    def makes(self, characters: int, entries: int = 0) -> None:
        """Count what is about to be made."""
        self._spend(min(characters, MAX_WEIGHT) + ENTRY * min(entries, MAX_WEIGHT))
        if characters + entries > MAX_WEIGHT:
            raise BadTemplate("PB307", f"a template makes more than {MAX_WEIGHT:,} characters or entries", "{{")

    def made(self, value: Any) -> Any:
        """A new value, weighed, as plain data: some filters and methods give iterators, views or markup."""
        if isinstance(value, str):
            value = str(value)
        elif isinstance(value, Iterable) and not isinstance(value, (list, tuple, dict, Undefined)):
            value = list(value)
        kind = type(value)
        if kind is int:
            if value.bit_length() > MAX_BITS:
                raise BadTemplate("PB307", "a template makes a number that is too large", "{{")
        elif kind is float:
            if not math.isfinite(value):
                raise ValueError("the number is infinite")
        elif kind in (str, list, dict, tuple):
            self.makes(*weigh(value))
        elif value is not None and kind is not bool and not isinstance(value, Undefined):
            raise TypeError(f"a {kind.__name__} is no plain data")
        return value

    def plain(self, value: Any) -> Any:
        """Plain data of a computed value: lists for tuples, text for keys, nothing undefined."""
        _defined(value)
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise TypeError("the keys of an object are text")
            return {key: self.plain(each) for key, each in value.items()}
        return [self.plain(each) for each in value] if isinstance(value, (list, tuple)) else value


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without attributes, in which arithmetic counts."""

    intercepted_binops = frozenset(_BINARY)
    intercepted_unops = frozenset("+-")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What is under a key, and nothing else."""
        _defined(obj)
        try:
            return entry(obj, argument)
        except LookupError:
            return self.undefined(no_entry(obj, argument))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, and what it means for text and lists."""
        meter: Meter = context.parent[Meter.NAME]
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                    characters, entries = weigh(one)
                    meter.makes(characters * max(other, 0), entries * max(other, 0))
        elif operator == "%" and isinstance(left, str):
            raise BadTemplate("PB305", "templates may not format text with %", "{{", "join text with ~")
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > MAX_BITS:
                raise BadTemplate("PB307", "a template makes a number that is too large", "{{")
        elif operator == "+" and isinstance(left, (str, list, tuple)):
            (a, b), (c, d) = weigh(left), weigh(right)
            meter.makes(a + c, b + d)
        try:
            value = _BINARY[operator](left, right)
        except TypeError as error:
            remedy = "join text with ~" if operator == "+" and isinstance(left, str) != isinstance(right, str) else ""
            raise _unfit(f"{_noun(left)} {operator} {_noun(right)}", remedy, left, right) from error
        return meter.made(value)

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """A sign."""
        try:
            return context.parent[Meter.NAME].made(-arg if operator == "-" else +arg)
        except TypeError as error:
            raise _unfit(f"{operator} {_noun(arg)}", "", arg) from error


SANDBOX = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0, optimized=False)
"""It computes nothing while it compiles (`optimized`), because that would not be counted."""
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
"""Whose filters and tests are wrapped."""


def missing(name: str) -> Undefined:
    """What stands for a declared variable without a value: an error when it is used, but `is defined` and `default` understand it."""
    return SANDBOX.undefined(name=name, exc=lambda _: no_value(name))  # type: ignore[arg-type]  # it is called, and what it gives raised


# --- what expressions are rewritten to ------------------------------------------------------------------------------------


def _counted(name: str, work: Callable[..., Any]) -> None:
    """Make a filter of `work(meter, value, …)`. Python's words for a value that does not fit are no author's."""

    @pass_context
    def apply(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            meter: Meter = context.parent[Meter.NAME]
            return meter.made(work(meter, value, *args, **kwargs))
        except TypeError as error:
            message = f"the template cannot be computed: {name.lstrip('.')} does not go with what it is given"
            raise BadTemplate("PB306", message, "{{") from error
        except (UndefinedError, BadTemplate):
            raise
        except TemplateError as error:
            raise BadTemplate("PB306", f"the template cannot be computed: {error}", "{{") from error

    SANDBOX.filters[name] = apply


def _range(meter: Meter, *args: Any) -> Any:
    numbers = range(*(each for each in args if each is not None))
    meter.makes(len(numbers))
    return list(numbers)


def _concat(meter: Meter, *values: Any) -> str:
    meter.reads(*values)
    parts = [value if isinstance(value, str) else str(value) for value in values]
    meter.makes(sum(map(len, parts)))
    return "".join(parts)


def _compare(meter: Meter, left: Any, *rest: Any) -> bool:
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        meter.reads(left, right)
        sign, holds = _COMPARE[name]
        try:
            if not holds(left, right):
                return False
        except TypeError as error:
            raise _unfit(f"{_noun(left)} {sign} {_noun(right)}", "", left, right) from error
        left = right
    return True


def _slice(_: Meter, holder: Any, *bounds: Any) -> Any:
    _defined(holder)
    return holder[slice(*bounds)]


def _filter(name: str) -> Callable[..., Any]:
    def apply(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
        if name not in ("default", "d"):
            _defined(value)
        if name not in _BRIEF_FILTERS:
            meter.reads(value, *args, *kwargs.values(), times=_TIMES.get(name, 1))
        if len(args) > _POSITIONAL.get(name, len(args)):
            raise BadTemplate("PB305", f"too many values for the filter '{name}'", name, "give `attribute` by its name")
        if "attribute" in kwargs:  # a key, and one that is there: Jinja would go on to look for methods
            value = list(value)
            if not all(isinstance(each, dict) and kwargs["attribute"] in each for each in value):
                raise KeyError(f"not every entry has {kwargs['attribute']!r}")
        if name == "join":
            _makes_joined(meter, args[0] if args else kwargs.get("d", ""), value)
        elif name == "replace":
            _makes_replaced(meter, value, *args[:2], **kwargs)
        elif name == "sum" and "start" in kwargs:
            raise BadTemplate("PB305", "the filter 'sum' takes no start", "sum")
        elif name == "round" and not all(abs(each) <= 20 for each in [*args[:1], kwargs.get("precision", 0)]):
            raise BadTemplate("PB307", "the filter 'round' takes at most 20 places", "round")
        return _JINJA.call_filter(name, value, args, kwargs)

    return apply


def _test(name: str) -> Callable[..., bool]:
    @pass_context
    def apply(context: Context, value: Any, *args: Any, **kwargs: Any) -> bool:
        if name not in _BRIEF_TESTS:
            context.parent[Meter.NAME].reads(value, *args)
        try:
            return bool(_JINJA.call_test(name, value, args, kwargs))
        except TypeError as error:
            message = f"the template cannot be computed: {name} does not go with what it is given"
            raise BadTemplate("PB306", message, "{{") from error

    return apply


def _method(name: str) -> Callable[..., Any]:
    def apply(meter: Meter, holder: Any, *args: Any, **kwargs: Any) -> Any:
        _defined(holder)
        if not isinstance(holder, (str, list, tuple, dict)) or not hasattr(holder, name):
            raise BadTemplate("PB306", f"the template cannot be computed: {_noun(holder)} has no method {name}", name)
        if name != "get":
            meter.reads(holder, *args)
        if name == "join":
            args = (list(args[0]),) if len(args) == 1 else args
            _makes_joined(meter, holder, args[0] if args else [])
        elif name == "replace":
            _makes_replaced(meter, holder, *args[:2])
        return getattr(holder, name)(*args, **kwargs)

    return apply


def _makes_joined(meter: Meter, separator: Any, items: Iterable[Any]) -> None:
    pieces = list(items)
    characters, entries = weigh(pieces)
    meter.makes(characters + len(pieces) * len(str(separator)), entries)


def _makes_replaced(meter: Meter, text: Any, old: Any = "", new: Any = "", **_: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    meter.makes(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _noun(value: Any) -> str:
    return _NOUNS.get(type(value), "this")


def _defined(*values: Any) -> None:
    """Refuse what is undefined, in its own words."""
    for value in values:
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()


def _unfit(what: str, remedy: str, *values: Any) -> BadTemplate:
    """The complaint about values that do not go together, in our words; a value that is missing has its own."""
    _defined(*values)
    return BadTemplate("PB306", f"the template cannot be computed: {what}", "{{", remedy)


for _name in FILTERS:
    _counted(_name, _filter(_name))
for _name in METHODS:
    _counted(f".{_name}", _method(_name))
for _name in TESTS:
    SANDBOX.tests[_name] = _test(_name)
_counted("made", lambda _, value: value)
_counted("no else", lambda *_: SANDBOX.undefined("the condition is false and there is no else"))
_counted("range", _range)
_counted("concat", _concat)
_counted("compare", _compare)
_counted("slice", _slice)
