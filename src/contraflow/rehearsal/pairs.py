"""The model of two tables whose rows are kept in step: what a write of one makes of its row in the other.

For one release the columns stand in the *main* table (it sees them *joined*), for the other in the *companion*, which
has at most one row for each main row (*split*). Written from the words of the documentation alone: no companion row
means the same as one that says nothing, and what says nothing is told by the images of NULL.

The worlds of the two rows are kept apart, so what is known of both at once is told a little more widely than it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from contraflow import expressions
from contraflow.operations.base import TableName
from contraflow.rehearsal.oracle import ABSENT, TableOracle, World, distinct
from contraflow.rehearsal.rule import Side, Values, same
from contraflow.rehearsal.shapes import ANY
from contraflow.syncs import Pair, PairTable

__all__ = ["PairOracle"]


class PairOracle:
    """The model of one pair of tables, while both releases write.

    :ivar main: the main table.
    :ivar companion: the other one.
    :ivar joined: the release that has the columns in the main table.
    :ivar split: the other one.
    :param tables: the model of each of the two.
    """

    def __init__(
        self, pair: Pair, main: TableName, companion: TableName, tables: Mapping[TableName, TableOracle]
    ) -> None:
        self.main, self.companion = main, companion
        self.joined: Side = "old" if pair.old == "main" else "new"
        self.split: Side = "new" if pair.old == "main" else "old"
        self._pair = pair
        self._tables = tables
        self._keys = {here.name: there.name for here, there in zip(pair.main.key, pair.companion.key, strict=True)}
        self._nothing = self._image(main, pair.to_main, dict.fromkeys(pair.companion.columns))
        self._goes = any(
            not pair.companion.columns[name].nullable
            and all(self._nothing.get(source) is None for source in expressions.references(image))
            for name, image in pair.to_companion.items()
        )
        """Where a column of the companion may not be NULL, its row goes once what that comes from says nothing."""

    def companion_key(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """The key of the companion's row that belongs to the main row with this key."""
        return {self._keys[name]: value for name, value in key.items()}

    def main_key(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """The reverse."""
        back = {there: here for here, there in self._keys.items()}
        return {back[name]: value for name, value in key.items()}

    # -- while both releases write -----------------------------------------------------------------------------------

    def companions(self, before: Sequence[World], after: Iterable[World], present: Sequence[World]) -> list[World]:
        """What the companion's row may hold once the main row was written; ``before`` is empty if it was inserted."""
        made: list[World] = []
        for written, there in product(after, present):
            changes = {one for world in before or [ABSENT] for one in self._changes(self._pair.main, world, written)}
            made += [self._companion(written, there) if change else there for change in changes]
        return distinct(made)

    def mains(self, before: Sequence[World], after: Iterable[World], present: Sequence[World]) -> list[World]:
        """What the main row may hold once its companion was written, inserted or deleted."""
        made: list[World] = []
        for written, there in product(after, present):
            changes = {
                one for world in before or [ABSENT] for one in self._changes(self._pair.companion, world, written)
            }
            made += [self._main(written, there) if change else there for change in changes]
        return distinct(made)

    # -- when the new release begins ---------------------------------------------------------------------------------

    def made_companions(self, mains: Iterable[World]) -> list[World]:
        """What migrate makes of a main row in a table of companions that only the new release knows.

        A row that says nothing may be there, if the main row once said more.
        """
        made: list[World] = []
        for world in mains:
            made.append(self._companion(world, ABSENT))
            if world.values is not None and self._empty(world.values) and not self._goes:
                made.append(self._companion(world, World(self._fresh(world.values))))
        return distinct(made)

    def made_mains(self, mains: Iterable[World], companions: Iterable[World]) -> list[World]:
        """What migrate makes of a main row of which only the old release has the companion."""
        return distinct(self._main(there, world) for world, there in product(mains, list(companions)))

    # -- one row -----------------------------------------------------------------------------------------------------

    def _companion(self, main: World, present: World) -> World:
        """The companion's row once the main one is pushed there."""
        if main.values is None:
            return ABSENT
        empty = self._empty(main.values)
        if empty and (self._goes or present.values is None):
            return ABSENT
        row = self._fresh(main.values) if present.values is None else present.values
        return replace(present, values={**row, **self._image(self.companion, self._pair.to_companion, main.values)})

    def _main(self, companion: World, present: World) -> World:
        """The main row once its companion is pushed there."""
        if present.values is None:
            return present
        there = companion.values
        image = self._nothing if there is None else self._image(self.main, self._pair.to_main, there)
        return replace(present, values={**present.values, **image})

    def _fresh(self, main: Values) -> Values:
        """A companion's row that the sync inserts, before the columns that it fills."""
        shape = self._tables[self.companion].shape(self.split)
        return {
            **{name: shape.default(name) for name in shape.columns},
            **{there: main[here] for here, there in self._keys.items()},
        }

    def _empty(self, main: Values) -> bool:
        return all(same(main[name], value) for name, value in self._nothing.items())

    @staticmethod
    def _changes(end: PairTable, before: World, after: World) -> Iterator[bool]:
        """Whether a write has changed what the other table hears of; both, where nobody can know."""
        if before.values is None or after.values is None:
            yield (before.values is None) != (after.values is None)
            return
        pairs = [(before.values[name], after.values[name]) for name in end.columns]
        if any(one is not two and ANY in (one, two) for one, two in pairs):
            yield from (True, False)
        else:
            yield any(not same(one, two) for one, two in pairs)

    def _image(self, table: TableName, images: Mapping[str, Any], row: Values) -> Values:
        image = {name: expressions.evaluate(expression, row) for name, expression in images.items()}
        return self._tables[table].coerced(image)
