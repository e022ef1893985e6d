"""Changes of a column's type under its own name: widenings, which both releases can live with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from contraflow.operations.base import Fragment, Schema, find_column
from contraflow.operations.held import Holder
from contraflow.problems import Problem, ProblemError

__all__ = ["WidenColumn", "changes_under_one_name", "integer_range", "is_widening", "widening_problems"]


@dataclass(frozen=True, kw_only=True)
class WidenColumn:
    """Give a column a wider type under its own name: one that holds every old value, and whose values the old release
    can read.

    These are: a longer or unlimited text or binary type, a larger integer type, and more digits of a decimal one.
    Name, nullability, default, collation and comment stay. Both releases see the wider type from ``expand`` on;
    ``rollback`` brings the old one back if all rows still fit it (``CF015`` shows those that do not).

    On PostgreSQL and CockroachDB a statement that was prepared before fails once the type of a column it selects has
    changed (0A000, "cached plan must not change result type"), with psycopg in one transaction of each connection.
    There, ``replans`` must say that the application lives with it (``CF119``): it prepares nothing (psycopg:
    ``prepare_threshold=None``), or runs its transactions by :func:`contraflow.retry`.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF113`` when planned, if the change is not a widening.
    """

    table: str
    column: str
    type: TypeEngine[Any] | type[TypeEngine[Any]]
    replans: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", sa.types.to_instance(self.type))

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        column = find_column(schema, table, self.column)
        wide = sa.types.to_instance(self.type)
        if not is_widening(column.type, wide):
            raise changes_under_one_name(self.table, self.column, f"{column.type!r} to {wide!r}")
        widened = column._copy()  # noqa: SLF001 - SQLAlchemy's own way to have a column twice
        widened.type = wide
        return Fragment(table=table, widen=(widened,), replans=self.replans)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "WidenColumn",
            "table": [self.schema, self.table],
            "column": self.column,
            "type": repr(self.type),
            "replans": self.replans,
        }


def changes_under_one_name(table: str, column: str, what: str = "") -> ProblemError:
    """``CF113``, with the two ways out."""
    return ProblemError(
        Problem(
            code="CF113",
            what=f"{table}.{column} would change its type under its own name{f' ({what})' if what else ''}.",
            why="both releases see one physical column, and one of them would not understand it.",
            instead=f'give the new shape a name of its own: ChangeType(..., new=sa.Column("{column}_2", ...)).'
            f'\nA type that only holds more: WidenColumn(table="{table}", column="{column}", type=...).',
        )
    )


def is_widening(old: TypeEngine[Any], new: TypeEngine[Any]) -> bool:
    """Whether ``new`` holds every value of ``old`` unchanged, and gives the application values of the same kind."""
    if isinstance(old, sa.types.TypeDecorator) or isinstance(new, sa.types.TypeDecorator):
        return False  # what it does to values is not known here
    if isinstance(old, sa.types.Integer) and isinstance(new, sa.types.Integer):
        (low, high), (least, largest) = integer_range(old), integer_range(new)
        return least <= low and high <= largest and not _is_flag(old)
    if isinstance(old, sa.types.Numeric) and isinstance(new, sa.types.Numeric):
        return _more_digits(old, new)
    if isinstance(old, sa.types.String) and isinstance(new, sa.types.String):
        return _is_text(old) and _is_text(new) and _longer(old, new) and not _recollates(old, new)
    return _is_binary(old) and _is_binary(new) and _longer(old, new)


def widening_problems(
    table: str, widened: Iterable[str], found: Sequence[Holder], synced: Collection[str]
) -> Iterator[Problem]:
    """Columns whose type cannot change while something else depends on it."""
    for name in widened:
        if name in synced:
            yield Problem(
                code="CF116",
                what=f"{table}.{name} gets a wider type, and is synced with another column, in one upgrade.",
                why="the sync would compare and cut values by the type that it had.",
                instead="give the other column the wider type at once: ChangeType(...) or TransformColumns(...);"
                "\nor widen it in an upgrade of its own.",
            )
        for holder in found:
            if holder.kind in ("foreign key", "check constraint") and holder.holds(name):
                yield Problem(
                    code="CF111",
                    what=f"{table}.{name} cannot get a wider type: {holder.title} stands on it.",
                    why="the server would check every row again while writers wait, or refuses.",
                    instead=f"drop {holder.title} in a revision before this one, and add it again in one after it.",
                )


def integer_range(type_: sa.types.Integer) -> tuple[int, int]:
    """The least and the largest value; 32 bits where the type says nothing else, as every server but SQLite has it."""
    name = type(type_).__name__.upper()
    bits = {"TINYINT": 8, "SMALLINT": 16, "SMALLINTEGER": 16, "MEDIUMINT": 24, "BIGINT": 64, "BIGINTEGER": 64}.get(
        name, 32
    )
    if getattr(type_, "unsigned", False):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


_SIZES = {
    **dict.fromkeys(["TINYTEXT", "TINYBLOB"], 2**8 - 1),
    **dict.fromkeys(["TEXT", "BLOB", "LARGEBINARY"], 2**16 - 1),
    **dict.fromkeys(["MEDIUMTEXT", "MEDIUMBLOB"], 2**24 - 1),
}
"""Bytes that MySQL's types hold (manual, String Type Storage Requirements)."""


def _longer(old: TypeEngine[Any], new: TypeEngine[Any]) -> bool:
    on_mysql = any(type(one).__module__.startswith("sqlalchemy.dialects.mysql") for one in (old, new))

    def limit(type_: TypeEngine[Any]) -> int | None:
        length: int | None = getattr(type_, "length", None)
        return _SIZES.get(type(type_).__name__.upper()) if length is None and on_mysql else length

    before, after = limit(old), limit(new)
    return after is None or (before is not None and before <= after)


def _is_flag(type_: sa.types.Integer) -> bool:
    """Whether it is how MySQL keeps a Boolean."""
    return type(type_).__name__ == "TINYINT" and getattr(type_, "display_width", None) == 1


def _is_binary(type_: TypeEngine[Any]) -> bool:
    """Whether it holds bytes, and does not fill up with zeros."""
    return isinstance(type_, (sa.types.LargeBinary, sa.types.VARBINARY)) or type(type_).__name__.endswith("BLOB")


def _is_text(type_: sa.types.String) -> bool:
    """Neither an enumeration, nor a type that fills up with blanks."""
    return not isinstance(type_, (sa.types.Enum, sa.types.CHAR, sa.types.NCHAR)) and not hasattr(type_, "values")


def _recollates(old: sa.types.String, new: sa.types.String) -> bool:
    said = getattr(new, "collation", None), getattr(new, "charset", None)
    had = getattr(old, "collation", None), getattr(old, "charset", None)
    return any(one is not None and one != other for one, other in zip(said, had, strict=True))


def _more_digits(old: sa.types.Numeric[Any], new: sa.types.Numeric[Any]) -> bool:
    if isinstance(old, sa.types.Float) or isinstance(new, sa.types.Float):
        return False  # 0.1 in four bytes is another number than in eight
    if new.precision is None or old.precision is None:
        # Without limits on some servers, DECIMAL(10, 0) on others.
        return (old.precision, old.scale) == (new.precision, new.scale)
    behind, wanted = old.scale or 0, new.scale or 0
    return old.precision - behind <= new.precision - wanted and behind <= wanted
