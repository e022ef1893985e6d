"""NOT NULL of a column under its own name, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow import expressions
from contraflow.installed import Mend
from contraflow.lens import Row
from contraflow.operations.base import Fragment, Nullability, Schema, find_column, incomplete
from contraflow.operations.gathering import TablePlan
from contraflow.problems import Problem
from contraflow.syncs import Sync

__all__ = ["LoosenNotNull", "TightenNotNull", "change_nullability", "mends", "nullability_problems"]

Value = Callable[[Row], Any]
Write = Callable[[expressions.Expression], str]


@dataclass(frozen=True, kw_only=True)
class TightenNotNull:
    """Make a column NOT NULL, under its own name.

    Until contract the old release may write NULLs, and the new one reads them. ``verify`` shows such rows (``CF013``),
    unless ``fill`` says what they get: then ``contract``, when the old release is gone, writes that into them beside
    the writers, and proves NOT NULL without blocking them. ``fill`` is in the language of lenses, over the columns in
    ``reads``; the table needs a primary key for it.
    """

    table: str
    column: str
    fill: Value | None = None
    reads: Sequence[str] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))
        _value(self.fill, {name: expressions.Ref(name) for name in self.reads})

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        return _fragment(self, schema, self.fill, nullable=False)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return _describe(self, "TightenNotNull", self.fill)


@dataclass(frozen=True, kw_only=True)
class LoosenNotNull:
    """Let a NOT NULL column hold NULLs, under its own name.

    It may from the end of ``migrate`` on, because the new release may write NULLs: the old release must bear to read
    them until its last node is gone. Rollback writes ``value`` into such rows before it makes the column NOT NULL
    again; without it, rollback is refused (``CF013``) while there are any. ``value`` is in the language of lenses, over
    the columns in ``reads``; the table needs a primary key for it.
    """

    table: str
    column: str
    value: Value | None = None
    reads: Sequence[str] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))
        _value(self.value, {name: expressions.Ref(name) for name in self.reads})

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        return _fragment(self, schema, self.value, nullable=True)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return _describe(self, "LoosenNotNull", self.value)


def change_nullability(found: TablePlan, change: Nullability) -> None:
    """What the change means for the table while operations are gathered."""
    column = found.columns[change.column]
    changed = column._copy()  # noqa: SLF001
    changed.nullable = change.nullable
    found.columns[change.column] = changed
    if change.column not in found.original:
        return
    if found.original[change.column].nullable == change.nullable:
        found.nullability.pop(change.column, None)  # there and back again
    else:
        found.nullability[change.column] = change


def mends(found: TablePlan, write: Write) -> tuple[Mend, ...]:
    """What is written into NULLs, by contract where the column is tightened, by rollback where it is loosened."""
    key = tuple(column.name for column in found.table.primary_key.columns)
    return tuple(
        Mend(column=change.column, text=write(change.value), key=key)
        for change in found.nullability.values()
        if change.value is not None and change.column in found.columns
    )


def nullability_problems(found: TablePlan, sync: Sync | None) -> Iterator[Problem]:
    """``CF116`` for columns that take part in more than their change, and for values without a key to write them by."""
    synced = set(sync.columns) if sync else set()
    for name, change in found.nullability.items():
        title = f"{found.name[1]}.{name}"
        if name in {*synced, *found.widened} or name not in found.columns or found.renamed:
            yield Problem(
                code="CF116",
                what=f"{title} changes its NOT NULL in an upgrade that also syncs, widens, drops or renames it or its"
                " table.",
                why="the images of a lens are checked for the one or the other.",
                instead="change NOT NULL in an upgrade of its own.",
            )
        elif change.value is not None and not found.table.primary_key.columns:
            yield Problem(
                code="CF116",
                what=f"{title} is to be filled, and {found.name[1]} has no primary key.",
                why="it is filled in ranges of the key, so that writers go on.",
                instead="fill it by hand, and declare no value.",
            )
        elif change.value is not None and not expressions.references(change.value):
            yield from _alike(found, change)


def _alike(found: TablePlan, change: Nullability) -> Iterator[Problem]:
    """``CF109`` for one value in all rows of a column that is unique: to the new release, if it is tightened."""
    built = [] if change.nullable else [(made.columns, f"{made.name}", made.unique) for made in found.build]
    stand = [(holder.columns, holder.title, holder.unique) for holder in found.holders]
    for columns, title, unique in (*stand, *built):
        if unique and columns == (change.column,):
            yield Problem(
                code="CF109",
                what=f"{found.name[1]}.{change.column} is to get one value in all rows that hold NULL,"
                f" and {title} stands on it.",
                why=f"of two such rows the second would be refused, and {'rollback' if change.nullable else 'contract'}"
                " stop half way.",
                instead="compute another value for each row, from its key: reads=[...].",
            )
            return


def _fragment(
    operation: TightenNotNull | LoosenNotNull, schema: Schema, value: Value | None, *, nullable: bool
) -> Fragment:
    table = (operation.schema, operation.table)
    column = find_column(schema, table, operation.column)
    if bool(column.nullable) is nullable:
        raise incomplete(
            f"{operation.table}.{operation.column} is {'NULLable' if nullable else 'NOT NULL'} already.",
            "leave the operation out.",
        )
    if column.primary_key:
        raise incomplete(f"{operation.table}.{operation.column} is in the primary key.", "keep it NOT NULL.")
    cells = {name: expressions.Ref(name, find_column(schema, table, name).type) for name in operation.reads}
    change = Nullability(column=operation.column, nullable=nullable, value=_value(value, cells))
    return Fragment(table=table, nullability=change)


def _value(value: Value | None, cells: dict[str, expressions.Ref]) -> sa.ColumnElement[Any] | None:
    return None if value is None else expressions.validate(value(Row(cells)))


def _describe(operation: TightenNotNull | LoosenNotNull, name: str, value: Value | None) -> dict[str, Any]:
    found = _value(value, {name: expressions.Ref(name) for name in operation.reads})
    return {
        "operation": name,
        "table": [operation.schema, operation.table],
        "column": operation.column,
        "value": None if found is None else expressions.describe(found),
    }
