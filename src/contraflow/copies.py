"""A column that follows columns of other tables: the declaration's parts, and what planning makes of them.

Pure values. The column's table is the *target*; a *path* leads from a row of it over one table or more to the *source*,
whose column is copied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

__all__ = [
    "BackfillCopy",
    "Copy",
    "Hop",
    "InstallCopy",
    "Path",
    "Place",
    "ProbeCopy",
    "Source",
    "Through",
]

Place: TypeAlias = "tuple[str | None, str]"
"""A table's schema (None: the connection's own) and name."""


@dataclass(frozen=True, kw_only=True)
class Through:
    """A table on the way from the target to a source.

    ``on``: columns of the table before it on the way, to those of this one that are equal to them.
    """

    table: str
    on: Mapping[str, str]
    schema: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A column of another table whose value is copied.

    ``through`` are the tables on the way from the target, in their order; none if the source is reached directly.
    ``on``: columns of the table before the source on the way, to those of the source that are equal to them.
    """

    table: str
    column: str
    on: Mapping[str, str]
    through: Sequence[Through] = ()
    schema: str | None = None

    @property
    def ways(self) -> tuple[Through, ...]:
        """The tables on the way, the source's own last."""
        return (*self.through, Through(table=self.table, on=self.on, schema=self.schema))


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One table of a path."""

    table: str
    schema: str | None
    key: tuple[str, ...]
    """The columns of its primary key."""
    on: Mapping[str, str]
    """Columns of the table before to those of this one."""
    single: bool
    """At most one row is found; else the one with the least key counts."""

    @property
    def place(self) -> Place:
        """The table."""
        return self.schema, self.table


@dataclass(frozen=True, kw_only=True)
class Path:
    """How a row of the target finds its value."""

    hops: tuple[Hop, ...]
    column: str
    """Of the last table."""

    def relevant(self, position: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns of one of the tables by which it is found, and those that lead on from it, or are copied."""
        last = position == len(self.hops) - 1
        onwards = (self.column,) if last else tuple(self.hops[position + 1].on)
        return tuple(self.hops[position].on.values()), onwards


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A new column that holds what the first path finds that finds a value.

    Beside the column stands its *image*: what the paths found when they were last asked. The column is written only
    when that has changed, so that what the new release writes there stays until a source says something else.
    """

    table: str
    schema: str | None
    key: tuple[str, ...]
    key_types: tuple[sa.types.TypeEngine[Any], ...]
    column: str
    type: sa.types.TypeEngine[Any]
    image: str
    """The name of the image's column."""
    paths: tuple[Path, ...]
    types: Mapping[Place, Mapping[str, sa.types.TypeEngine[Any]]]
    """The types of the columns by which rows are found, and of those that are copied, by table."""
    winner: Literal["old", "new"]
    """Whose value stays where the new release gave one before any source had one."""
    keeps: bool
    """Where no source has a value any more, the column keeps the last one: it may not be NULL."""
    followed: tuple[str, ...]
    """The target's own columns whose change may lead to another value."""
    untouched: tuple[str, ...] = ()
    """The target's columns that the server would change by itself with every update."""
    cascades: tuple[str, ...] = ()
    """Foreign keys, in words, whose actions change what the paths find, unseen where they fire no triggers."""

    @property
    def target(self) -> Place:
        """The target."""
        return self.schema, self.table

    @property
    def title(self) -> str:
        """The copy in words."""
        sources = ", ".join(f"{path.hops[-1].table}.{path.column}" for path in self.paths)
        return f"{self.table}.{self.column} <- {sources}"

    @property
    def others(self) -> tuple[Place, ...]:
        """The tables of the paths, each once."""
        return tuple(dict.fromkeys(hop.place for path in self.paths for hop in path.hops))

    def stem(self, place: Place) -> str:
        """The stem of the names of triggers and functions on a table; at most 50 bytes, unique in its schema."""
        meaning = [list(self.target), self.column, list(place)]
        digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:8]
        return f"zcf_{place[1].encode()[:36].decode(errors='ignore')}_{digest}"

    def triggers(self, place: Place) -> str:
        """The last letters of the names of the triggers on a table, one each."""
        if place == self.target:
            return "ui" if self.followed else "i"
        return "uid"

    def steps_on(self, place: Place) -> Iterator[tuple[Path, int]]:
        """The paths that lead over a table, each with its position there."""
        for path in self.paths:
            for position, hop in enumerate(path.hops):
                if hop.place == place:
                    yield path, position

    @property
    def fingerprint(self) -> str:
        """Changes whenever the meaning of the copy changes; 16 hexadecimal digits."""
        meaning = {
            "target": [self.schema, self.table, self.column, repr(self.type), self.image],
            "paths": [
                [[[hop.schema, hop.table, list(hop.key), dict(hop.on), hop.single] for hop in path.hops], path.column]
                for path in self.paths
            ],
            "rules": [self.winner, self.keeps, list(self.followed), list(self.untouched)],
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


# --- steps: see contraflow.steps --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class InstallCopy:
    """Create the triggers of ``copy`` on one of its tables; the target has the column and its image by then."""

    copy: Copy
    on: Place

    @property
    def table(self) -> str:
        """The table's name."""
        return self.on[1]

    @property
    def schema(self) -> str | None:
        """The table's schema."""
        return self.on[0]


@dataclass(frozen=True, kw_only=True)
class BackfillCopy:
    """Write what the paths find into the rows of the target that do not know of it, in short transactions."""

    copy: Copy


@dataclass(frozen=True, kw_only=True)
class ProbeCopy:
    """Count rows of the target of which the paths find something else than when they were last asked."""

    copy: Copy
