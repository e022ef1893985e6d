"""The sync rule in Python: what the sync makes of a row that one release writes.

Written from the words of the rule alone. It shares no code with what installs triggers, so that it can judge them:
the functions of a lens come as plain Python, and rows are dictionaries. The tests of the triggers and the rehearsal
hold every server against this one model.

Words: ``O`` and ``N`` are a group's old and new columns, ``f`` its forward and ``g`` its backward function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["NOW", "Cell", "Group", "Side", "Undecided", "Values", "same"]

Values = dict[str, Any]
Side = Literal["old", "new"]


class _Now:
    """The value of a clock: the oracle cannot know it, only that it is a time."""

    def __repr__(self) -> str:
        return "NOW"


NOW = _Now()


class Undecided(Exception):
    """An INSERT gives neither side, and nothing declared says which release has sent it."""


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
    """One lens over end columns: what it means, as plain Python functions of a row."""

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

    # -- images ------------------------------------------------------------------------------------------------------

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

    # -- the rule ----------------------------------------------------------------------------------------------------

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
            if not (self.agrees_forward(completed) and self.agrees_backward(completed)):
                raise Undecided(f"undecidable INSERT without omitted=: {row}")
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
