"""The language of lenses: a closed part of SQLAlchemy Core with one meaning on every server.

A lens function receives a row and returns Core expressions. What may stand in them is closed on purpose: column
references, literals, ``+ - *``, comparisons, ``and_``/``or_``/``not_``, ``case``, ``func.coalesce``, ``in_`` over
literals, and the functions of this module. Each function is declared here with its Python meaning; each dialect
says how its server computes the same. :func:`evaluate` is that Python meaning applied to a whole expression.

Everything else (``cast``, ``text()``, subqueries, aggregates, ``func.anything``) is refused when the lens is
declared, with
problem ``CF103``, because its meaning differs between servers.

Meanings that all servers share, and that Core alone would not give:

* text is compared byte for byte (code point by code point), never by collation;
* ``NULL`` in an argument gives ``NULL``, except where a function says otherwise;
* ``lower`` and ``upper`` change the letters A-Z only (SQLite knows no others);
* time is UTC without a zone.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.sql import elements, functions, operators
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.types import TypeEngine

from contraflow.problems import Problem, ProblemError

__all__ = [
    "FUNCTIONS",
    "UTCNOW",
    "Function",
    "LensCall",
    "Ref",
    "after",
    "before",
    "concat",
    "contains",
    "decimal_shift",
    "describe",
    "div",
    "epoch_us",
    "evaluate",
    "from_epoch_us",
    "is_deterministic",
    "json_integer",
    "json_put",
    "json_text",
    "length",
    "lower",
    "ltrim",
    "mod",
    "recode",
    "references",
    "replace",
    "rtrim",
    "starts_with",
    "substr",
    "to_integer",
    "to_minor_units",
    "to_text",
    "trim",
    "upper",
    "utcnow",
    "validate",
]

Expression = ColumnElement[Any]
MAX_INTEGER_DIGITS = 18
"""``to_integer`` and ``json_integer`` take at most this many digits, so that every result fits a 64-bit integer."""


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
    """A call of one of the functions of this module."""

    __visit_name__ = "contraflow_call"
    inherit_cache = False

    def __init__(self, function: Function, arguments: tuple[Expression, ...], type_: TypeEngine[Any]) -> None:
        self.function = function
        self.arguments = arguments
        self.type = type_

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


FUNCTIONS: dict[str, Function] = {}
"""Every function of the language, by name."""


def _function(
    name: str, *, deterministic: bool = True, strict: bool = True
) -> Callable[[Callable[..., Any]], Function]:
    def register(python: Callable[..., Any]) -> Function:
        found = Function(name=name, python=python, deterministic=deterministic, strict=strict)
        FUNCTIONS[name] = found
        return found

    return register


def _element(value: object) -> Expression:
    if isinstance(value, ColumnElement):
        return value
    if isinstance(value, elements.ClauseElement):
        raise _refuse(type(value).__name__)
    if value is None:
        return sa.null()
    return sa.literal(value)


def _call(function: Function, type_: TypeEngine[Any], *arguments: object) -> Expression:
    return LensCall(function, tuple(_element(argument) for argument in arguments), type_)


def _literal_argument(name: str, value: object, kind: type, allowed: bool) -> None:
    if type(value) is not kind or not allowed:
        raise ProblemError(
            Problem(
                code="CF103",
                what=f"{name}() was given {value!r}.",
                why="this argument must be a literal that every server treats alike.",
                instead=f"see the documentation of contraflow.expressions.{name}.",
            )
        )


# --- text ---------------------------------------------------------------------------------------------------------


@_function("concat")
def _concat(*parts: str) -> str:
    return "".join(parts)


def concat(*parts: object) -> Expression:
    """All parts joined; NULL if any part is NULL."""
    return _call(_concat, sa.Text(), *parts)


@_function("before")
def _before(text: str, separator: str) -> str:
    return text.partition(separator)[0]


def before(text: object, separator: str) -> Expression:
    """The part before the first ``separator``, or the whole text if it does not occur."""
    _literal_argument("before", separator, str, separator != "")
    return _call(_before, sa.Text(), text, separator)


@_function("after")
def _after(text: str, separator: str) -> str:
    return text.partition(separator)[2]


def after(text: object, separator: str) -> Expression:
    """The part after the first ``separator``, or ``''`` if it does not occur."""
    _literal_argument("after", separator, str, separator != "")
    return _call(_after, sa.Text(), text, separator)


@_function("trim")
def _trim(text: str) -> str:
    return text.strip(" ")


def trim(text: object) -> Expression:
    """Without spaces (U+0020 only) at both ends."""
    return _call(_trim, sa.Text(), text)


@_function("ltrim")
def _ltrim(text: str) -> str:
    return text.lstrip(" ")


def ltrim(text: object) -> Expression:
    """Without spaces (U+0020 only) at the start."""
    return _call(_ltrim, sa.Text(), text)


@_function("rtrim")
def _rtrim(text: str) -> str:
    return text.rstrip(" ")


def rtrim(text: object) -> Expression:
    """Without spaces (U+0020 only) at the end."""
    return _call(_rtrim, sa.Text(), text)


_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_UPPER = {value: key for key, value in _LOWER.items()}


@_function("lower")
def _lower(text: str) -> str:
    return text.translate(_LOWER)


def lower(text: object) -> Expression:
    """With the letters A-Z, and no others, in lower case."""
    return _call(_lower, sa.Text(), text)


@_function("upper")
def _upper(text: str) -> str:
    return text.translate(_UPPER)


def upper(text: object) -> Expression:
    """With the letters a-z, and no others, in upper case."""
    return _call(_upper, sa.Text(), text)


@_function("replace")
def _replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new)


def replace(text: object, old: str, new: str) -> Expression:
    """With every ``old`` (a literal, not empty) replaced by ``new``, byte for byte."""
    _literal_argument("replace", old, str, old != "")
    _literal_argument("replace", new, str, allowed=True)
    return _call(_replace, sa.Text(), text, old, new)


@_function("substr")
def _substr(text: str, start: int, count: int) -> str:
    return text[start - 1 : start - 1 + count]


def substr(text: object, start: int, count: int) -> Expression:
    """At most ``count`` characters from position ``start``, counted from 1; both are literals."""
    _literal_argument("substr", start, int, start >= 1)
    _literal_argument("substr", count, int, count >= 0)
    return _call(_substr, sa.Text(), text, start, count)


@_function("length")
def _length(text: str) -> int:
    return len(text)


def length(text: object) -> Expression:
    """The number of characters (code points, not bytes)."""
    return _call(_length, sa.Integer(), text)


@_function("contains")
def _contains(text: str, part: str) -> bool:
    return part in text


def contains(text: object, part: str) -> Expression:
    """Whether ``part`` (a literal, not empty) occurs in the text, byte for byte."""
    _literal_argument("contains", part, str, part != "")
    return _call(_contains, sa.Boolean(), text, part)


@_function("starts_with")
def _starts_with(text: str, prefix: str) -> bool:
    return text.startswith(prefix)


def starts_with(text: object, prefix: str) -> Expression:
    """Whether the text begins with ``prefix`` (a literal, not empty), byte for byte."""
    _literal_argument("starts_with", prefix, str, prefix != "")
    return _call(_starts_with, sa.Boolean(), text, prefix)


# --- numbers ------------------------------------------------------------------------------------------------------

INTEGER_TEXT = f"^-?[0-9]{{1,{MAX_INTEGER_DIGITS}}}$"
"""What ``to_integer`` takes, as a regular expression over ASCII."""


@_function("to_integer")
def _to_integer(text: str) -> int | None:
    return int(text) if re.fullmatch(INTEGER_TEXT[1:-1], text, re.ASCII) else None


def to_integer(text: object) -> Expression:
    """The decimal integer that the text spells (at most 18 digits, a leading ``-`` allowed), else NULL."""
    return _call(_to_integer, sa.BigInteger(), text)


@_function("to_text")
def _to_text(number: int) -> str:
    return str(int(number))


def to_text(number: object) -> Expression:
    """The integer in decimal digits."""
    return _call(_to_text, sa.Text(), number)


@_function("div")
def _div(number: int, divisor: int) -> int:
    return number // divisor


def div(number: object, divisor: int) -> Expression:
    """The integer quotient, rounded down (so ``div(-1, 2)`` is -1); ``divisor`` is a positive literal."""
    _literal_argument("div", divisor, int, divisor > 0)
    return _call(_div, sa.BigInteger(), number, divisor)


@_function("mod")
def _mod(number: int, divisor: int) -> int:
    return number % divisor


def mod(number: object, divisor: int) -> Expression:
    """The remainder of :func:`div`, from 0 to ``divisor - 1``; ``divisor`` is a positive literal."""
    _literal_argument("mod", divisor, int, divisor > 0)
    return _call(_mod, sa.BigInteger(), number, divisor)


@_function("decimal_shift")
def _decimal_shift(number: int, digits: int) -> decimal.Decimal:
    return decimal.Decimal(number).scaleb(-digits)


def decimal_shift(number: object, digits: int) -> Expression:
    """The integer divided by 10**digits, as an exact decimal: ``decimal_shift(cents, 2)`` is an amount.

    SQLite keeps decimals as 8-byte floats: exact to 15 significant digits there.
    """
    _literal_argument("decimal_shift", digits, int, 0 < digits <= 9)
    return _call(_decimal_shift, sa.Numeric(30, digits), number, digits)


@_function("to_minor_units")
def _to_minor_units(number: decimal.Decimal | float, digits: int) -> int:
    exact = decimal.Decimal(repr(number)) if isinstance(number, float) else decimal.Decimal(number)
    return int(exact.scaleb(digits).quantize(decimal.Decimal(1), rounding=decimal.ROUND_HALF_UP))


def to_minor_units(number: object, digits: int) -> Expression:
    """The decimal times 10**digits, as an integer, halves rounded away from zero: an amount in cents."""
    _literal_argument("to_minor_units", digits, int, 0 < digits <= 9)
    return _call(_to_minor_units, sa.BigInteger(), number, digits)


# --- time ---------------------------------------------------------------------------------------------------------

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - lens time is UTC without a zone


UTCNOW = "utcnow()"
"""The key under which a row given to :func:`evaluate` may hold the present time."""


@_function("utcnow", deterministic=False)
def _utcnow() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)


def utcnow() -> Expression:
    """The present time, UTC, without a zone. Not deterministic."""
    return _call(_utcnow, sa.DateTime())


@_function("epoch_us")
def _epoch_us(time: dt.datetime) -> int:
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def epoch_us(time: object) -> Expression:
    """Microseconds since 1970-01-01 00:00:00 UTC."""
    return _call(_epoch_us, sa.BigInteger(), time)


@_function("from_epoch_us")
def _from_epoch_us(microseconds: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def from_epoch_us(microseconds: object) -> Expression:
    """The time that many microseconds after 1970-01-01 00:00:00 UTC (years 1 to 9999)."""
    return _call(_from_epoch_us, sa.DateTime(), microseconds)


# --- JSON objects ---------------------------------------------------------------------------------------------------


def _json_object(document: object) -> dict[str, Any]:
    value = json.loads(document) if isinstance(document, str) else document
    return value if isinstance(value, dict) else {}


@_function("json_text")
def _json_text(document: object, key: str) -> str | None:
    value = _json_object(document).get(key)
    return value if isinstance(value, str) else None


def json_text(document: object, key: str) -> Expression:
    """The string under ``key`` of a JSON object; NULL if there is none or it is not a string."""
    _literal_argument("json_text", key, str, _is_key(key))
    return _call(_json_text, sa.Text(), document, key)


@_function("json_integer")
def _json_integer(document: object, key: str) -> int | None:
    value = _json_object(document).get(key)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 10**MAX_INTEGER_DIGITS:
        return None
    return value


def json_integer(document: object, key: str) -> Expression:
    """The integer under ``key`` of a JSON object; NULL if it is not an integer of at most 18 digits."""
    _literal_argument("json_integer", key, str, _is_key(key))
    return _call(_json_integer, sa.BigInteger(), document, key)


@_function("json_put", strict=False)
def _json_put(document: object, key: str, value: object) -> dict[str, Any]:
    result = dict(_json_object(document))
    if value is None:
        result.pop(key, None)
    else:
        result[key] = value
    return result


def json_put(document: object, key: str, value: object) -> Expression:
    """The JSON object with ``key`` set to ``value`` (text or integer); a NULL value removes the key.

    A NULL document counts as ``{}``. Other keys stay as they are.
    """
    _literal_argument("json_put", key, str, _is_key(key))
    return _call(_json_put, sa.JSON(), document, key, value)


def _is_key(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) is not None


# --- combinations -------------------------------------------------------------------------------------------------


def recode(value: object, table: Mapping[Any, Any], *, default: object = None) -> Expression:
    """Each key of ``table`` becomes its value, anything else ``default`` (NULL stays NULL): an enum rename."""
    element = _element(value)
    branches = [(element == _element(key), _element(image)) for key, image in table.items()]
    if default is None:
        return sa.case(*branches, else_=sa.null())
    return sa.case((element.is_(None), sa.null()), *branches, else_=_element(default))


# --- walking --------------------------------------------------------------------------------------------------------

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


def validate(expression: object) -> Expression:
    """``expression`` as an element of the language (a plain Python value becomes a literal); raises ``CF103``."""
    element = _element(expression)
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
    elif isinstance(node, elements.Case):
        name = "case"
    elif isinstance(node, functions.FunctionElement):
        name = "coalesce"
    else:
        name = _operator_name(getattr(node, "operator", type(node)))
    return f"{name}({', '.join(describe(child) for child in children(node))})"


# --- the Python meaning -----------------------------------------------------------------------------------------------


def evaluate(node: Expression, row: Mapping[str, Any]) -> Any:  # noqa: C901 - one arm per kind of node
    """The value of the expression for ``row`` (column name to Python value), by the meanings declared in this module.

    ``row`` may also hold the present time, under the name that no column has, :data:`UTCNOW`.

    ``None`` is NULL, with SQL's three-valued logic. Raises ``KeyError`` for a column that ``row`` lacks, and
    what the Python
    meaning of a function raises for a value outside its domain.
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
    values = [evaluate(child, row) for child in children(node)]
    if isinstance(node, elements.ExpressionClauseList) and not isinstance(node, elements.BooleanClauseList):
        node = pairwise(node)
    if isinstance(node, LensCall):
        if node.function.strict and any(value is None for value in values):
            return None
        if node.function is _utcnow and UTCNOW in row:
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
