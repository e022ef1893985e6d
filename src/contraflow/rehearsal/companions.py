"""The model of rows that are made for rows of another table, which then refer to them.

Which key the server gives such a row, nobody can foretell. What is known: it is made for a row that was written, and
a row refers to one that was made for what it held, or to whichever the new release has said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from contraflow import expressions
from contraflow.operations.references import AddCompanion
from contraflow.rehearsal.oracle import Rows, Stage, TableOracle, World, distinct
from contraflow.rehearsal.relations import Items, Read, Relation, Shapes, Written
from contraflow.rehearsal.rule import Side, Values
from contraflow.rehearsal.shapes import ANY, Link, TableShape
from contraflow.syncs import Sync

if TYPE_CHECKING:
    from contraflow.operations.base import TableName
    from contraflow.rehearsal.transactions import Item

__all__ = ["Companion", "CompanionOracle"]


@dataclass(frozen=True)
class _Made:
    """The key of the row that was made for these columns."""

    natural: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"the key of what was made for {self.natural!r}"


class Companion(Relation):
    """What one `AddCompanion` makes of the rows of its two tables.

    :ivar table: the table whose rows have one made.
    :ivar to: the table that these are made in.
    """

    def __init__(self, declared: AddCompanion) -> None:
        self.table: TableName = (declared.schema, declared.table)
        self.to: TableName = (declared.schema, declared.to)
        self.tables = frozenset((self.table, self.to))
        self.bound = frozenset((self.table,))
        self.column = declared.column.name
        self._key = declared.key
        self._columns = dict(declared.columns)
        self._where = {
            name: expressions.evaluate(expressions.validate(value), {}) for name, value in declared.where.items()
        }
        self._natural: set[tuple[Any, ...]] = set()
        self._told_by: tuple[str, ...] = ()

    def obstacle(self, old: Shapes, new: Shapes) -> str | None:  # noqa: ARG002 - both know the tables
        """See `Relation.obstacle`."""
        mine = old[self.table]
        if not set(mine.key) <= self._columns.keys() or mine.made & self._columns.keys():
            return f"what is made for a row of {self.table[1]} is not told by a key that the application gives"
        return None

    def link(self, old: dict[TableName, TableShape], new: dict[TableName, TableShape]) -> None:  # noqa: ARG002 - alike
        """See `Relation.link`."""
        shape = new[self.table]
        self._told_by = shape.key
        link = Link(columns=(self.column,), table=self.to, referred=(self._key,), moves=True)
        new[self.table] = replace(shape, links=(*(one for one in shape.links if one.columns != link.columns), link))

    def follow(
        self,
        written: Written,  # noqa: ARG002 - nothing follows: what was made belongs to its writers
        items: Items,  # noqa: ARG002 - likewise
        rows: Rows,  # noqa: ARG002 - likewise
        *,
        sure: bool,  # noqa: ARG002 - likewise
    ) -> Iterable[Item]:
        """See `Relation.follow`."""
        return ()

    def explains(self, table: TableName, row: Mapping[str, Any]) -> bool:
        """See `Relation.explains`."""
        if table != self.to or any(row[name] != value for name, value in self._where.items()):
            return False
        return tuple(row[there] for there in self._columns.values()) in self._natural

    def torn(self, read: Read, items: Items) -> Iterator[tuple[Item, str]]:
        """See `Relation.torn`."""
        made = {row[self._key]: row for row in read[self.to] if self.explains(self.to, row)}
        mine = {tuple(row[name] for name in self._told_by): row[self.column] for row in read[self.table]}
        for item in items(self.table):
            keys = [world.values[self.column] for world in item.worlds if world.values is not None]
            held = mine.get(tuple(item.key[name] for name in self._told_by))
            wanted = {one.natural for one in keys if isinstance(one, _Made)}
            if len(wanted) < len(keys) or not wanted or held is None:
                continue  # the new release may have said which
            natural = tuple(made[held][there] for there in self._columns.values()) if held in made else None
            if natural not in wanted:
                yield item, f"{self.column} = {held!r} is not {keys[0]!r}"

    def asked(self, world: World) -> World:
        """The row once the triggers, or the backfill, have given it what is made for it."""
        row = world.values
        if row is None or row[self.column] is not None or any(row[here] is None for here in self._columns):
            return world
        return replace(world, values={**row, self.column: _Made(self.told(row))})

    def told(self, row: Values) -> tuple[Any, ...]:
        """What tells the row that is made for this one; it is remembered."""
        natural = tuple(row[here] for here in self._columns)
        self._natural.add(natural)
        return natural


class CompanionOracle(TableOracle):
    """The model of a table whose rows have rows made for them."""

    alone = False

    def __init__(
        self,
        *,
        old: TableShape,
        new: TableShape,
        sync: Sync,
        companions: Sequence[Companion],
        conditions: Sequence[expressions.Expression] = (),
    ) -> None:
        super().__init__(old=old, new=new, sync=sync, conditions=conditions)
        self._companions = companions
        made = {companion.column for companion in companions}
        self.groups = tuple(group for group in self.groups if not {cell.name for cell in group.new} & made)

    def insert(self, given: Mapping[str, Any], stage: Stage) -> list[World]:
        """See `TableOracle.insert`."""
        return self._asked(super().insert(given, stage), stage)

    def update(self, world: World, assigned: Mapping[str, Any], stage: Stage) -> list[World]:
        """See `TableOracle.update`."""
        return self._remembered(super().update(world, assigned, stage))

    def moved(self, worlds: list[World], stage: Stage) -> list[World]:
        """See `TableOracle.moved`."""
        return self._asked(super().moved(worlds, stage), stage)

    def _asked(self, worlds: list[World], stage: Stage) -> list[World]:
        for companion in self._companions if stage is Stage.BOTH else ():
            worlds = distinct(map(companion.asked, worlds))
        return self._remembered(worlds)

    def _remembered(self, worlds: list[World]) -> list[World]:
        for companion in self._companions:
            for world in worlds:
                if world.values is not None:
                    companion.told(world.values)
        return worlds

    def view(self, world: World, release: Side) -> Values | None:
        """See `TableOracle.view`."""
        return super().view(_open(world), release)

    def _agrees(self, world: World, release: Side, seen: Values | None) -> bool:
        return super()._agrees(_open(world), release, seen)

    def _differences(self, world: World, release: Side, seen: Values | None) -> list[str]:
        return super()._differences(_open(world), release, seen)


def _open(world: World) -> World:
    """The world with whatever was made left open."""
    if world.values is None:
        return world
    return replace(world, values={name: ANY if isinstance(one, _Made) else one for name, one in world.values.items()})
