"""What is kept in step, as values: the columns of one table, or of two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from contraflow.expressions import describe
from contraflow.lens import Group
from contraflow.opaque import Opaque

__all__ = ["Pair", "PairTable", "Sync", "SyncColumn", "Synced"]


@dataclass(frozen=True, kw_only=True)
class SyncColumn:
    """One column that a sync reads or writes."""

    name: str
    type: sa.types.TypeEngine[Any]
    nullable: bool
    """Whether the column's own schema (old or new) allows NULL."""
    default: str | None = None
    """The SQL text of the column's server default in its own schema, None if it has none."""
    default_value: Any = None
    """The default's Python value where it is a constant; meaningful only if ``default_constant``."""
    default_constant: bool = False
    identity: bool = False
    """Filled by the server itself (AUTO_INCREMENT, identity, generated)."""


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What a table's sync keeps in step, as plain data for the journal."""

    table: str
    schema: str | None = None
    name: str
    """See :attr:`Sync.name`."""
    columns: tuple[str, ...]
    """Of both sides."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return {"table": self.table, "schema": self.schema, "name": self.name, "columns": list(self.columns)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Synced:
        """The value that :meth:`as_dict` was called on. Keys this version does not know are ignored."""
        return cls(table=data["table"], schema=data["schema"], name=data["name"], columns=tuple(data["columns"]))


@dataclass(frozen=True, kw_only=True)
class Sync:
    """Everything that keeps one table's groups in step: one marker column, one trigger for each event."""

    table: str
    schema: str | None = None
    key: tuple[str, ...]
    """The columns of the primary key; empty if the table has none."""
    key_types: tuple[sa.types.TypeEngine[Any], ...] = ()
    columns: Mapping[str, SyncColumn]
    groups: tuple[Group, ...]
    marker: str
    name: str
    """The stem of the names of triggers and functions; at most 50 bytes, unique in the schema."""
    opaque: Opaque | None = None
    """In the place of groups: the two sides are computed in Python, and the marker of a row whose new side is to be
    computed is NULL."""

    @property
    def synced(self) -> Synced:
        """The columns of its groups."""
        columns = dict.fromkeys(name for group in self.groups for name in group.columns)
        return Synced(table=self.table, schema=self.schema, name=self.name, columns=tuple(columns))

    @property
    def looks_up(self) -> bool:
        """Whether images look at other tables: then the triggers compute all of them, those of the backfill too."""
        return any(group.lookups for group in self.groups)

    @property
    def enforced(self) -> tuple[str, ...]:
        """Old NOT NULL columns without default that the new release does not name: only the sync fills them for it."""
        return tuple(
            name
            for group in self.groups
            for name in group.backward
            if not self.columns[name].nullable and self.columns[name].default is None
        )

    @property
    def fingerprint(self) -> str:
        """Changes whenever the meaning of the sync changes; 16 hexadecimal digits."""
        meaning: dict[str, Any] = {
            "table": [self.schema, self.table],
            "groups": [group.describe() for group in self.groups],
            "columns": [
                [column.name, repr(column.type), column.nullable, column.default]
                for _, column in sorted(self.columns.items())
            ],
        }
        if self.opaque is not None:
            meaning["opaque"] = self.opaque.describe()
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """One of the two tables of a pair."""

    table: str
    schema: str | None = None
    key: tuple[SyncColumn, ...]
    """The columns by which a row finds its row in the other table, in the order of the other table's; unique here."""
    columns: Mapping[str, SyncColumn]
    """The columns that the other table's determine, or that determine them."""
    name: str
    """The stem of the names of triggers and functions on this table; at most 50 bytes, unique in the schema."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Columns that stand in one table for the old release and in another one for the new release.

    A row of ``main`` has at most one row in ``companion``. No row there means the same as one whose columns are all
    NULL: ``to_main`` of NULLs is what the main row then holds.
    """

    main: PairTable
    companion: PairTable
    old: Literal["main", "companion"]
    """Where the old release has the columns."""
    to_companion: Mapping[str, sa.ColumnElement[Any]]
    """An expression over the main table's columns for each of the companion's."""
    to_main: Mapping[str, sa.ColumnElement[Any]]
    """The reverse."""
    follows: bool
    """Only one release knows the companion table: its rows come and go with what the main table holds."""
    marker: str
    cascades: tuple[str, ...] = ()
    """Foreign keys, in words, that change rows of one table by a cascade which the other one must hear of."""
    rows: bool = False
    """Whole rows: the companion has a row for each row of ``main`` for which ``where`` is true, and no others."""
    where: sa.ColumnElement[Any] | None = None
    """A condition over the main table's columns which is never NULL; None for all rows."""
    marks: bool = True
    """Its triggers on the old table mark new rows as synced; False if another pair's do, which are made after them."""

    @property
    def old_table(self) -> PairTable:
        """The table in which the old release has the columns."""
        return self.main if self.old == "main" else self.companion

    @property
    def new_table(self) -> PairTable:
        """The table in which the new release has the columns."""
        return self.companion if self.old == "main" else self.main

    def triggers(self, end: PairTable) -> str:
        """The last letters of the names of the triggers on one of the tables, one each.

        Not that of the one which only marks rows (``b``): without it rows count as never synced.
        """
        return "uid" if end is self.companion or self.follows else "ui"

    @property
    def fingerprint(self) -> str:
        """Changes whenever the meaning of the pair changes; 16 hexadecimal digits."""
        meaning: dict[str, Any] = {
            "tables": [
                [
                    [table.schema, table.table, [column.name for column in table.key]],
                    [[column.name, repr(column.type), column.nullable] for _, column in sorted(table.columns.items())],
                ]
                for table in (self.main, self.companion)
            ],
            "old": self.old,
            "images": [
                {name: describe(image) for name, image in sorted(images.items())}
                for images in (self.to_companion, self.to_main)
            ],
            "follows": self.follows,
        }
        if self.rows:
            meaning["rows"] = [None if self.where is None else describe(self.where), self.marks]
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]
