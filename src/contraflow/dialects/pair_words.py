"""What the statements of a sync between two tables are made of; :mod:`contraflow.dialects.pair` tells what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from contraflow.dialects.compiler import Compiler
from contraflow.expressions import references
from contraflow.syncs import Pair, PairTable, SyncColumn

__all__ = ["GOING", "OTHER_OWN", "OTHER_REPAIR", "OWN", "REPAIR", "SYNCED", "On", "PairWords", "in_block"]

SYNCED, OWN, OTHER_OWN, REPAIR, OTHER_REPAIR, GOING = 1, 2, 3, 4, 5, 9
_MARKER = sa.SmallInteger()
On = Literal["main", "companion"]


@dataclass(frozen=True, kw_only=True)
class PairWords:
    """The parts of the statements that all servers spell alike, or as the compiler says."""

    pair: Pair
    compiler: Compiler
    default_schema: str | None = None
    """What an unqualified table is qualified with (PostgreSQL: functions that run as their owner need it)."""

    @property
    def marker(self) -> str:
        """The marker column."""
        return self.compiler.quote(self.pair.marker)

    def table(self, end: PairTable) -> str:
        """The table's name."""
        return self.compiler.table(end.table, end.schema or self.default_schema)

    def row(self, row: str, name: str) -> str:
        """A column of a row."""
        return f"{row}.{self.compiler.quote(name)}"

    # -- values --

    def images(self, on: On, row: str | None) -> dict[str, str]:
        """The images of one table's columns from the other's: from ``row``, or from NULLs if there is none."""
        end = self.end(on)
        images = self.pair.to_main if on == "main" else self.pair.to_companion

        def ref(name: str) -> str:
            return "NULL" if row is None else self.row(row, name)

        return {name: self.compiler.image(image, end.columns[name], ref) for name, image in images.items()}

    def end(self, on: On) -> PairTable:
        """One of the two tables."""
        return self.pair.main if on == "main" else self.pair.companion

    def own(self, marker: str) -> str:
        """The next value of the sync's own."""
        return f"CASE WHEN {marker} = {OWN} THEN {OTHER_OWN} ELSE {OWN} END"

    def assigned(self, values: Mapping[str, str], marker: str | None = None) -> str:
        """What SET says of an own write: the values, and the marker's change."""
        parts = [f"{self.compiler.quote(name)} = {value}" for name, value in values.items()]
        return ", ".join([*parts, f"{self.marker} = {self.own(marker or self.marker)}"])

    # -- conditions --

    @property
    def same_marker(self) -> str:
        """Whether the statement left the marker alone."""
        return f"({self.compiler.same(f'NEW.{self.marker}', f'OLD.{self.marker}', _MARKER)})"

    @property
    def repaired(self) -> str:
        """Whether a marker that has changed was changed by the repair."""
        return f"NEW.{self.marker} IN ({REPAIR}, {OTHER_REPAIR})"

    def inserted(self) -> str:
        """Whether an INSERT is not the sync's own."""
        return f"COALESCE(NEW.{self.marker}, {SYNCED}) = {SYNCED}"

    def updated(self, on: On) -> str:
        """Whether an UPDATE concerns the other table, and is not the sync's own."""
        end = self.end(on)
        keyed = on == "companion" or self.pair.follows
        columns = tuple({**end.columns, **({column.name: column for column in end.key} if keyed else {})}.values())
        pushed = f"NEW.{self.marker} IN ({SYNCED}, {REPAIR}, {OTHER_REPAIR})"
        return f"(({self.same_marker} AND {self.changed(columns)}) OR (NOT {self.same_marker} AND {pushed}))"

    def found(self, end: PairTable, row: str, other: PairTable, prefix: str = "") -> str:
        """The row of ``end`` that belongs to ``row``, a row of ``other``."""
        pairs = zip(end.key, other.key, strict=True)
        return " AND ".join(
            f"{prefix}{self.compiler.quote(here.name)} = {self.row(row, there.name)}" for here, there in pairs
        )

    def changed(self, columns: Sequence[SyncColumn]) -> str:
        """Whether the statement changed one of the columns."""
        parts = [
            f"({self.compiler.unchanged(self.row('NEW', column.name), self.row('OLD', column.name), column.type)})"
            for column in columns
        ]
        return f"NOT ({' AND '.join(parts)})"

    def empty(self, row: str) -> str:
        """Whether the main row holds what it holds without a row in the companion table."""
        if self.pair.rows:
            return f"(NOT {self.within(lambda name: self.row(row, name))})"
        parts = []
        nothing = self.images("main", None)
        for name, column in self.pair.main.columns.items():
            value = self.row(row, name)
            if nothing.get(name, "NULL") == "NULL":
                parts.append(f"{value} IS NULL")
                continue
            is_nothing = f"({self.compiler.same(value, nothing[name], column.type)})"
            # Not given yet: another trigger is about to fill it.
            parts.append(is_nothing if column.nullable else f"({value} IS NULL OR {is_nothing})")
        return f"({' AND '.join(parts)})"

    def within(self, ref: Callable[[str], str]) -> str:
        """Whether a main row is one of the companion's, where these are whole rows."""
        where = self.pair.where
        return "(1 = 1)" if where is None else f"({self.compiler.compile(where, ref)})"

    def agree(self, main: str, companion: str) -> str:
        """Whether the two rows agree in one direction."""
        if self.pair.rows:
            here = self.within(lambda name: self.row(main, name))
            return f"({here} AND {self._holds('companion', companion, main)})"
        ways = [self._holds("companion", companion, main), self._holds("main", main, companion)]
        return f"({' OR '.join(way for way in ways if way)})"

    def _holds(self, on: On, target: str, source: str) -> str:
        end = self.end(on)
        parts = []
        for name, image in self.images(on, source).items():
            column = end.columns[name]
            stored = self.compiler.coerced(image, column)
            parts.append(f"({self.compiler.same(self.row(target, name), stored, column.type)})")
        return f"({' AND '.join(parts)})" if parts else ""

    @property
    def deletes(self) -> bool:
        """Whether the companion's row goes when the main row becomes empty: it may not hold the NULL that says so."""
        if self.pair.rows:
            return True
        nothing = self.images("main", None)
        return self.pair.follows and any(
            not self.pair.companion.columns[name].nullable
            and all(nothing.get(source, "NULL") == "NULL" for source in references(image))
            for name, image in self.pair.to_companion.items()
        )


def in_block(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Lines, further in."""
    return [f"{'  ' * depth}{line}" for line in lines]
