"""What every operation promises. Operations are blind to dialects: they plan, the engine does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import sqlalchemy as sa

from contraflow.lens import Lens
from contraflow.problems import Problem, ProblemError

__all__ = ["Fragment", "Operation", "Schema", "TableName", "find_column", "find_table"]

TableName: TypeAlias = "tuple[str | None, str]"
"""Schema (None: the connection's own) and name."""
Schema: TypeAlias = Mapping[TableName, Mapping[str, "sa.Column[Any]"]]
"""The columns of each table as the operations so far leave them."""


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """What one operation means for one table."""

    table: TableName
    add: tuple[sa.Column[Any], ...] = ()
    """New columns in their final shape."""
    drop: tuple[str, ...] = ()
    """Columns the new release no longer knows."""
    lens: Lens | None = None
    once: frozenset[str] = field(default=frozenset())
    """Columns of the lens that are filled when a row is inserted or first synced, and then left to their writers."""


@runtime_checkable
class Operation(Protocol):
    """One schema evolution: a frozen keyword-only dataclass with one pure method."""

    @property
    def table(self) -> str:
        """The table it evolves."""
        ...

    @property
    def schema(self) -> str | None:
        """The table's schema; None for the connection's own."""
        ...

    def plan(self, schema: Schema) -> Fragment:
        """What the operation means for ``schema``, the columns as earlier operations leave them.

        No I/O, no SQL text. Raises :class:`~contraflow.problems.ProblemError` if it cannot be done.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The declaration as plain data, stable for equal declarations."""
        ...


def find_table(schema: Schema, table: TableName) -> Mapping[str, sa.Column[Any]]:
    """The table's columns. Raises ``CF101`` if there is no such table."""
    if table not in schema:
        name = f"{table[0]}.{table[1]}" if table[0] else table[1]
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"there is no table {name}.",
                instead="check the table's name (and schema=) in the revision, and the database the URL points to.",
            )
        )
    return schema[table]


def find_column(schema: Schema, table: TableName, name: str) -> sa.Column[Any]:
    """The column. Raises ``CF101`` if there is no such table or column."""
    columns = find_table(schema, table)
    if name not in columns:
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"table {table[1]} has no column {name}.",
                instead=f"its columns are: {', '.join(columns)}.",
            )
        )
    return columns[name]
