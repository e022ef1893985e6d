"""Rows that refer to rows of another table: what planning makes of the declaration. Pure values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

__all__ = ["InstallReference", "Reference"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Rows that refer to rows of another table: by its natural key in the old release, by its key in the new one.

    The sync of their own table looks up one from the other. What this says is what follows when the other table's rows
    change.
    """

    table: str
    """The table whose rows refer."""
    schema: str | None = None
    column: str
    """Its new column, which holds the key."""
    columns: tuple[tuple[str, str], ...]
    """Its old columns, each with the column of the other table that it repeats."""
    nulls: frozenset[str]
    """Those of its old columns whose NULL matches NULL."""
    to: str
    """The other table, in the same schema."""
    key: str
    """Its key."""
    types: Mapping[str, sa.types.TypeEngine[Any]]
    """The types of the other table's columns."""
    adopts: bool
    """Rows that refer to nothing may be there, and refer to a row as soon as there is one."""
    fills: bool = False
    """The key is a new column of the other table, and foreign keys hold the old columns and, once it is filled, the new
    one: what follows is only that a row of the other table gets its key."""
    clears: bool = False
    """With ``fills``: the foreign key sets the old columns to NULL when a row of the other table is deleted, for which
    some servers fire no triggers."""
    marker: str
    """The marker of the sync of ``table``."""
    name: str
    """The stem of the names of triggers and functions on the other table; at most 50 bytes, unique in the schema."""

    @property
    def triggers(self) -> str:
        """The last letters of the names of the triggers, one each."""
        if self.fills:
            return f"u{'d' if self.clears else ''}{'i' if self.to == self.table else ''}"
        return "udi" if self.adopts else "ud"

    @property
    def fingerprint(self) -> str:
        """Changes whenever the meaning of the reference changes; 16 hexadecimal digits."""
        meaning = [
            [self.schema, self.table, self.column, self.to, self.key, repr(self.types[self.key])],
            [[name, there, repr(self.types[there]), name in self.nulls] for name, there in self.columns],
            self.adopts,
            self.marker,
        ]
        if self.fills:
            meaning.append(["fills", self.clears])
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class InstallReference:
    """Create the triggers of ``reference`` on the table that is referred to."""

    reference: Reference

    @property
    def table(self) -> str:
        """The table's name."""
        return self.reference.to

    @property
    def schema(self) -> str | None:
        """The table's schema."""
        return self.reference.schema

    @property
    def name(self) -> str:
        """The stem of the triggers' names."""
        return self.reference.name

    @property
    def fingerprint(self) -> str:
        """That of the reference."""
        return self.reference.fingerprint
