"""A Python model of one table during an upgrade, written from the words of the sync rule alone.

It shares no code with the library: the functions of a lens come as plain Python, written by hand beside each scenario,
and rows are dictionaries. What a statement does to a row is decided here once more, independently of every compiler.

Words: ``O`` and ``N`` are a group's old and new columns, ``f`` its forward and ``g`` its backward function.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["NOW", "Cell", "Group", "Model", "Oracle", "Rejected", "same"]

Values = dict[str, Any]
Side = Literal["old", "new"]


class _Now:
    """The value of a clock: the oracle cannot know it, only that it is a time."""

    def __repr__(self) -> str:
        return "NOW"


NOW = _Now()


class Rejected(Exception):
    """The statement must fail and change nothing."""


def same(left: Any, right: Any) -> bool:
    """Equal as stored values: NULL equals NULL, text code point by code point, documents by content."""
    if left is None or right is None:
        return left is None and right is None
    if isinstance(left, (dict, list)) or isinstance(right, (dict, list)):
        return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    return bool(left == right)


def _identity(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One column as its own release's schema declares it."""

    name: str
    nullable: bool = True
    default: Any = None
    """What the server stores when the column is left out; None for no default."""
    store: Callable[[Any], Any] = _identity
    """What the column's type makes of a value when it is stored."""

    @property
    def required(self) -> bool:
        """NOT NULL without a default: its release must give it."""
        return not self.nullable and self.default is None


def _no_image(_row: Values) -> Values:
    return {}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One lens over end columns, by hand."""

    old: tuple[Cell, ...] = ()
    new: tuple[Cell, ...] = ()
    forward: Callable[[Values], Values] = _no_image
    backward: Callable[[Values], Values] = _no_image
    winner: Side = "new"
    omitted: Side | None = None
    once: frozenset[str] = frozenset()
    """Columns given a value when the row is inserted or first synced, then left alone."""
    forward_random: bool = False
    backward_random: bool = False

    # -- images -------------------------------------------------------------------------------------------------------

    def f(self, row: Values, *, first: bool = True) -> Values:
        """The image of the old side, as it would be stored."""
        return self._image(self.forward, self.new, row, first=first)

    def g(self, row: Values, *, first: bool = True) -> Values:
        """The image of the new side, as it would be stored."""
        return self._image(self.backward, self.old, row, first=first)

    def _image(
        self, function: Callable[[Values], Values], cells: Iterable[Cell], row: Values, *, first: bool
    ) -> Values:
        store = {cell.name: cell.store for cell in cells}
        return {
            name: value if value is None or value is NOW else store[name](value)
            for name, value in function(row).items()
            if first or name not in self.once
        }

    def agrees_forward(self, row: Values, *, first: bool = True) -> bool:
        """N = f(O); a clock's f is judged by the other direction."""
        if self.forward_random:
            return not self.backward_random and self._holds(self.g(row, first=first), row)
        return self._holds(self.f(row, first=first), row)

    def agrees_backward(self, row: Values, *, first: bool = True) -> bool:
        """O = g(N); a clock's g is judged by the other direction."""
        if self.backward_random:
            return not self.forward_random and self._holds(self.f(row, first=first), row)
        return self._holds(self.g(row, first=first), row)

    @staticmethod
    def _holds(image: Values, row: Values) -> bool:
        return all(same(row[name], value) for name, value in image.items())

    # -- the rule -------------------------------------------------------------------------------------------------------

    def insert(self, row: Values) -> Values:
        """What the sync writes into a row that is being inserted."""
        old_empty = all(row[cell.name] is None for cell in self.old)
        new_empty = all(row[cell.name] is None for cell in self.new)
        old_defaults = bool(self.old) and all(same(row[cell.name], cell.default) for cell in self.old)
        new_required = any(cell.required for cell in self.new)
        new_may_be_null = all(cell.nullable for cell in self.new)
        if old_empty and new_empty:
            if new_required:
                return self.f(row)
            if any(cell.required for cell in self.old):
                return self._from_new(row)
            completed = {**row, **self._new_defaults(row)}
            if self.agrees_forward(completed) and self.agrees_backward(completed):
                return self._new_defaults(row)
            return self._omitted(row)
        if new_empty:
            if old_defaults and new_may_be_null:
                return self._omitted(row)
            return self.f(row)
        if old_empty or old_defaults:
            return self._from_new(row)
        defaults = self._new_defaults(row)
        given = {**row, **defaults}
        if self.agrees_forward(given) or self.agrees_backward(given):
            return defaults
        return {**defaults, **self.g(given)} if self.winner == "new" else self.f(row)

    def _new_defaults(self, row: Values) -> Values:
        """The defaults that the new release relies on: the sync applies them, the server does not yet."""
        return {cell.name: cell.default for cell in self.new if row[cell.name] is None and cell.default is not None}

    def _from_new(self, row: Values) -> Values:
        defaults = self._new_defaults(row)
        given = {**row, **defaults}
        return defaults if self.agrees_backward(given) else {**defaults, **self.g(given)}

    def _omitted(self, row: Values) -> Values:
        if self.omitted is None:
            if any(not cell.nullable and row[cell.name] is None for cell in self.old):
                return {}  # an explicit NULL where the old schema forbids it: the statement fails
            # Both releases must then mean the same, or the declaration should have been refused.
            completed = {**row, **self._new_defaults(row)}
            decided = self.agrees_forward(completed) and self.agrees_backward(completed)
            assert decided, f"undecidable INSERT without omitted=: {row}"
            return self._new_defaults(row)
        return self.f(row) if self.omitted == "old" else self._from_new(row)

    def update(self, before: Values, row: Values, *, synced: bool) -> Values:
        """What the sync writes into a row that a statement has changed from ``before`` to ``row``."""
        old_changed = any(not same(before[cell.name], row[cell.name]) for cell in self.old)
        new_changed = any(not same(before[cell.name], row[cell.name]) for cell in self.new)
        first = not synced  # an old column filled once has its value already: only new ones are still to be filled
        if old_changed and new_changed:
            if self.agrees_forward(row, first=first) or self.agrees_backward(row, first=False):
                return {}
            return self.g(row, first=False) if self.winner == "new" else self.f(row, first=first)
        if new_changed:
            return {} if self.agrees_backward(row, first=False) else self.g(row, first=False)
        if old_changed:
            return {} if self.agrees_forward(row, first=first) else self.f(row, first=first)
        if synced:
            return {}
        return self.f(row) if all(row[cell.name] is None for cell in self.new) else self.insert(row)


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
