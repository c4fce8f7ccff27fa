"""Jinja expressions: which there may be, and how they are made safe to compute.

Jinja parses them. `_Allowed` walks the syntax tree and refuses every node, filter, test, method and function that is not on a list; what
is left, it rewrites so that whatever makes or reads values is a filter of the sandbox, which counts its work (`sandbox`). Jinja compiles
the result. There is no attribute access (`room.title` reads a key), no clock and no randomness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError, UndefinedError, nodes
from jinja2.environment import Template
from jinja2.visitor import NodeTransformer

from playbook.language.sandbox import FILTERS, FUNCTIONS, MAX_BITS, METHODS, SANDBOX, TESTS, Meter, missing
from playbook.language.scope import Scope
from playbook.language.values import NODE, BadTemplate, Spend

MAX_DEPTH = 64
"""How deep an expression may be nested, and so how many terms a sum may have."""
_OPERATIONS = (
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow),
    *(nodes.Not, nodes.Neg, nodes.Pos, nodes.And, nodes.Or),
    *(nodes.Keyword, nodes.Pair),
)
"""What stays as it is: the sandbox is asked for arithmetic, and the rest makes nothing."""


def parse(text: str) -> tuple[str | Expression, ...]:
    """The pieces of a scalar, as Jinja sees them. Raises `BadTemplate`."""
    try:
        if "{%" in text and any(token[1] in ("block_begin", "raw_begin") for token in SANDBOX.lexer.tokeniter(text, None)):
            remedy = "logic is `when` and `foreach`; within a value write {{ a if condition else b }}"
            raise BadTemplate("PB303", "template statements {% … %} are refused", "{%", remedy)
        pieces: list[str | Expression] = []
        for output in SANDBOX.parse(text).body:
            assert isinstance(output, nodes.Output)  # nothing else comes without statements
            for node in output.nodes:
                pieces.append(node.data if isinstance(node, nodes.TemplateData) else _compile(node))
        return tuple(pieces)
    except TemplateSyntaxError as error:
        reason = (error.message or "").replace("unexpected 'end of print statement'", "the expression ends too soon")
        remedy = "an expression ends with two braces" if reason == "unexpected '}'" else "an expression stands in double braces"
        raise BadTemplate("PB301", f"malformed template: {reason}", "{{", remedy + ": {{ name }}") from error
    except (ValueError, OverflowError) as error:  # a literal with thousands of digits
        raise BadTemplate("PB307", "a number in a template is too large", "{{") from error
    except RecursionError as error:
        raise BadTemplate("PB307", "a template is nested too deep", "{{") from error


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression as Jinja compiled it, and the work that it is without that of going through values."""

    names: frozenset[str]
    code: Template
    work: int

    def compute(self, scope: Scope, spend: Spend) -> Any:
        """Its value, as plain data. `spend` is told the work, and may raise. Raises `BadTemplate`."""
        meter = Meter(spend)
        spend(self.work)
        given = {_own(name): missing(name) if name in scope.empty else scope.values[name] for name in self.names}
        context = self.code.new_context({**given, Meter.NAME: meter})
        try:
            for _ in self.code.root_render_func(context):
                pass
            value = context.vars["result"]
            meter.reads(value)
            return meter.plain(value)
        except UndefinedError as error:
            raise BadTemplate("PB302", str(error.message), "{{") from error
        except RecursionError as error:
            raise BadTemplate("PB307", "a template is nested too deep", "{{") from error
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            reason = error or type(error).__name__
            raise BadTemplate("PB306", f"the template cannot be computed: {reason}", "{{") from error


def _compile(node: nodes.Expr) -> Expression:
    allowed = _Allowed()
    safe = allowed.visit(node)
    result = nodes.Assign(nodes.Name("result", "store", lineno=1), safe, lineno=1)
    return Expression(frozenset(allowed.names), SANDBOX.from_string(nodes.Template([result], lineno=1)), allowed.work)


def _own(name: str) -> str:
    """A variable's name in the compiled code, so that none of Jinja's own is one (`self`, `loop`)."""
    return "var_" + name


class _Allowed(NodeTransformer):
    """Refuses what is not allowed, and rewrites the rest; notes the names and the work."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.work = 0
        self._depth = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.work += NODE
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadTemplate("PB307", "a template is nested too deep", "{{")
        try:
            return super().visit(node, *args, **kwargs)
        finally:
            self._depth -= 1

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if not isinstance(node, _OPERATIONS):
            raise BadTemplate("PB305", f"templates may not use {type(node).__name__.lower()} here", "{{")
        return super().generic_visit(node, *args, **kwargs)

    # values

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        self.names.add(node.name)
        return nodes.Name(_own(node.name), "load", lineno=1)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            raise BadTemplate("PB307", "a number in a template is too large", "{{")
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise BadTemplate("PB306", "the template cannot be computed: the number is infinite", "{{")
        self.work += len(node.value) if isinstance(node.value, str) else 0
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return _filter(super().generic_visit(node), "made")

    visit_Tuple = visit_Dict = visit_List

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        first, *rest = map(self.visit, node.nodes)
        return _filter(first, "concat", *rest)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        rest = (each for operand in node.ops for each in (nodes.Const(operand.op), self.visit(operand.expr)))
        return _filter(self.visit(node.expr), "compare", *rest)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        node.test, node.expr1 = self.visit(node.test), self.visit(node.expr1)
        node.expr2 = _filter(nodes.Const(None), "no else") if node.expr2 is None else self.visit(node.expr2)
        return node

    # access

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        if node.attr.startswith("_"):
            raise BadTemplate("PB305", f"templates may not reach for '{node.attr}'", node.attr)
        return nodes.Getitem(self.visit(node.node), nodes.Const(node.attr), "load")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        holder = self.visit(node.node)
        if not isinstance(node.arg, nodes.Slice):
            return nodes.Getitem(holder, self.visit(node.arg), "load")
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return _filter(holder, "slice", *(nodes.Const(None) if each is None else self.visit(each) for each in bounds))

    # calls

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self._check_call(node, node.name, FILTERS, "filter")
        return super().generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self._check_call(node, node.name, TESTS, "test")
        return super().generic_visit(node)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        callee = node.node
        if isinstance(callee, nodes.Name):
            self._check_call(node, callee.name, FUNCTIONS, "function")
            name, (holder, *args) = callee.name, node.args or [nodes.Const(None)]
        elif isinstance(callee, nodes.Getattr):
            self._check_call(node, callee.attr, METHODS, "method")
            name, holder, args = f".{callee.attr}", callee.node, node.args
        else:
            raise BadTemplate("PB305", "templates may not call this", "{{")
        kwargs = [self.visit(each) for each in node.kwargs]
        return _filter(self.visit(holder), name, *map(self.visit, args), kwargs=kwargs)

    @staticmethod
    def _check_call(node: Any, name: str, allowed: frozenset[str], what: str) -> None:
        if name not in allowed:
            remedy = f"there are {', '.join(sorted(allowed))}" if len(allowed) > 1 else f"the only {what} is {min(allowed)}"
            raise BadTemplate("PB305", f"templates have no {what} '{name}'", name, remedy, allowed)
        if node.dyn_args or node.dyn_kwargs:
            raise BadTemplate("PB305", "templates have no * arguments", "*")


def _filter(node: nodes.Node, name: str, *args: nodes.Node, kwargs: Any = ()) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), list(kwargs), None, None, lineno=1)
