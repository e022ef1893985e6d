"""The Python meaning of whole expressions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy.sql import elements, functions, operators

from contraflow.expressions.functions import FUNCTIONS, UTCNOW
from contraflow.expressions.trees import (
    ARITHMETIC,
    COMPARISONS,
    Expression,
    LensCall,
    Lookup,
    Ref,
    children,
    inside,
    pairwise,
)

__all__ = ["evaluate"]


def evaluate(node: Expression, row: Mapping[str, Any]) -> Any:  # noqa: C901 - one arm per kind of node
    """The value of the expression for ``row`` (column name to Python value), by the meanings of its functions.

    ``row`` may also hold the present time, under the name that no column has, :data:`UTCNOW`.

    ``None`` is NULL, with SQL's three-valued logic. Raises ``KeyError`` for a column that ``row`` lacks, and what the
    Python meaning of a function raises for a value outside its domain. What a lookup finds is not known here: it raises
    ``ValueError`` but for one that finds nothing in any case.
    """
    if isinstance(node, Ref):
        return row[node.name]
    if isinstance(node, elements.BindParameter):
        return node.value
    if isinstance(node, elements.Null):
        return None
    if isinstance(node, (elements.True_, elements.False_)):
        return isinstance(node, elements.True_)
    if isinstance(node, elements.Grouping):
        return evaluate(inside(node), row)
    if isinstance(node, elements.Case):
        for condition, result in node.whens:
            if evaluate(condition, row):
                return evaluate(result, row)
        return evaluate(node.else_, row) if node.else_ is not None else None
    if isinstance(node, functions.coalesce):
        return next((value for child in node.clauses if (value := evaluate(child, row)) is not None), None)
    if isinstance(node, Lookup):
        if all(row[name] is None for name in node.given):
            return None
        raise ValueError(f"it depends on the rows of {node.table}")
    values = [evaluate(child, row) for child in children(node)]
    if isinstance(node, elements.ExpressionClauseList) and not isinstance(node, elements.BooleanClauseList):
        node = pairwise(node)
    if isinstance(node, LensCall):
        if node.function.strict and any(value is None for value in values):
            return None
        if node.function is FUNCTIONS["utcnow"] and UTCNOW in row:
            return row[UTCNOW]
        return node.function.python(*values)
    if isinstance(node, elements.BooleanClauseList):
        return _logic(node.operator is operators.and_, values)
    if isinstance(node, elements.UnaryExpression):
        value = values[0]
        if value is None:
            return None
        if node.operator is operators.neg:
            return -value
        return bool(value) if node.operator is operators.is_true else not value
    return _evaluate_binary(cast("elements.BinaryExpression[Any]", node), values)


def _logic(is_and: bool, values: list[Any]) -> bool | None:
    decisive = not is_and
    if any(value is not None and bool(value) is decisive for value in values):
        return decisive
    return None if any(value is None for value in values) else is_and


def _evaluate_binary(node: elements.BinaryExpression[Any], values: list[Any]) -> Any:
    left, *rest = values
    if node.operator in (operators.in_op, operators.not_in_op):
        found = _logic(False, [None if left is None or value is None else left == value for value in rest])
        return found if found is None or node.operator is operators.in_op else not found
    right = rest[0]
    if node.operator in (operators.is_, operators.is_not_distinct_from):
        return left == right if (left is None) is (right is None) else False
    if node.operator in (operators.is_not, operators.is_distinct_from):
        return left != right if (left is None) is (right is None) else True
    if left is None or right is None:
        return None
    compute = COMPARISONS.get(node.operator) or ARITHMETIC[node.operator]
    return compute(left, right)
