"""A release's tables as its nodes see them, and what its columns hold: values to write, and what is read again."""

from __future__ import annotations

import datetime as dt
import decimal
import random
import re
import string
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from contraflow.operations.base import TableName, constant_default

__all__ = ["ANY", "Link", "TableShape", "reflect", "stored", "value_for"]


class _Any:
    """A value that only the server knows."""

    def __repr__(self) -> str:
        return "whatever the server made"


ANY = _Any()


@dataclass(frozen=True, kw_only=True)
class Link:
    """A foreign key: its columns, and those of the table that it refers to."""

    columns: tuple[str, ...]
    table: TableName
    referred: tuple[str, ...]
    moves: bool = False
    """Rows may come to refer to another row."""
    nulls: frozenset[str] = frozenset()
    """Those of its columns that may be NULL and refer to NULL."""


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """One table in the shape of one release.

    :ivar name: what the rehearsal calls it, for both releases.
    :ivar physical: what this release calls it, if that is something else.
    """

    name: TableName
    physical: TableName | None = None
    columns: Mapping[str, sa.Column[Any]]
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...] = ()
    """Every other set of columns that may not repeat."""
    links: tuple[Link, ...] = ()
    made: frozenset[str] = field(default=frozenset())
    """Columns that the server fills: never written."""
    documents: frozenset[str] = field(default=frozenset())
    """Columns that hold JSON although the server calls them texts."""
    followed: frozenset[str] = frozenset()
    """Columns by which rows of other tables find its rows: while nobody makes these follow, they do not change."""
    former: tuple[str, ...] = ()
    """The columns of the primary key that the other release knows its rows by, where that is another one."""
    keyless: bool = False
    """It has no primary key: the columns of ``key`` tell rows apart because the workload never repeats them."""

    excluding: tuple[str, ...] = ()
    """Exclusion constraints that rows may violate which differ in every column."""

    @property
    def title(self) -> str:
        """The table as people write it."""
        schema, name = self.physical or self.name
        return f"{schema}.{name}" if schema else name

    @cached_property
    def automatic(self) -> str | None:
        """The key column that the server numbers, None if there is none."""
        (first, *more) = self.key or ("",)
        return first if not more and first in self.made else None

    @cached_property
    def obstacle(self) -> str | None:
        """Why the generated workload cannot write this table, None if it can."""
        if not self.key:
            return "it has no primary key, and no column whose values could tell its rows apart"
        if any(not set(columns) & self.columns.keys() for columns in self.unique):
            return "what the server computes for its rows is unique"
        if self.excluding:
            return f"which rows {self.excluding[0]} lets stand beside each other is not known"
        linked = {name for link in self.links for name in link.columns}
        for name, column in self.columns.items():
            needed = name in self.key or not (column.nullable or column.server_default is not None)
            if needed and name not in self.made and name not in linked and not _known(column.type):
                return f"no values of type {column.type!r} are known for {name}"
        return None

    def written(self) -> TableShape:
        """The table without columns that the server computes from others: a write of these changes them, too."""
        linked = {name for link in self.links for name in link.columns}
        gone = {name for name, column in self.columns.items() if column.computed} - {*self.key, *linked}
        return replace(self, columns={name: column for name, column in self.columns.items() if name not in gone})

    def told_apart_by(self, name: str) -> TableShape:
        """The table, which has no primary key, with a column instead whose values the workload never repeats."""
        return replace(self, key=(name,), keyless=True)

    def may_tell_apart(self, name: str) -> bool:
        """Whether the column can hold a value of its own in each of a million rows, and be asked for it."""
        type_ = self.columns[name].type
        linked = {each for link in self.links for each in link.columns}
        if name in self.made or name in linked or name in self.documents:
            return False
        if isinstance(type_, sa.types.String) and not isinstance(type_, sa.types.Enum):
            return (type_.length or 6) >= 6
        return isinstance(type_, sa.types.Integer) and _range(type_)[1] >= 2**31 - 1

    def default(self, name: str) -> Any:
        """What the server stores where the column is left out: None without a default, ANY if it computes one."""
        column = self.columns[name]
        if name in self.made:
            return ANY
        if column.server_default is None:
            return None
        constant, value = constant_default(column)
        return value if constant else ANY


def reflect(connection: sa.Connection) -> dict[TableName, TableShape]:
    """Every table of the connection's own schema, but Alembic's and this library's."""
    inspector = sa.inspect(connection)
    metadata = sa.MetaData()
    found: dict[TableName, TableShape] = {}
    for name in sorted(inspector.get_table_names()):
        table = sa.Table(name, metadata, autoload_with=connection, resolve_fks=False)
        documents = _documents(connection, name)
        for column in table.columns:
            if column.name in documents:
                column.type = sa.types.JSON()
        if name.startswith("contraflow_") or [column.name for column in table.columns] == ["version_num"]:
            continue
        unique = {
            tuple(constraint.columns.keys())
            for constraint in table.constraints
            if isinstance(constraint, sa.UniqueConstraint)
        }
        unique |= {tuple(index.columns.keys()) for index in table.indexes if index.unique and index.columns}
        exclusions = _exclusions(connection, name)
        unique |= {columns for columns in exclusions.values() if columns}
        key = tuple(table.primary_key.columns.keys())
        found[None, name] = TableShape(
            name=(None, name),
            columns={column.name: column for column in table.columns},
            key=key,
            unique=tuple(sorted(unique - {key})),
            links=tuple(
                Link(
                    columns=tuple(link["constrained_columns"]),
                    table=(link.get("referred_schema"), link["referred_table"]),
                    referred=tuple(link["referred_columns"]),
                )
                for link in inspector.get_foreign_keys(name)
            ),
            documents=documents,
            excluding=tuple(name for name, columns in exclusions.items() if not columns),
            made=frozenset(column.name for column in table.columns if _is_made(column, table)),
        )
    return found


def _documents(connection: sa.Connection, table: str) -> frozenset[str]:
    """MariaDB's JSON is LONGTEXT with a CHECK of this form (manual, "JSON Data Type"), which reflection leaves out."""
    if not getattr(connection.dialect, "is_mariadb", False):
        return frozenset()
    clauses = connection.execute(
        sa.text(
            "SELECT check_clause FROM information_schema.check_constraints"
            " WHERE constraint_schema = DATABASE() AND table_name = :name"
        ),
        {"name": table},
    ).scalars()
    found = (re.fullmatch(r"\(*json_valid\(`?(\w+)`?\)\)*", clause) for clause in clauses)
    return frozenset(match[1] for match in found if match)


def _exclusions(connection: sa.Connection, table: str) -> dict[str, tuple[str, ...]]:
    """PostgreSQL's exclusion constraints of a table, which SQLAlchemy does not reflect.

    Each with the columns of which a value of its own in every row meets it: those that it compares by ``=``; none where
    there is none, or where it compares what is computed, for which not every row may have a value.
    """
    if connection.dialect.name != "postgresql":
        return {}
    found = connection.execute(
        sa.text(
            "SELECT held.conname, part.attname, compares.oprname FROM pg_constraint AS held"
            " CROSS JOIN LATERAL unnest(held.conkey, held.conexclop) WITH ORDINALITY AS one (number, operator, place)"
            " JOIN pg_operator AS compares ON compares.oid = one.operator"
            " LEFT JOIN pg_attribute AS part ON part.attrelid = held.conrelid AND part.attnum = one.number"
            " WHERE held.contype = 'x' AND held.conrelid = to_regclass(quote_ident(:name))"
            " ORDER BY held.conname, one.place"
        ),
        {"name": table},
    ).all()
    elements: dict[str, list[tuple[str | None, str]]] = {}
    for constraint, column, operator in found:
        elements.setdefault(constraint, []).append((column, operator))
    return {
        constraint: ()
        if any(column is None for column, _ in compared)
        else tuple(column for column, operator in compared if column is not None and operator == "=")
        for constraint, compared in elements.items()
    }


def _is_made(column: sa.Column[Any], table: sa.Table) -> bool:
    if column.computed is not None or column.identity is not None:
        return True
    linked = {name for key in table.foreign_key_constraints for name in key.column_keys}
    if column is not table.autoincrement_column or column.name in linked:
        return False
    # SQLite numbers a key of exactly this type, whatever was declared; elsewhere reflection tells.
    return column.autoincrement is True or (column.autoincrement == "auto" and type(column.type) is sa.types.INTEGER)


# -- values ---------------------------------------------------------------------------------------------------

TEXTS = [
    *(
        "Ann Lee",
        "ann lee",
        "ANN LEE",
        "Bo",
        "Cher",
        "",
        " ",
        "  two  spaces ",
        "José Ñandú",
        "e\u0301",
        "李 小龍",
        "𝒳 🙂",
    ),
    *(
        "O'Neil",
        'say "hi"',
        "100%",
        "%s",
        ":x",
        "a\\b",
        "\\",
        "_",
        "NULL",
        "0",
        "007",
        "-1",
        "1e3",
        "true",
        "<b>",
        "a,b;c",
    ),
    *("x@example.org", "line\nbreak", "tab\there", "Łucja van der Berg-Åström"),
]
"""Texts that break careless SQL: quotes, backslashes, percent signs, spaces, case, composition, other scripts."""

_EPOCH = dt.datetime(1970, 1, 2)  # noqa: DTZ001 - MySQL's TIMESTAMP begins here, in any zone
_SECONDS = 2_100_000_000
_DIGITS = string.digits + string.ascii_lowercase


def value_for(column: sa.Column[Any], rng: random.Random, *, token: int | None = None) -> Any:
    """A value that the column may hold: ordinary ones, NULL, and extremes.

    With a ``token`` (a number that is used once) the value is one that no other row has.
    """
    if token is None and column.nullable and rng.random() < 0.2:
        return None
    maker = _maker(column.type)
    if maker is None:
        return None
    return maker(column.type, rng, token)


def _known(type_: sa.types.TypeEngine[Any]) -> bool:
    return _maker(type_) is not None


def _enum(type_: Any, rng: random.Random, token: int | None) -> Any:
    return type_.enums[token % len(type_.enums)] if token is not None else rng.choice(type_.enums)


def _text(type_: Any, rng: random.Random, token: int | None) -> str:
    limit = type_.length or 200
    if token is not None:
        # Lower case and no spaces: distinct under every collation, and after most of what a lens does to a text.
        return _base36(token).rjust(min(limit, 6), "0")
    if rng.random() < 0.05:
        return ("x" * limit)[: min(limit, 2000)]
    text = rng.choice(TEXTS)
    if rng.random() < 0.3:
        text = f"{text} {rng.randrange(1000)}"
    text = text[:limit]
    return text.rstrip() if isinstance(type_, sa.types.CHAR) else text


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _integer(type_: Any, rng: random.Random, token: int | None) -> int:
    low, high = _range(type_)
    if token is not None:
        return token
    if rng.random() < 0.1:
        return rng.choice((low, high, 0, 1))
    return rng.randrange(max(low, -1000), min(high, 1_000_000))


def _range(type_: Any) -> tuple[int, int]:
    name = type(type_).__name__.upper()
    bits = {"TINYINT": 8, "SMALLINT": 16, "SMALLINTEGER": 16, "MEDIUMINT": 24, "BIGINT": 64, "BIGINTEGER": 64}
    width = bits.get(name, 32)
    if name == "TINYINT" and getattr(type_, "display_width", None) == 1:
        return 0, 1  # how MySQL and MariaDB keep a Boolean
    if getattr(type_, "unsigned", False):
        return 0, 2**width - 1
    return -(2 ** (width - 1)), 2 ** (width - 1) - 1


def _numeric(type_: Any, rng: random.Random, token: int | None) -> Any:
    precision, scale = type_.precision or 15, type_.scale or 0
    if isinstance(type_, sa.types.Float) or not type_.asdecimal:
        return float(token) if token is not None else rng.randrange(-4000, 4000) / 4
    if token is not None:
        return decimal.Decimal(token)
    digits = rng.choice((1, 2, precision))
    number = rng.randrange(10 ** min(digits, precision))
    return decimal.Decimal((rng.randrange(2), tuple(map(int, str(number))), -scale)) + 0


def _boolean(_type: Any, rng: random.Random, token: int | None) -> bool:
    return bool(token % 2) if token is not None else rng.random() < 0.5


def _datetime(type_: Any, rng: random.Random, token: int | None) -> dt.datetime:
    seconds = token if token is not None else rng.randrange(_SECONDS)
    fine = not isinstance(type_, (mysql.DATETIME, mysql.TIMESTAMP)) or (type_.fsp or 0) >= 6
    micro = rng.randrange(1_000_000) if fine and token is None else 0
    moment = _EPOCH + dt.timedelta(seconds=seconds, microseconds=micro)
    return moment.replace(tzinfo=dt.timezone.utc) if type_.timezone else moment


def _date(_type: Any, rng: random.Random, token: int | None) -> dt.date:
    return dt.date(1970, 1, 2) + dt.timedelta(days=token if token is not None else rng.randrange(24_000))


def _time(_type: Any, rng: random.Random, token: int | None) -> dt.time:
    seconds = (token if token is not None else rng.randrange(86_400)) % 86_400
    return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60)


def _binary(type_: Any, rng: random.Random, token: int | None) -> bytes:
    if token is not None:
        return token.to_bytes(min(type_.length or 6, 6), "big")
    return rng.randbytes(rng.randrange(min(type_.length or 40, 40) + 1))


def _document(_type: Any, rng: random.Random, token: int | None) -> Any:
    if token is not None:
        return {"n": token}
    return rng.choice(({"k": "v", "n": rng.randrange(100)}, {}, {"k": rng.choice(TEXTS), "other": [1, None]}, {"k": 1}))


def _uuid(_type: Any, rng: random.Random, token: int | None) -> uuid.UUID:
    return uuid.UUID(int=token if token is not None else rng.getrandbits(128))


_MAKERS: list[tuple[type[Any], Callable[[Any, random.Random, int | None], Any]]] = [
    (sa.types.Enum, _enum),
    (sa.types.String, _text),
    (sa.types.Boolean, _boolean),
    (sa.types.Integer, _integer),
    (sa.types.Numeric, _numeric),
    (sa.types.DateTime, _datetime),
    (sa.types.Date, _date),
    (sa.types.Time, _time),
    (sa.types.JSON, _document),
    (sa.types.Uuid, _uuid),
    (sa.types.LargeBinary, _binary),
    (sa.types._Binary, _binary),  # noqa: SLF001 - BINARY and VARBINARY have no other common class
]


def _maker(type_: sa.types.TypeEngine[Any]) -> Callable[[Any, random.Random, int | None], Any] | None:
    if isinstance(type_, sa.types.String) and not isinstance(type_, sa.types.Enum) and hasattr(type_, "values"):
        return None  # MySQL's SET
    return next((maker for kind, maker in _MAKERS if isinstance(type_, kind)), None)


def stored(type_: sa.types.TypeEngine[Any]) -> Callable[[Any], Any]:
    """What a column of the type makes of a value that is stored in it."""
    if isinstance(type_, sa.types.Float) or not isinstance(type_, (sa.types.Numeric, sa.types.CHAR, sa.types.DateTime)):
        return _as_it_is
    if isinstance(type_, sa.types.CHAR):
        return lambda value: value.rstrip(" ") if isinstance(value, str) else value
    if isinstance(type_, sa.types.DateTime):
        return _instant
    if type_.scale is None or not type_.asdecimal:
        return _as_it_is
    unit = decimal.Decimal(1).scaleb(-type_.scale)
    return lambda value: decimal.Decimal(value).quantize(unit, rounding=decimal.ROUND_HALF_UP)


def _as_it_is(value: Any) -> Any:
    return value


def _instant(value: Any) -> Any:
    """Moments with a zone are compared as instants, whatever zone the driver gives them."""
    return value.astimezone(dt.timezone.utc) if isinstance(value, dt.datetime) and value.tzinfo else value


def columns_of(tables: Iterable[TableShape]) -> list[dict[str, Any]]:
    """The tables as a node is told of them, in plain data."""
    return [
        {
            "schema": (shape.physical or shape.name)[0],
            "name": (shape.physical or shape.name)[1],
            "columns": list(shape.columns),
            "key": list(shape.key),
            "former": list(shape.former),
            "automatic": shape.automatic,
            "documents": sorted(shape.documents),
        }
        for shape in tables
    ]
