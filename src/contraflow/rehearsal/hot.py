"""Rows that every client of both releases writes at once.

Nobody knows the order of their writes. What is known: a value that a release reads must be one that it has written, or
the image of one that the other release has written; and when everybody stands still, the two sides must agree.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contraflow.operations.base import TableName
from contraflow.rehearsal.history import KeyHistory
from contraflow.rehearsal.oracle import TableOracle
from contraflow.rehearsal.rule import NOW, Group, Side, Values, same
from contraflow.rehearsal.shapes import ANY, value_for

__all__ = ["HotRow"]

_Cells = tuple[Any, ...]


@dataclass(kw_only=True)
class _Unit:
    """Columns that are written together: one that no lens touches, or one side of a group.

    :ivar columns: those of each release.
    :ivar allowed: what each may read of them, by its text.
    """

    columns: Mapping[Side, tuple[str, ...]]
    group: Group | None = None
    allowed: dict[Side, dict[str, _Cells]] = field(default_factory=lambda: {"old": {}, "new": {}})

    def allow(self, release: Side, cells: _Cells) -> None:
        self.allowed[release][repr(cells)] = cells

    def wrong(self, release: Side, found: Mapping[str, Any]) -> bool:
        cells = tuple(found[name] for name in self.columns[release])
        if repr(cells) in self.allowed[release]:
            return False
        return not any(
            all(value is ANY or value is NOW or same(value, seen) for value, seen in zip(each, cells, strict=True))
            for each in self.allowed[release].values()
        )


class HotRow:
    """One of them. Safe to use from several threads.

    :param values: what the old release has written there.
    :ivar history: what happened to it, as far as it is remembered.
    :ivar last: what each release has read of it last.
    """

    def __init__(self, table: TableName, key: Mapping[str, Any], oracle: TableOracle, values: Values) -> None:
        self.table = table
        self.key = dict(key)
        self.history = KeyHistory()
        self.last: dict[Side, Mapping[str, Any]] = {}
        self._oracle = oracle
        self._lock = threading.Lock()
        self._units = list(_units(oracle))
        for unit in self._units:
            self._note(unit, "old", {name: values[name] for name in unit.columns["old"]})

    @property
    def title(self) -> str:
        """The key as people write it."""
        return ", ".join(f"{name}={value}" for name, value in self.key.items())

    def draw(self, release: Side, rng: random.Random, token: Callable[[], int]) -> dict[str, Any]:
        """Values for an UPDATE by the release, which may be read from now on; empty if there is nothing to write."""
        shape = self._oracle.shape(release)
        units = [unit for unit in self._units if unit.columns[release]]
        unique = {name for columns in shape.unique for name in columns}
        written: dict[str, Any] = {}
        for unit in rng.sample(units, rng.randint(1, min(3, len(units)))) if units else ():
            values = {
                name: value_for(shape.columns[name], rng, token=token() if name in unique else None)
                for name in unit.columns[release]
            }
            with self._lock:
                self._note(unit, release, self._oracle.coerced(values))
            written.update(values)
        return written

    def wrong(self, release: Side, found: Mapping[str, Any] | None) -> list[str]:
        """What the release must not have read, in words."""
        if found is None:
            return ["the row is not there"]
        seen = self._oracle.coerced(found)
        self.last[release] = found
        with self._lock:
            return [
                f"{', '.join(f'{name} = {seen[name]!r}' for name in unit.columns[release])}"
                " was neither written nor is it the image of what was"
                for unit in self._units
                if unit.columns[release] and unit.wrong(release, seen)
            ]

    def torn(self, views: Sequence[Mapping[str, Any]]) -> list[str]:
        """Lenses whose two sides do not agree in a row that both releases have read while nobody wrote."""
        row = {name: value for view in views for name, value in view.items()}
        names = {cell.name for unit in self._units if unit.group for cell in (*unit.group.old, *unit.group.new)}
        if not names <= row.keys():
            return []
        return [
            ", ".join(f"{cell.name} = {row[cell.name]!r}" for cell in (*group.old, *group.new)) + " do not agree"
            for group in self._oracle.drifted(row)
        ]

    @staticmethod
    def _note(unit: _Unit, release: Side, values: Values) -> None:
        """The release writes these values of a unit."""
        other: Side = "new" if release == "old" else "old"
        unit.allow(release, tuple(values[name] for name in unit.columns[release]))
        if unit.group is None:
            if unit.columns[other] == unit.columns[release]:
                unit.allow(other, tuple(values.values()))
            return
        row = {**dict.fromkeys((*unit.columns["old"], *unit.columns["new"])), **values}
        image = unit.group.f(row) if release == "old" else unit.group.g(row)
        # A column that the image leaves alone may hold whatever was there before.
        unit.allow(other, tuple(image.get(name, ANY) for name in unit.columns[other]))


def _units(oracle: TableOracle) -> Iterator[_Unit]:
    """What may be written of a row without touching its key, or what others refer to by."""
    shapes = {release: oracle.shape(release) if oracle.knows(release) else None for release in _RELEASES}
    busy = {
        name
        for shape in shapes.values()
        if shape is not None
        for name in (*shape.key, *shape.made, *(name for link in shape.links for name in link.columns))
    }
    grouped: set[str] = set()
    for group in oracle.groups:
        sides: dict[Side, tuple[str, ...]] = {
            "old": tuple(cell.name for cell in group.old),
            "new": tuple(cell.name for cell in group.new),
        }
        grouped |= {*sides["old"], *sides["new"]}
        if not busy & {*sides["old"], *sides["new"]}:
            yield _Unit(columns=sides, group=group)
    names = {name: None for shape in shapes.values() if shape is not None for name in shape.columns}
    for name in names:
        if name not in busy and name not in grouped:
            yield _Unit(
                columns={
                    release: (name,) if shape is not None and name in shape.columns else ()
                    for release, shape in shapes.items()
                }
            )


_RELEASES: tuple[Side, Side] = ("old", "new")
