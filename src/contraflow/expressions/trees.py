"""Expressions of the lens language as trees: their nodes, which nodes are allowed, and walks over them."""

from __future__ import annotations

import datetime as dt
import decimal
import operator
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.sql import elements, functions, operators
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.types import TypeEngine

from contraflow.problems import Problem, ProblemError

__all__ = [
    "ARITHMETIC",
    "COMPARISONS",
    "NEW_UUID",
    "Expression",
    "Function",
    "LensCall",
    "Lookup",
    "Made",
    "Match",
    "NewUuid",
    "Ref",
    "children",
    "describe",
    "element_of",
    "inside",
    "is_deterministic",
    "new_uuid",
    "pairwise",
    "references",
    "validate",
    "walk",
]

Expression = ColumnElement[Any]


class Ref(ColumnElement[Any]):
    """A column of the row a lens looks at."""

    __visit_name__ = "contraflow_ref"
    inherit_cache = False

    def __init__(self, name: str, type_: TypeEngine[Any] | None = None) -> None:
        self.name = name
        self.type = type_ if type_ is not None else sa.types.NULLTYPE

    def __repr__(self) -> str:
        return f"row.{self.name}"


class LensCall(ColumnElement[Any]):
    """A call of one of the language's functions."""

    __visit_name__ = "contraflow_call"
    inherit_cache = False

    def __init__(self, function: Function, arguments: tuple[Expression, ...], type_: TypeEngine[Any]) -> None:
        self.function = function
        self.arguments = arguments
        self.type = type_

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a column of a row that is looked up must hold."""

    name: str
    value: Expression
    """A column of the row at hand, or a literal."""
    type: TypeEngine[Any] = field(default_factory=sa.types.NullType)
    """The type of the column, as it is declared or found."""
    nulls: bool = False
    """NULL finds NULL."""


@dataclass(frozen=True, kw_only=True)
class NewUuid:
    """A new UUID for each row that an upgrade makes, as text: 36 characters, or 32 without hyphens.

    Made by the server: ``gen_random_uuid()`` on PostgreSQL, ``UUID()`` and ``RANDOM_BYTES()`` on MySQL, ``UUID()`` and
    ``SYS_GUID()`` on MariaDB, ``randomblob()`` on SQLite. It is for ``values=`` of an operation that makes rows, not
    for lenses: nothing could tell it from another one. ``UUID()`` and ``SYS_GUID()`` count up (version 1); they are not
    secrets. The others are random (version 4).
    """

    hyphens: bool = True


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a further column gets when a row that was looked for in vain is made."""

    name: str
    value: Expression | NewUuid
    type: TypeEngine[Any]


class Lookup(ColumnElement[Any]):
    """A column of the row of another table that matches; NULL if there is none, or all that it should match is NULL.

    The matched columns are a key of that table: what is alike to them is what is alike to its unique index. It is no
    word of the language, as somebody must follow what happens to the other table: operations write it, lenses may not.
    """

    __visit_name__ = "contraflow_lookup"
    inherit_cache = False

    def __init__(
        self,
        *,
        table: str,
        schema: str | None,
        column: str,
        type_: TypeEngine[Any],
        matches: tuple[Match, ...],
        made: tuple[Made, ...] | None = None,
        fills: bool = False,
    ) -> None:
        self.table = table
        self.schema = schema
        self.column = column
        self.type = type_
        self.matches = matches
        self.made = made
        """None: what is not found is not made."""
        self.fills = fills
        """The column is new there, and filled meanwhile: NULL is asked for again, waiting for whoever fills it."""

    @property
    def given(self) -> tuple[str, ...]:
        """The columns of the row at hand that are matched."""
        return tuple(match.value.name for match in self.matches if isinstance(match.value, Ref))

    def __repr__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function of the language: its name, its meaning in Python, and whether it gives the same value twice."""

    name: str
    python: Callable[..., Any]
    deterministic: bool = True
    strict: bool = True
    """NULL in any argument gives NULL without calling ``python``."""


NEW_UUID = Function(name="new_uuid", python=lambda: str(uuid.uuid4()), deterministic=False)
"""No word of the language, as nothing could tell its value from another one: operations write it, lenses may not."""


def new_uuid(type_: TypeEngine[Any]) -> LensCall:
    """A new UUID each time that it is computed, as a column of the type holds it."""
    return LensCall(NEW_UUID, (), type_)


COMPARISONS: dict[Any, Callable[[Any, Any], Any]] = {
    operators.eq: operator.eq,
    operators.ne: operator.ne,
    operators.lt: operator.lt,
    operators.le: operator.le,
    operators.gt: operator.gt,
    operators.ge: operator.ge,
}
ARITHMETIC: dict[Any, Callable[[Any, Any], Any]] = {
    operators.add: operator.add,
    operators.sub: operator.sub,
    operators.mul: operator.mul,
    operators.concat_op: operator.add,
}
_INSTEAD = {
    "truediv": "div(number, divisor), or decimal_shift / to_minor_units for decimals",
    "floordiv": "div(number, divisor)",
    "mod": "mod(number, divisor)",
    "cast": "to_text, to_integer, epoch_us or another function of contraflow.expressions",
    "lower": "contraflow.expressions.lower (letters A-Z on every server)",
    "upper": "contraflow.expressions.upper (letters A-Z on every server)",
    "length": "contraflow.expressions.length (characters on every server)",
    "char_length": "contraflow.expressions.length",
    "concat": "contraflow.expressions.concat (NULL if a part is NULL, on every server)",
    "substr": "contraflow.expressions.substr",
    "substring": "contraflow.expressions.substr",
    "trim": "contraflow.expressions.trim",
    "replace": "contraflow.expressions.replace",
    "now": "contraflow.expressions.utcnow()",
    "current_timestamp": "contraflow.expressions.utcnow()",
    "greatest": "case((a > b, a), else_=b)",
    "least": "case((a < b, a), else_=b)",
    "nullif": "case((value == other, None), else_=value)",
}


def _refuse(what: str, instead: str | None = None) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF103",
            what=f"{what} cannot stand in a lens.",
            why="its meaning differs between servers, or it looks at more than one row.",
            instead=f"write {instead}." if instead else "use the functions of contraflow.expressions.",
        )
    )


def _operator_name(found: Any) -> str:
    return str(getattr(found, "__name__", found))


def _in_values(right: Any) -> list[Any]:
    """The literals on the right of ``in_``."""
    element = right.element if isinstance(right, elements.Grouping) else right
    if isinstance(element, elements.BindParameter) and element.expanding:
        return [sa.literal(value, element.type) for value in cast("list[Any]", element.value)]
    if isinstance(element, elements.ClauseList):
        return list(element.clauses)
    raise _refuse("in_() over something else than literals")


def inside(node: elements.Grouping[Any]) -> Expression:
    """What the parentheses hold."""
    return cast("Expression", node.element)


def children(node: Expression) -> list[Expression]:  # noqa: C901 - one arm per kind of node, closed on purpose
    """The operands of ``node``; raises ``CF103`` if the node is not of the language."""
    if isinstance(node, (Ref, elements.Null, elements.True_, elements.False_)):
        return []
    if isinstance(node, LensCall):
        return list(node.arguments)
    if isinstance(node, Lookup):
        told = [made.value for made in node.made or () if not isinstance(made.value, NewUuid)]
        return [*(match.value for match in node.matches), *told]
    if isinstance(node, elements.BindParameter):
        if node.expanding or not _is_literal(node.value):
            raise _refuse(f"the literal {node.value!r}")
        return []
    if isinstance(node, elements.Grouping):
        return [inside(node)]
    if isinstance(node, elements.Case):
        if node.value is not None:
            raise _refuse("case(value=...)", "case((column == literal, result), ...)")
        parts = [part for pair in node.whens for part in pair]
        return [*parts, node.else_] if node.else_ is not None else parts
    if isinstance(node, elements.BooleanClauseList):
        return list(node.clauses)
    if isinstance(node, elements.ExpressionClauseList):
        return _binary_children(pairwise(node))
    if isinstance(node, elements.AsBoolean) or (
        isinstance(node, elements.UnaryExpression) and node.operator in (operators.inv, operators.neg)
    ):
        return [node.element]
    if isinstance(node, elements.BinaryExpression):
        return _binary_children(node)
    if isinstance(node, functions.coalesce):
        return list(node.clauses)
    if isinstance(node, functions.FunctionElement):
        name = str(getattr(node, "name", "function")).lower()
        raise _refuse(f"func.{name}", _INSTEAD.get(name))
    if isinstance(node, elements.Cast):
        raise _refuse("cast()", _INSTEAD["cast"])
    raise _refuse(type(node).__name__)


def pairwise(node: elements.ExpressionClauseList[Any]) -> elements.BinaryExpression[Any]:
    """``a + b + c``, which SQLAlchemy keeps as one flat list, as ``(a + b) + c``."""
    first, *rest = cast("list[Expression]", list(node.clauses))
    for clause in rest:
        first = elements.BinaryExpression(first, clause, cast("Any", node.operator), type_=node.type)
    return cast("elements.BinaryExpression[Any]", first)


def _binary_children(node: elements.BinaryExpression[Any]) -> list[Expression]:
    left, right = node.left, node.right
    if node.operator in (operators.in_op, operators.not_in_op):
        return [left, *_in_values(right)]
    known = (
        node.operator in COMPARISONS
        or node.operator in ARITHMETIC
        or node.operator
        in (operators.is_, operators.is_not, operators.is_distinct_from, operators.is_not_distinct_from)
    )
    if not known:
        name = _operator_name(node.operator)
        raise _refuse(f"the operator {name}", _INSTEAD.get(name))
    return [left, right]


def _is_literal(value: object) -> bool:
    if isinstance(value, float):
        return False
    if isinstance(value, str):
        # No server stores the first; the others are halves of a character that UTF-8 cannot write.
        return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, decimal.Decimal):
        return value.is_finite()
    if isinstance(value, dt.datetime):
        return value.tzinfo is None
    return value is None


def walk(expression: Expression) -> Iterator[Expression]:
    """Every node of the expression, outermost first; raises ``CF103`` at a node that is not of the language."""
    yield expression
    for child in children(expression):
        yield from walk(child)


def element_of(value: object) -> Expression:
    """``value`` as an element of SQLAlchemy's: a plain Python value becomes a literal. Raises ``CF103``."""
    if isinstance(value, ColumnElement):
        return value
    if isinstance(value, elements.ClauseElement):
        raise _refuse(type(value).__name__)
    if value is None:
        return sa.null()
    return sa.literal(value)


def validate(expression: object) -> Expression:
    """``expression`` as an element of the language (a plain Python value becomes a literal); raises ``CF103``."""
    element = element_of(expression)
    for _ in walk(element):
        pass
    return element


def references(expression: Expression) -> frozenset[str]:
    """The names of the columns that the expression reads."""
    return frozenset(node.name for node in walk(expression) if isinstance(node, Ref))


def is_deterministic(expression: Expression) -> bool:
    """Whether the expression gives the same value each time it is computed from the same row."""
    return all(node.function.deterministic for node in walk(expression) if isinstance(node, LensCall))


def describe(node: Expression) -> str:
    """A stable text of the expression: equal texts mean equal expressions. Used for fingerprints and messages."""
    if isinstance(node, Ref):
        return f"row.{node.name}"
    if isinstance(node, elements.BindParameter):
        return repr(node.value)
    if isinstance(node, elements.Null):
        return "NULL"
    if isinstance(node, (elements.True_, elements.False_)):
        return "True" if isinstance(node, elements.True_) else "False"
    if isinstance(node, elements.Grouping):
        return describe(inside(node))
    if isinstance(node, LensCall):
        name = node.function.name
    elif isinstance(node, Lookup):
        matched = ", ".join(f"{match.name}{'?' if match.nulls else ''}" for match in node.matches)
        parts = [f"{one.name} {one.value if isinstance(one.value, NewUuid) else ''}" for one in node.made or ()]
        made = "" if node.made is None else f" or make {', '.join(parts)}"
        name = f"{node.schema}.{node.table}.{node.column} by {matched}{made}"
    elif isinstance(node, elements.Case):
        name = "case"
    elif isinstance(node, functions.FunctionElement):
        name = "coalesce"
    else:
        name = _operator_name(getattr(node, "operator", type(node)))
    return f"{name}({', '.join(describe(child) for child in children(node))})"
