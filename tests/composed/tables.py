"""Tables as one release declares them, and how the rows of two releases correspond."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

__all__ = ["Row", "Side", "Table", "build", "is_long", "is_number", "length_of"]

Row = dict[str, Any]


@dataclass(kw_only=True)
class Side:
    """How one release's column follows from a row of the other one."""

    reads: frozenset[str]
    value: Callable[[Row], Any]
    tracks: bool = True
    """Computed again when what it reads changes; else only when the row is made."""


@dataclass(kw_only=True)
class Table:
    """One table of a release; it keeps its ``line`` through all upgrades, whatever its name is."""

    line: int
    name: str
    columns: dict[str, sa.Column[Any]]
    """Without the key ``id``."""
    unique: dict[str, tuple[str, ...]] = field(default_factory=dict)
    indexes: dict[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict)
    """Columns, and whether it is a unique one."""
    checks: dict[str, str] = field(default_factory=dict)
    """The column that is not negative, or not empty."""
    keys: dict[str, tuple[str, int, str | None]] = field(default_factory=dict)
    """The column that refers, the line of the table it refers to, and what becomes of it (ON DELETE)."""
    comment: str | None = None

    def copy(self) -> Table:
        """Another one, which can be changed."""
        copied = copy.copy(self)
        for name in ("columns", "unique", "indexes", "checks", "keys"):
            setattr(copied, name, dict(getattr(self, name)))
        return copied

    def names(self) -> set[str]:
        """The names of what stands on its columns."""
        return {*self.unique, *self.indexes, *self.checks, *self.keys}

    def holds(self, column: str) -> bool:
        """Whether anything stands on the column."""
        return (
            any(column in columns for columns in self.unique.values())
            or any(column in columns for columns, _ in self.indexes.values())
            or column in self.checks.values()
            or any(column == own for own, _, _ in self.keys.values())
        )


def build(tables: Mapping[int, Table], metadata: sa.MetaData | None = None) -> dict[int, sa.Table]:
    """The tables as SQLAlchemy has them, by line."""
    metadata = metadata or sa.MetaData()
    made = {}
    for line, table in tables.items():
        key: sa.Column[int] = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)
        columns = [column._copy() for column in table.columns.values()]
        made[line] = own = sa.Table(table.name, metadata, key, *columns, comment=table.comment)
        for name, held in table.unique.items():
            own.append_constraint(sa.UniqueConstraint(*(own.c[column] for column in held), name=name))
        for name, (held, unique) in table.indexes.items():
            sa.Index(name, *(own.c[column] for column in held), unique=unique)
        for name, column in table.checks.items():
            condition = own.c[column] >= 0 if is_number(own.c[column]) else own.c[column] != ""
            own.append_constraint(sa.CheckConstraint(condition, name=name))
    for line, table in tables.items():
        for name, (column, target, ondelete) in table.keys.items():
            own = made[line]
            made[line].append_constraint(
                sa.ForeignKeyConstraint([own.c[column]], [made[target].c.id], name=name, ondelete=ondelete)
            )
    return made


def is_long(column: sa.Column[Any]) -> bool:
    """A text without an end, which not every server takes into an index."""
    return isinstance(column.type, sa.Text)


def is_number(column: sa.Column[Any]) -> bool:
    """Else it is text."""
    return isinstance(column.type, sa.Integer)


def length_of(column: sa.Column[Any]) -> int:
    """How many characters of a text it holds, up to 100."""
    return getattr(column.type, "length", None) or 100
