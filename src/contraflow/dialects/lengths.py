"""How long the value of a lens expression can be: what is certain to fit a column needs no coercion."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import elements, functions
from sqlalchemy.sql.expression import ColumnElement

from contraflow.expressions import LensCall, Ref, children, inside

__all__ = ["longest"]

# Functions of text whose value is never longer than their first argument.
_SHORTENING = frozenset({"before", "after", "trim", "ltrim", "rtrim", "lower", "upper"})


def longest(node: ColumnElement[Any]) -> int | None:
    """The most characters that the text of ``node`` can have; None where that is not known, or it is no text."""
    if isinstance(node, elements.Grouping):
        return longest(inside(node))
    if isinstance(node, Ref):
        return node.type.length if isinstance(node.type, sa.types.String) else None
    if isinstance(node, elements.BindParameter):
        return len(node.value) if isinstance(node.value, str) else None
    if isinstance(node, elements.Null):
        return 0
    if isinstance(node, elements.Case):
        results = [result for _, result in node.whens]
        return _most([*results, *([node.else_] if node.else_ is not None else [])])
    if isinstance(node, functions.coalesce):
        return _most(children(node))
    return _of_call(node) if isinstance(node, LensCall) else None


def _of_call(node: LensCall) -> int | None:
    arguments = children(node)
    if node.function.name == "concat":
        lengths = [longest(argument) for argument in arguments]
        known = [length for length in lengths if length is not None]
        return sum(known) if len(known) == len(lengths) else None
    if node.function.name == "substr":
        count = arguments[2]
        return count.value if isinstance(count, elements.BindParameter) else None
    return longest(arguments[0]) if node.function.name in _SHORTENING else None


def _most(nodes: list[ColumnElement[Any]]) -> int | None:
    lengths = [longest(node) for node in nodes]
    known = [length for length in lengths if length is not None]
    return max(known, default=0) if len(known) == len(lengths) else None
