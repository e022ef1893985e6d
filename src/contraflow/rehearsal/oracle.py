"""The oracle: what each row of one table must hold, in the shape of either release.

What is known of a row is a set of *worlds*: everything it may hold, by what was acknowledged. Mostly there is one. A
commit whose answer was lost makes two, and while an upgrade is being expanded nobody but the server knows whether a
statement came before or after the sync. A read leaves the worlds that agree with it; if none does, the row is wrong.

The images of a lens are evaluated in Python (`contraflow.expressions.evaluate`), and what the sync makes of them is
told by `contraflow.rehearsal.rule`: nothing here is shared with what compiles or installs triggers.
"""

from __future__ import annotations

import datetime as dt
import enum
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from contraflow import expressions
from contraflow.lens import Group as LensGroup
from contraflow.rehearsal.rule import NOW, Cell, Group, Side, Undecided, Values, same
from contraflow.rehearsal.shapes import ANY, TableShape, stored
from contraflow.syncs import Sync, SyncColumn

if TYPE_CHECKING:
    from typing_extensions import Self

    from contraflow.operations.base import TableName

__all__ = ["ABSENT", "MANY", "Rows", "Stage", "TableOracle", "World", "distinct"]

MANY = 24
"""As many worlds that it is better to read the row before it is written again."""


class Stage(enum.Enum):
    """Which releases write, and how the database keeps them in step."""

    OLD = "only the old release, and nothing of the upgrade"
    WINDOW = "only the old release, while the upgrade is expanded and migrated"
    BOTH = "both releases"
    NEW = "only the new release, after contract"


@dataclass(frozen=True)
class World:
    """What one row may hold: every column of both shapes; ``None`` as values means that there is no such row."""

    values: Values | None
    synced: bool = False


ABSENT = World(None)

Rows: TypeAlias = "Callable[[TableName], Iterable[Sequence[World]]]"
"""What is known of each row of a table."""

_CLOCKS = (dt.datetime(1987, 6, 5, 4, 3, 2, 100001), dt.datetime(2031, 7, 8, 9, 10, 11, 200002))  # noqa: DTZ001


class TableOracle:
    """The model of one table during an upgrade.

    :param old: its old shape, None if the old release does not know it.
    :param new: its new shape, likewise.
    :param sync: what the upgrade keeps in step on it, None if nothing.
    :param conditions: checks that the new release has, and the old one has not.
    """

    alone: ClassVar[bool] = True
    """What a row holds depends on no row of another table."""
    opaque: ClassVar[bool] = False
    """The new release writes the table by way of an `OpaqueWriter`."""
    UNTOLD: ClassVar[str] = "a time that the sync made does not mean what the other side says"
    """What differs where no single value does."""

    def __init__(
        self,
        *,
        old: TableShape | None,
        new: TableShape | None,
        sync: Sync | None,
        conditions: Sequence[expressions.Expression] = (),
    ) -> None:
        self.conditions = conditions
        self._shapes: dict[Side, TableShape | None] = {"old": old, "new": new}
        self.groups = tuple(_group(sync, group) for group in sync.groups) if sync else ()
        self._store = {
            name: stored(column.type)
            for shape in (old, new)  # where a type is widened, the wider one
            if shape is not None
            for name, column in shape.columns.items()
        }
        self._old_only = old.columns.keys() - new.columns.keys() if old and new else set()
        self._new_only = new.columns.keys() - old.columns.keys() if old and new else set()
        self._numbered = {name for name in self._new_only if new is not None and name in new.made}
        """What the server numbers for both releases, though only the new one knows it."""
        self._new_cells = {cell.name: cell for group in self.groups for cell in group.new}

    @property
    def proposed(self) -> frozenset[str]:
        """Columns of which triggers may change what an INSERT proposes, so that an upsert's clause may read it."""
        return frozenset()

    def of(self, rows: Rows) -> Self:  # noqa: ARG002 - what a model asks that is not alone
        """The same model for somebody who knows these rows of all tables."""
        return self

    def whole(
        self,
        release: Side,  # noqa: ARG002 - what an opaque lens asks
        values: Mapping[str, Any],
        rng: random.Random,  # noqa: ARG002 - likewise
        token: Callable[[], int],  # noqa: ARG002 - likewise
    ) -> dict[str, Any]:
        """The values that a statement of the release writes, where some can only be written together."""
        return dict(values)

    def shape(self, release: Side) -> TableShape:
        """The table as the release knows it."""
        shape = self._shapes[release]
        assert shape is not None  # noqa: S101 - only a release that knows a table asks for it
        return shape

    def knows(self, release: Side) -> bool:
        """Whether the release has this table."""
        return self._shapes[release] is not None

    # -- writes ------------------------------------------------------------------------------------------------------

    def insert(self, given: Mapping[str, Any], stage: Stage) -> list[World]:
        """What the row may hold after either release has inserted it with these values."""
        row: Values = {}
        sides: tuple[Side, Side] = ("new", "old") if stage is Stage.NEW else ("old", "new")
        for side in sides:
            shape = self._shapes[side]
            for name in shape.columns if shape else ():
                row.setdefault(name, self._initial(side, name, given, stage))
        if not self.groups or stage in (Stage.OLD, Stage.NEW):
            return [World(row, synced=stage is not Stage.OLD)]
        try:
            worlds = [World(self._written(row, (group.insert(row) for group in self.groups)), synced=True)]
        except Undecided:
            both = {cell.name: ANY for group in self.groups for cell in (*group.old, *group.new)}
            worlds = [World({**row, **{name: value for name, value in both.items() if name not in given}}, synced=True)]
        if stage is Stage.WINDOW:
            worlds.append(World(row))
        return distinct(worlds)

    def _initial(self, side: Side, name: str, given: Mapping[str, Any], stage: Stage) -> Any:
        if name in given:
            value = given[name]
            return value if value is None else self._store[name](value)
        if stage is Stage.NEW and side == "old":
            return None
        if name in self._numbered and stage is Stage.BOTH:
            return ANY
        if name in self._new_only and stage is not Stage.NEW:
            return None  # without a default until contract: the sync fills it
        return self.shape(side).default(name)

    def update(self, world: World, assigned: Mapping[str, Any], stage: Stage) -> list[World]:
        """What the row may hold after an update, if it was that before."""
        if world.values is None:
            return [world]
        before = world.values
        after = {**before, **{name: self._coerced(name, value) for name, value in assigned.items()}}
        if not self.groups or stage in (Stage.OLD, Stage.NEW):
            return [World(after, synced=world.synced)]
        made = []
        for start in self.filled(world) if stage is Stage.WINDOW else [world]:
            assert start.values is not None  # noqa: S101 - filled from one that is there
            changed = {**start.values, **{name: after[name] for name in assigned}}
            written = (self._update(group, start, changed) for group in self.groups)
            made.append(World(self._written(changed, written), synced=True))
        if stage is Stage.WINDOW and not world.synced:
            made.append(World(after))
        return distinct(made)

    @staticmethod
    def _update(group: Group, start: World, changed: Values) -> Values:
        assert start.values is not None  # noqa: S101 - the caller's
        try:
            return group.update(start.values, changed, synced=start.synced)
        except (TypeError, ValueError, ArithmeticError):
            # A time that only the server knows cannot be computed with: the old side rules while it is alone.
            return group.f(changed)

    def filled(self, world: World) -> list[World]:
        """The row before and after the backfill has reached it."""
        if world.synced or world.values is None or not self.groups:
            return [world]
        row = world.values
        return [world, World(self._written(row, (group.f(row) for group in self.groups)), synced=True)]

    def backfilled(self, worlds: Iterable[World]) -> list[World]:
        """The row once migrate is done: the backfill has been everywhere."""
        return distinct(self.filled(world)[-1] for world in worlds)

    def breaks(self, worlds: Iterable[World]) -> bool:
        """Whether the row, once it is filled, would violate a check that the upgrade makes."""
        return any(
            expressions.evaluate(condition, world.values) is False
            for condition in self.conditions
            for world in self.backfilled(worlds)
            if world.values is not None
        )

    def moved(self, worlds: list[World], stage: Stage) -> list[World]:
        """The row at the beginning of a stage."""
        if stage is Stage.BOTH:
            return self._with(self.backfilled(worlds), dict.fromkeys(self._numbered, ANY))
        if stage is Stage.NEW:
            return self.contracted(worlds)
        return self.rolled_back(worlds) if stage is Stage.OLD else worlds

    def contracted(self, worlds: Iterable[World]) -> list[World]:
        """The row without its old columns."""
        return self._with(worlds, dict.fromkeys(self._old_only))

    def rolled_back(self, worlds: Iterable[World]) -> list[World]:
        """The row without its new columns."""
        return [replace(world, synced=False) for world in self._with(worlds, dict.fromkeys(self._new_only))]

    @staticmethod
    def _with(worlds: Iterable[World], values: Values) -> list[World]:
        return distinct(
            world if world.values is None else replace(world, values={**world.values, **values}) for world in worlds
        )

    def _written(self, row: Values, images: Iterable[Values]) -> Values:
        made = dict(row)
        for image in images:
            made.update(image)
        return made

    def coerced(self, row: Mapping[str, Any]) -> Values:
        """A row as it would be stored: what is written and what is read become comparable."""
        return {name: self._coerced(name, value) for name, value in row.items()}

    def _coerced(self, name: str, value: Any) -> Any:
        return value if value is None or value is ANY or value is NOW else self._store[name](value)

    # -- reads -------------------------------------------------------------------------------------------------------

    def view(self, world: World, release: Side) -> Values | None:
        """What the release reads in that world."""
        if world.values is None:
            return None
        return {name: world.values[name] for name in self.shape(release).columns}

    def read(
        self, worlds: Sequence[World], release: Side, found: Mapping[str, Any] | None
    ) -> tuple[list[World], list[str]]:
        """Hold what the release has read against what it may read.

        :returns: the worlds that are left; and what differs from the first world, in words, if none is.
        """
        seen = None if found is None else self.coerced(found)
        left = [self._settled(world, seen) for world in worlds if self._agrees(world, release, seen)]
        if left:
            return distinct(left), []
        return [], self._differences(worlds[0], release, seen)

    def _agrees(self, world: World, release: Side, seen: Values | None) -> bool:
        expected = self.view(world, release)
        if expected is None or seen is None:
            return expected is None and seen is None
        if not all(value in (ANY, NOW) or same(value, seen[name]) for name, value in expected.items()):
            return False
        if self._unnumbered(seen):
            return False
        # A time that only the server knew must still be one that means what the other side says.
        return all(self._settles(group, expected, world, seen) for group in self.groups)

    def _unnumbered(self, seen: Values) -> list[str]:
        """What the server has not numbered of a row that the new release has read."""
        return sorted(name for name in self._numbered & seen.keys() if seen[name] is None)

    @staticmethod
    def _settles(group: Group, expected: Values, world: World, seen: Values) -> bool:
        if not any(expected.get(cell.name) is NOW for cell in (*group.old, *group.new)):
            return True
        assert world.values is not None  # noqa: S101 - there is a view of it
        row = {**world.values, **seen}
        if any(row[cell.name] in (ANY, NOW) for cell in (*group.old, *group.new)):
            return True
        return group.agrees_backward(row) or group.agrees_forward(row)

    @staticmethod
    def _settled(world: World, seen: Values | None) -> World:
        if world.values is None or seen is None:
            return world
        known = {name: seen[name] for name, value in world.values.items() if value in (ANY, NOW) and name in seen}
        return replace(world, values={**world.values, **known}) if known else world

    def _differences(self, world: World, release: Side, seen: Values | None) -> list[str]:
        expected = self.view(world, release)
        if expected is None:
            return ["the row is there, and was deleted or never made"]
        if seen is None:
            return ["the row is not there"]
        wrong = [
            f"{name} is {_short(seen[name])}, and must be {_short(value)}"
            for name, value in expected.items()
            if value not in (ANY, NOW) and not same(value, seen[name])
        ]
        wrong += [f"{name} is NULL, and must be a number" for name in self._unnumbered(seen)]
        return wrong or [self.UNTOLD]

    def unsettled(self, worlds: Sequence[World], release: Side) -> bool:
        """Whether a read by the release would tell what is not known yet, and a write needs to know."""
        columns = self.shape(release).columns
        return len(worlds) > 1 or any(
            value in (ANY, NOW)
            for world in worlds
            if world.values is not None
            for name, value in world.values.items()
            if name in columns
        )

    def drifted(self, row: Mapping[str, Any]) -> Iterator[Group]:
        """The groups whose two sides agree in neither direction in a row read with all columns of both shapes."""
        values = self.coerced(row)
        for group in self.groups:
            forward, backward = group.agrees_forward(values, first=False), group.agrees_backward(values, first=False)
            if not (forward or backward):
                yield group

    def must_give(self, release: Side) -> frozenset[str]:
        """Columns that an INSERT has to give for its outcome to be known: with a default that the server computes."""
        names = {cell.name for group in self.groups for cell in (group.old if release == "old" else group.new)}
        shape = self.shape(release)
        return frozenset(name for name in names if name in shape.columns and shape.default(name) is ANY) - shape.made


def distinct(worlds: Iterable[World]) -> list[World]:
    """Each of them once."""
    return list({(repr(world.values), world.synced): world for world in worlds}.values())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


# -- from a lens to the rule --------------------------------------------------------------------------------------


def _group(sync: Sync, group: LensGroup) -> Group:
    return Group(
        old=tuple(_cell(sync.columns[name]) for name in group.old),
        new=tuple(_cell(sync.columns[name]) for name in group.new),
        forward=_Images(group.forward),
        backward=_Images(group.backward),
        winner=group.winner,
        omitted=group.omitted,
        once=group.once,
        forward_random=not group.forward_deterministic,
        backward_random=not group.backward_deterministic,
    )


def _cell(column: SyncColumn) -> Cell:
    return Cell(
        name=column.name,
        nullable=column.nullable,
        default=column.default_value if column.default_constant else None,
        store=stored(column.type),
    )


class _Images:
    """One direction of a lens as a function of a row; NOW where the image is the time of the statement."""

    def __init__(self, images: Mapping[str, Any]) -> None:
        self._images = images
        self._random = {name for name, image in images.items() if not expressions.is_deterministic(image)}

    def __call__(self, row: Values) -> Values:
        made: Values = {}
        for name, image in self._images.items():
            if name not in self._random:
                made[name] = expressions.evaluate(image, row)
                continue
            one, other = (expressions.evaluate(image, {**row, expressions.UTCNOW: clock}) for clock in _CLOCKS)
            made[name] = one if same(one, other) else NOW
        return made
