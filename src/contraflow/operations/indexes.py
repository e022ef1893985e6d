"""Operations on the indexes and unique constraints of one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contraflow.installed import Index
from contraflow.operations.base import LONGEST_NAME, Fragment, Schema, find_column, find_table, incomplete

__all__ = ["AddUnique", "CreateIndex", "DropIndex", "DropUnique"]


@dataclass(frozen=True, kw_only=True)
class CreateIndex:
    """Build an index beside the writers. Its columns may be new ones of the same upgrade.

    It is built at the end of ``migrate``, so it stands before the new release writes. A ``unique`` one that the old
    release's writes could violate is built by ``contract`` instead, see :class:`AddUnique`.
    """

    table: str
    name: str
    columns: Sequence[str]
    unique: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_index(self.table, self.name, self.columns)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        return _build(self, schema, Index(name=self.name, columns=tuple(self.columns), unique=self.unique))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "CreateIndex",
            "table": [self.schema, self.table],
            "name": self.name,
            "columns": list(self.columns),
            "unique": self.unique,
        }


@dataclass(frozen=True, kw_only=True)
class DropIndex:
    """Drop an index that the new release does not need. Until contract it stands, for both releases."""

    table: str
    name: str
    schema: str | None = None

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        return Fragment(table=(self.schema, self.table), release=(Index(name=self.name, columns=()),))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropIndex", "table": [self.schema, self.table], "name": self.name}


@dataclass(frozen=True, kw_only=True)
class AddUnique:
    """Make columns unique together: a constraint on PostgreSQL, a unique index elsewhere.

    Where an old unique constraint or primary key already keeps the old release's writes unique under the new one
    (the column is renamed), or where the old release does not write one of the columns at all, it is built at the end
    of ``migrate``. Else a write of the old release could be refused because of it, so it is checked by ``verify``
    (``CF014`` shows the rows that are alike) and built by ``contract``.
    """

    table: str
    name: str
    columns: Sequence[str]
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_index(self.table, self.name, self.columns)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        index = Index(name=self.name, columns=tuple(self.columns), unique=True, constraint=True)
        return _build(self, schema, index)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddUnique",
            "table": [self.schema, self.table],
            "name": self.name,
            "columns": list(self.columns),
        }


@dataclass(frozen=True, kw_only=True)
class DropUnique:
    """Drop a unique constraint (or unique index), told by the columns it stands on, in their order.

    Its name need not be known: servers name such constraints each in their own way, SQLite not at all. Until contract
    it stands, for both releases.
    """

    table: str
    columns: Sequence[str]
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_columns(self.table, self.columns)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        index = Index(name=None, columns=tuple(self.columns), unique=True, constraint=True)
        return Fragment(table=(self.schema, self.table), release=(index,))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropUnique", "table": [self.schema, self.table], "columns": list(self.columns)}


def _build(operation: CreateIndex | AddUnique, schema: Schema, index: Index) -> Fragment:
    table = (operation.schema, operation.table)
    for column in index.columns:
        find_column(schema, table, column)
    return Fragment(table=table, build=(index,))


def _check_index(table: str, name: str, columns: Sequence[str]) -> None:
    if not 0 < len(name.encode()) <= LONGEST_NAME:
        raise incomplete(
            f"the name {name!r} of an index of {table} is empty or longer than {LONGEST_NAME} bytes.",
            "choose one that every server keeps whole.",
        )
    _check_columns(table, columns)


def _check_columns(table: str, columns: Sequence[str]) -> None:
    if not columns or len(set(columns)) < len(columns):
        raise incomplete(f"an index of {table} names no column, or one twice.", "name each column once: columns=[...].")
