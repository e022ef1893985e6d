"""Changes of a column's type under its own name: widenings, which both releases can live with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from contraflow.installed import Installed, Widening
from contraflow.operations.base import Fragment, Schema, find_column
from contraflow.operations.gathering import TablePlan, stem
from contraflow.problems import Problem, ProblemError
from contraflow.steps import Block, Hold, Online, WidenColumns

__all__ = [
    "SPELT",
    "WidenColumn",
    "changes_under_one_name",
    "guard_blocks",
    "integer_range",
    "is_widening",
    "mirror_of",
    "refer_blocks",
    "swap_blocks",
    "widening_end",
    "widening_problems",
    "widening_stage",
    "widenings_of",
]


@dataclass(frozen=True, kw_only=True)
class WidenColumn:
    """Give a column a wider type under its own name: one that holds every old value, and whose values the old release
    can read.

    These are: a longer or unlimited text or binary type, a larger integer type, and more digits of a decimal one.
    Name, nullability, default, collation and comment stay. Where the server needs not read a row for it, both releases
    see the wider type from ``expand`` on; elsewhere a second column takes the name at the end of ``migrate``, in one
    short swap. ``rollback`` brings the old type back if all rows still fit it (``CF015`` shows those that do not).

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


SPELT = "contraflow_type"
"""The key of ``Column.info`` where a table in its old shape has a column's type as the server itself spells it."""

_LONGEST = 50
"""Letters of a column's name that are kept in its shadow's."""


def widenings_of(found: TablePlan) -> tuple[Widening, ...]:
    """The columns of the table that both releases know, and that become wider."""
    return tuple(
        Widening(
            column=name,
            old=str(found.original[name].info.get(SPELT, found.original[name].type)),
            new=str(found.columns[name].type),
            shadow=_shadow(name),
            replans=replans,
        )
        for name, replans in found.widened.items()
        if name in found.columns
    )


def _shadow(column: str) -> str:
    if column.isascii() and len(column) <= _LONGEST:
        return f"cf_{column}"
    return f"cf_{hashlib.sha256(column.encode()).hexdigest()[:16]}"


def mirror_of(found: TablePlan) -> str:
    """The stem of the names of what keeps the shadows; empty if no column becomes wider."""
    return f"{stem(found.name)}_w" if found.widened else ""


def widening_stage(found: TablePlan, stage: Literal["begin", "fill"]) -> WidenColumns | None:
    """A stage for all columns that become wider, None if there are none."""
    widenings = widenings_of(found)
    if not widenings:
        return None
    return WidenColumns(
        stage=stage,
        table=found.name[1],
        schema=found.name[0],
        widenings=widenings,
        mirror=mirror_of(found),
        key=tuple(found.table.primary_key.columns.keys()),
        types={one.column: found.columns[one.column].type for one in widenings},
    )


Later = Literal["prove", "index", "swap", "refer", "guard", "reindex", "undo", "end"]


def widening_end(found: Installed, stage: Later) -> WidenColumns:
    """A stage after expand, from what the journal says is installed."""
    return WidenColumns(
        stage=stage, table=found.table, schema=found.schema, widenings=found.widened, mirror=found.mirror
    )


def swap_blocks(found: Installed) -> Iterator[Block]:
    """What ends migrate: the wider columns take the names."""
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    yield Online(title=f"prove the wider columns of {found.table}", step=widening_end(found, "prove"), **where)
    yield Online(title=f"index the wider columns of {found.table}", step=widening_end(found, "index"), **where)
    yield Hold(title=f"swap the wider columns of {found.table}", steps=(widening_end(found, "swap"),), **where)
    yield from refer_blocks([found])


def refer_blocks(installed: Sequence[Installed]) -> Iterator[Block]:
    """What follows each swap: the foreign keys that were made anew are proven."""
    for found in installed:
        if found.widened:
            title = f"prove the foreign keys of the wider columns of {found.table}"
            step = widening_end(found, "refer")
            yield Online(title=title, table=found.table, schema=found.schema, step=step)


def guard_blocks(installed: Sequence[Installed]) -> Iterator[Block]:
    """What begins rollback: values that the old types do not hold are refused, before anybody looks for them; and the
    columns of the old types get what they need to have their names back.
    """
    for found in installed:
        if found.widened:
            title = f"refuse what the old types of {found.table} do not hold"
            guard = widening_end(found, "guard")
            yield Hold(title=title, table=found.table, schema=found.schema, steps=(guard,))
            title = f"index the columns of {found.table} that were replaced"
            step = widening_end(found, "reindex")
            yield Online(title=title, table=found.table, schema=found.schema, step=step)


def widening_problems(found: TablePlan, synced: Collection[str]) -> Iterator[Problem]:
    """Columns whose type cannot change while something else depends on it."""
    table = found.name[1]
    if found.widened and found.renamed:
        yield Problem(
            code="CF116",
            what=f"{table} gets another name and a column of a wider type in one upgrade.",
            why="what stands for the other name would go on reading the column as it was.",
            instead="widen the column in an upgrade of its own.",
        )
    for name in found.widened:
        if name in synced:
            yield Problem(
                code="CF116",
                what=f"{table}.{name} gets a wider type, and is synced with another column, in one upgrade.",
                why="the sync would compare and cut values by the type that it had.",
                instead="give the other column the wider type at once: ChangeType(...) or TransformColumns(...);"
                "\nor widen it in an upgrade of its own.",
            )
        if name in found.redefaulted:
            yield Problem(
                code="CF116",
                what=f"{table}.{name} gets a wider type and another default in one upgrade.",
                why="a second column may take its place, which would have the one and not the other.",
                instead="make it two upgrades.",
            )
        for holder in found.holders:
            if holder.kind == "check constraint" and holder.holds(name):
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
