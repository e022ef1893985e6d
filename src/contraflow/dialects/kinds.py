"""Types as servers spell them: what a column of one holds, and which values of a wider one it does not."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Kind", "kind_of", "misfit"]

_NAMES = {
    "tinyint": ("integer", 8),
    "smallint": ("integer", 16),
    "mediumint": ("integer", 24),
    "int": ("integer", 32),
    "integer": ("integer", 32),
    "bigint": ("integer", 64),
    "varchar": ("text", None),
    "character varying": ("text", None),
    "nvarchar": ("text", None),
    "text": ("text", None),
    "varbinary": ("binary", None),
    "bytea": ("binary", None),
    "blob": ("binary", None),
    "decimal": ("decimal", None),
    "numeric": ("decimal", None),
}
_MYSQL = {"tiny": 2**8 - 1, "": 2**16 - 1, "medium": 2**24 - 1, "long": None}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type, as far as it can be widened."""

    family: str
    """``integer``, ``text``, ``binary``, ``decimal``, or the type's name for another one."""
    size: int | None = None
    """Bits of an integer, characters of a text (bytes where ``in_bytes``), all digits of a decimal; None: no limit."""
    scale: int = 0
    unsigned: bool = False
    in_bytes: bool = False
    large: bool = False
    """Kept apart from the row, as MySQL keeps TEXT and BLOB."""


def kind_of(text: str, product: str) -> Kind:
    """The kind of a type as the server itself, or SQLAlchemy for that server, spells it."""
    match = re.match(r"\s*([a-z]+(?: varying)?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?(.*)", text, re.IGNORECASE)
    if match is None:
        return Kind(family=text.lower())
    name, first, second, rest = match[1].lower(), match[2], match[3], match[4].lower()
    on_mysql = product in ("mysql", "mariadb")
    if on_mysql and (large := re.fullmatch(r"(tiny|medium|long)?(text|blob)", name)):
        family = "text" if large[2] == "text" else "binary"
        return Kind(family=family, size=_MYSQL[large[1] or ""], in_bytes=True, large=True)
    family, size = _NAMES.get(name, (name, None))
    if family == "integer":
        bits = 64 if product in ("sqlite", "cockroachdb") and name in ("int", "integer") else size
        return Kind(family=family, size=bits, unsigned="unsigned" in rest)
    return Kind(family=family, size=int(first) if first else None, scale=int(second or 0))


def misfit(kind: Kind, value: str, product: str) -> str | None:
    """The condition that ``value`` (SQL text) is none that the type holds; None if there is no such value."""
    if kind.size is None:
        return None
    if kind.family == "integer":
        low = 0 if kind.unsigned else -(2 ** (kind.size - 1))
        high = 2 ** (kind.size - (0 if kind.unsigned else 1)) - 1
        return f"({value} < {low} OR {value} > {high})"
    if kind.family == "decimal":
        limit = 10 ** (kind.size - kind.scale)
        return f"(abs({value}) >= {limit} OR round({value}, {kind.scale}) <> {value})"
    if kind.family not in ("text", "binary"):
        return None
    characters = "char_length" if product in ("mysql", "mariadb") and not kind.in_bytes else "length"
    return f"{characters}({value}) > {kind.size}"
