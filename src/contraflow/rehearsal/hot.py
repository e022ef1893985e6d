"""Rows that every client of both releases writes at once.

Nobody knows the order of writes that were under way at the same time. What is known: a value that a release reads must
be one that it has written, or the image of one that the other release has written; it must not be one that another
write, which began after that one was acknowledged, had replaced before the read began; and when everybody stands
still, the two sides must agree.
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
from contraflow.rehearsal.record import FindingKind
from contraflow.rehearsal.rule import NOW, Group, Side, Values, same
from contraflow.rehearsal.shapes import ANY, value_for

__all__ = ["Draft", "HotRow"]

_Cells = tuple[Any, ...]
_REMEMBERED = 50
"""How many values of a column that nobody may read any more are kept, to tell them from those that nobody wrote."""


@dataclass(eq=False, kw_only=True)
class _Write:
    """One write of a unit.

    :ivar release: whose.
    :ivar cells: what each release reads once it is done.
    :ivar sent: when it began.
    :ivar done: when it was acknowledged; None while it is under way, and for good if nobody was told how it ended.
    :ivar over: since when it is certain that another write has replaced it.
    """

    release: Side
    cells: Mapping[Side, _Cells]
    sent: float
    done: float | None = None
    over: float | None = None

    def replaces(self, other: _Write) -> bool:
        """Whether nothing of the other one can be read once this one, which began after it was done, is done.

        A statement that writes what is there already changes nothing, so the other side stays as it is.
        """
        if repr(self.cells) == repr(other.cells):
            return True
        mine, theirs = self.cells[self.release], other.cells[self.release]
        return any(not _may_be(one, two) for one, two in zip(mine, theirs, strict=True))

    def read_as(self, release: Side, cells: _Cells) -> bool:
        return all(_may_be(one, two) for one, two in zip(self.cells[release], cells, strict=True))


def _may_be(one: Any, two: Any) -> bool:
    return one in (ANY, NOW) or two in (ANY, NOW) or same(one, two)


@dataclass(kw_only=True)
class _Unit:
    """Columns that are written together: one that no lens touches, or one side of a group.

    :ivar columns: those of each release.
    :ivar writes: those whose values may still be read by somebody.
    """

    columns: Mapping[Side, tuple[str, ...]]
    group: Group | None = None
    writes: list[_Write] = field(default_factory=list)

    def write(self, release: Side, values: Values, at: float) -> _Write:
        """The release begins to write these values."""
        other: Side = "new" if release == "old" else "old"
        mine = tuple(values[name] for name in self.columns[release])
        if self.group is None:
            theirs = mine if self.columns[other] else ()  # without a lens it is one column, of one name
        else:
            row = {**dict.fromkeys((*self.columns["old"], *self.columns["new"])), **values}
            image = self.group.f(row) if release == "old" else self.group.g(row)
            # A column that the image leaves alone may hold whatever was there before.
            theirs = tuple(image.get(name, ANY) for name in self.columns[other])
        cells: dict[Side, _Cells] = {"old": mine, "new": theirs} if release == "old" else {"old": theirs, "new": mine}
        self.writes.append(_Write(release=release, cells=cells, sent=at))
        return self.writes[-1]

    def rolled_back(self) -> None:
        """What the new release reads from now on, once it is there again, is made from the old columns."""
        for write in self.writes:
            old = write.cells["old"]
            if self.group is None:
                new = old or (ANY,) * len(self.columns["new"])
            elif any(value is ANY or value is NOW for value in old):
                new = (ANY,) * len(self.columns["new"])
            else:
                row = {**dict.fromkeys(self.columns["new"]), **dict(zip(self.columns["old"], old, strict=True))}
                image = self.group.f(row)
                new = tuple(image.get(name, ANY) for name in self.columns["new"])
            write.release, write.cells = "old", {"old": old, "new": new if self.columns["new"] else ()}

    def done(self, write: _Write, at: float, oldest: float) -> None:
        """A write is acknowledged; no read that is still under way began before ``oldest``."""
        write.done = at
        for other in self.writes if self.group is None or not self.group.once else ():
            if other.done is not None and other.done < write.sent and other.over is None and write.replaces(other):
                other.over = at
        gone = [one for one in self.writes if one.over is not None and one.over < oldest]
        forgotten = set(map(id, gone[:-_REMEMBERED]))
        self.writes = [one for one in self.writes if id(one) not in forgotten]

    def judge(self, release: Side, found: Mapping[str, Any], at: float) -> FindingKind | None:
        """What is wrong with a value that a read has found which began at the moment ``at``."""
        cells = tuple(found[name] for name in self.columns[release])
        alike = (write for write in reversed(self.writes) if write.read_as(release, cells))
        if any(write.over is None or at <= write.over for write in alike):
            return None
        return "stale" if any(write.read_as(release, cells) for write in self.writes) else "alien read"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An UPDATE of a hot row: what it writes."""

    values: Mapping[str, Any]
    writes: Sequence[tuple[_Unit, _Write]]


class HotRow:
    """One of them. Safe to use from several threads.

    Moments are seconds on one clock that never goes back.

    :param values: what the old release has written there.
    :param at: when that was known to be done.
    :ivar history: what happened to it, as far as it is remembered.
    :ivar last: what each release has read of it last.
    """

    def __init__(
        self, table: TableName, key: Mapping[str, Any], oracle: TableOracle, values: Values, at: float = 0.0
    ) -> None:
        self.table = table
        self.key = dict(key)
        self.history = KeyHistory()
        self.last: dict[Side, Mapping[str, Any]] = {}
        self._oracle = oracle
        self._lock = threading.Lock()
        self._reads: list[float] = []
        self._units = list(_units(oracle))
        for unit in self._units:
            release: Side = "old" if unit.columns["old"] or unit.group else "new"
            unit.write(release, {name: values[name] for name in unit.columns[release]}, at).done = at

    @property
    def title(self) -> str:
        """The key as people write it."""
        return ", ".join(f"{name}={value}" for name, value in self.key.items())

    # -- writes ------------------------------------------------------------------------------------------------------

    def draw(self, release: Side, rng: random.Random, token: Callable[[], int], at: float) -> Draft | None:
        """An UPDATE by the release, whose values may be read from now on; None if there is nothing to write."""
        shape = self._oracle.shape(release)
        units = [unit for unit in self._units if unit.columns[release]]
        if not units:
            return None
        unique = {name for columns in shape.unique for name in columns}
        written: dict[str, Any] = {}
        writes: list[tuple[_Unit, _Write]] = []
        for unit in rng.sample(units, rng.randint(1, min(3, len(units)))):
            values = {
                name: value_for(shape.columns[name], rng, token=token() if name in unique else None)
                for name in unit.columns[release]
            }
            with self._lock:
                writes.append((unit, unit.write(release, self._oracle.coerced(values), at)))
            written.update(values)
        return Draft(values=written, writes=writes)

    def done(self, draft: Draft, at: float) -> None:
        """The UPDATE is acknowledged."""
        with self._lock:
            for unit, write in draft.writes:
                unit.done(write, at, min(self._reads, default=at))

    def failed(self, draft: Draft) -> None:
        """The UPDATE has failed: none of its values is there. One of unknown outcome has not failed."""
        with self._lock:
            for unit, write in draft.writes:
                unit.writes.remove(write)

    def rolled_back(self) -> None:
        """The upgrade was rolled back: the new release's columns are gone, and will be filled anew."""
        self.last.pop("new", None)
        with self._lock:
            for unit in self._units:
                unit.rolled_back()

    # -- reads -------------------------------------------------------------------------------------------------------

    def reading(self, at: float) -> None:
        """A read begins; `judge` or `unread` with the same moment ends it."""
        with self._lock:
            self._reads.append(at)

    def unread(self, at: float) -> None:
        """A read has ended without an answer."""
        with self._lock:
            self._reads.remove(at)

    def judge(self, release: Side, found: Mapping[str, Any] | None, at: float) -> list[tuple[FindingKind, str]]:
        """What the release must not have read, by a read that began at the moment ``at``: kinds, and in words."""
        with self._lock:
            self._reads.remove(at)
        if found is None:
            return [("lost", "the row is not there")]
        seen = self._oracle.coerced(found)
        self.last[release] = found
        wrong: list[tuple[FindingKind, str]] = []
        with self._lock:
            for unit in self._units:
                kind = unit.judge(release, seen, at) if unit.columns[release] else None
                if kind is not None:
                    told = ", ".join(f"{name} = {seen[name]!r}" for name in unit.columns[release])
                    wrong.append((kind, f"{told} {_WHY[kind]}"))
        return wrong

    def torn(self, views: Sequence[Mapping[str, Any]]) -> list[str]:
        """Lenses whose two sides do not agree in a row that both releases have read while nobody wrote."""
        row = {name: value for view in views for name, value in view.items()}
        names = {cell.name for group in self._oracle.groups for cell in (*group.old, *group.new)}
        if not names <= row.keys():
            return []
        return [
            ", ".join(f"{cell.name} = {row[cell.name]!r}" for cell in (*group.old, *group.new)) + " do not agree"
            for group in self._oracle.drifted(row)
        ]


_WHY: Mapping[FindingKind, str] = {
    "alien read": "was neither written nor is it the image of what was",
    "stale": "had been replaced by a later write before this read began",
}


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
