"""The functions of the lens language, each with its Python meaning; the dialects say how a server computes it."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from contraflow.expressions.trees import Expression, Function, LensCall, element_of
from contraflow.problems import Problem, ProblemError

__all__ = [
    "FUNCTIONS",
    "UTCNOW",
    "after",
    "before",
    "concat",
    "contains",
    "decimal_shift",
    "div",
    "epoch_us",
    "from_epoch_us",
    "json_integer",
    "json_put",
    "json_text",
    "length",
    "lower",
    "ltrim",
    "mod",
    "recode",
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
]

MAX_INTEGER_DIGITS = 18
"""``to_integer`` and ``json_integer`` take at most this many digits, so that every result fits a 64-bit integer."""

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


def _call(function: Function, type_: TypeEngine[Any], *arguments: object) -> Expression:
    return LensCall(function, tuple(element_of(argument) for argument in arguments), type_)


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
    element = element_of(value)
    branches = [(element == element_of(key), element_of(image)) for key, image in table.items()]
    if default is None:
        return sa.case(*branches, else_=sa.null())
    return sa.case((element.is_(None), sa.null()), *branches, else_=element_of(default))
