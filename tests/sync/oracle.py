"""A Python model of one table during an upgrade, written from the words of the sync rule alone.

It shares no code with the library: the functions of a lens come as plain Python, written by hand beside each scenario,
and rows are dictionaries. What a statement does to a row is decided here once more, independently of every compiler.

Words: ``O`` and ``N`` are a group's old and new columns, ``f`` its forward and ``g`` its backward function.
"""

# ruff: noqa: E501
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contraflow.rehearsal.rule import NOW, Cell, Group, Values, same

__all__ = ["NOW", "Cell", "Group", "Model", "Oracle", "Rejected", "Values", "same"]


class Rejected(Exception):
    """The statement must fail and change nothing."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A table: its groups, and the columns that no lens touches."""

    groups: tuple[Group, ...]
    others: tuple[Cell, ...] = ()
    shared: frozenset[str] = frozenset()
    """Names of columns that both releases know, though a lens reads them."""

    @property
    def old(self) -> tuple[Cell, ...]:
        """Every old column, each once."""
        return tuple({cell.name: cell for group in self.groups for cell in group.old}.values())

    @property
    def new(self) -> tuple[Cell, ...]:
        """Every new column, each once."""
        return tuple({cell.name: cell for group in self.groups for cell in group.new}.values())

    @property
    def added(self) -> tuple[Cell, ...]:
        """The columns that only the new release knows."""
        return tuple(cell for cell in self.new if cell.name not in self.shared)

    @property
    def present(self) -> tuple[Cell, ...]:
        """The columns of the old schema, whose NOT NULL holds all the time."""
        return tuple(cell for cell in self.cells if cell not in self.added)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All columns beside the key."""
        return (*self.others, *self.old, *self.new)


@dataclass(frozen=True)
class Row:
    """One row: its values and whether it was ever synced."""

    values: Mapping[str, Any]
    synced: bool


@dataclass(kw_only=True)
class Oracle:
    """What the table must hold after each statement."""

    model: Model
    excluded_is_synced: bool
    """Whether ``EXCLUDED`` of an upsert carries what the INSERT trigger made of the row (a BEFORE trigger does that)."""
    rows: dict[int, Row] = field(default_factory=dict)

    def _new_row(self, given: Values) -> Values:
        """A row as the server forms it from what the statement gives: defaults of existing columns for what is left out."""
        new = {cell.name for cell in self.model.added}
        row: Values = {}
        for cell in self.model.cells:
            left_out = None if cell.name in new else cell.default
            value = given.get(cell.name, left_out)
            row[cell.name] = value if value is None else cell.store(value)
        return row

    def _inserted(self, given: Values) -> Values:
        row = self._new_row(given)
        written: Values = {}
        for group in self.model.groups:
            written.update(group.insert(row))
        return self._valid({**row, **written})

    def _valid(self, row: Values) -> Values:
        """The old schema's NOT NULL holds all the time; the new one's begins with contract."""
        for cell in self.model.present:
            if not cell.nullable and row[cell.name] is None:
                raise Rejected(f"{cell.name} may not be NULL")
        return row

    def _updated(self, row: Row, assigned: Values) -> Row:
        cells = {cell.name: cell for cell in self.model.cells}
        changed = {name: value if value is None else cells[name].store(value) for name, value in assigned.items()}
        after = {**row.values, **changed}
        written: Values = {}
        for group in self.model.groups:
            written.update(group.update(dict(row.values), after, synced=row.synced))
        return Row(self._valid({**after, **written}), synced=True)

    # -- statements -----------------------------------------------------------------------------------------------------

    def insert(self, rows: Sequence[tuple[int, Values]]) -> None:
        """INSERT of one or more rows; a key that exists fails the statement."""
        made: dict[int, Row] = {}
        for key, given in rows:
            if key in self.rows or key in made:
                raise Rejected(f"duplicate key {key}")
            made[key] = Row(self._inserted(given), synced=True)
        self.rows.update(made)

    def insert_or_ignore(self, rows: Sequence[tuple[int, Values]]) -> None:
        """INSERT IGNORE, OR IGNORE, ON CONFLICT DO NOTHING: rows whose key exists are left out."""
        for key, given in rows:
            if key not in self.rows:
                self.rows[key] = Row(self._inserted(given), synced=True)

    def replace(self, rows: Sequence[tuple[int, Values]]) -> None:
        """REPLACE, INSERT OR REPLACE: delete and insert."""
        made = {key: Row(self._inserted(given), synced=True) for key, given in rows}
        self.rows.update(made)

    def upsert(self, rows: Sequence[tuple[int, Values]], assigned: Sequence[str]) -> None:
        """ON CONFLICT DO UPDATE, ON DUPLICATE KEY UPDATE: the columns ``assigned`` take the proposed row's values."""
        made = dict(self.rows)
        for key, given in rows:
            if key not in made:
                made[key] = Row(self._inserted(given), synced=True)
                continue
            proposed = self._inserted(given) if self.excluded_is_synced else self._new_row(given)
            made[key] = self._updated(made[key], {name: proposed[name] for name in assigned})
        self.rows = made

    def update(self, keys: Iterable[int], assigned: Callable[[Values], Values]) -> None:
        """UPDATE of the rows with these keys; ``assigned`` gives what SET says, from the row before it."""
        made = {
            key: self._updated(self.rows[key], assigned(dict(self.rows[key].values)))
            for key in keys
            if key in self.rows
        }
        self.rows.update(made)

    def rekey(self, key: int, to: int) -> None:
        """UPDATE of the key alone: an unrelated update."""
        self.rows[to] = self._updated(self.rows[key], {})
        del self.rows[key]

    def delete(self, keys: Iterable[int]) -> None:
        """DELETE."""
        for key in keys:
            self.rows.pop(key, None)

    def backfill(self, keys: Iterable[int]) -> None:
        """The backfill reaches these rows: those never synced get the forward image, the others stay as they are."""
        for key in keys:
            row = self.rows[key]
            if row.synced:
                continue
            written: Values = {}
            for group in self.model.groups:
                written.update(group.f(dict(row.values)))
            self.rows[key] = Row({**row.values, **written}, synced=True)

    # -- comparison -------------------------------------------------------------------------------------------------------

    def settle(self, found: Mapping[int, Mapping[str, Any]]) -> None:
        """Take over the times that only the server's clock knows."""
        for key, row in self.rows.items():
            clocks = {name for name, value in row.values.items() if value is NOW}
            if clocks and key in found:
                seen = {name: found[key][name] for name in clocks if found[key][name] is not None}
                self.rows[key] = Row({**row.values, **seen}, synced=row.synced)

    def differing(self) -> list[set[int]]:
        """For each group, the keys of synced rows whose sides agree in neither direction."""
        return [
            {
                key
                for key, row in self.rows.items()
                if not group.agrees_forward(dict(row.values), first=False)
                and not group.agrees_backward(dict(row.values), first=False)
            }
            for group in self.model.groups
        ]
