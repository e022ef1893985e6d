"""The model of a column that follows columns of other tables.

Each client leads from its rows to rows of its own only, so what it knows of all of these tables tells what is found.
What only the server knows (a commit whose answer was lost, in which order it looked at a statement's rows) leaves
several values possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contraflow.copies import Copy, Hop, Path
from contraflow.rehearsal.oracle import Rows, Stage, TableOracle, World, distinct
from contraflow.rehearsal.relations import Items, Relation, Shapes, Written
from contraflow.rehearsal.rule import Values, same
from contraflow.rehearsal.shapes import ANY, Link, TableShape
from contraflow.syncs import Sync

if TYPE_CHECKING:
    from typing_extensions import Self

    from contraflow import expressions
    from contraflow.operations.base import TableName
    from contraflow.rehearsal.transactions import Item

__all__ = ["CopyingOracle", "Following"]


class _Unknown(Exception):
    """What is found depends on what nobody but the server knows."""


def _links(copied: Copy, shapes: Shapes) -> list[tuple[TableName, Link]] | None:
    """How the workload makes rows of the copy's tables belong together: which table gets which link.

    None if a hop leads by other columns than the primary key of one of its tables.
    """
    found: list[tuple[TableName, Link]] = []
    for path in copied.paths:
        before = copied.target
        for hop in path.hops:
            there = hop.place
            onwards = Link(columns=tuple(hop.on), table=there, referred=tuple(hop.on.values()))
            back = Link(columns=tuple(hop.on.values()), table=before, referred=tuple(hop.on))
            if onwards in shapes[before].links or back in shapes[there].links:
                pass
            elif _is_key(shapes[before], hop.on):
                found.append((there, back))
            elif _is_key(shapes[there], hop.on.values()):
                found.append((before, onwards))
            else:
                return None
            before = there
    return found


def _is_key(shape: TableShape, names: Iterable[str]) -> bool:
    return set(shape.key) == set(names)


class Following(Relation):
    """What one `CopyColumn` makes of the rows of its target.

    :ivar target: its table.
    :ivar tables: this, and those of the paths.
    :ivar column: the column that is copied.
    """

    def __init__(self, copied: Copy) -> None:
        self.target: TableName = copied.target
        self.tables: frozenset[TableName] = frozenset((copied.target, *copied.others))
        self.bound = frozenset((copied.target,))
        self.column = copied.column
        self._copied = copied

    def obstacle(self, old: Shapes, new: Shapes) -> str | None:  # noqa: ARG002 - both know the tables
        """See `Relation.obstacle`."""
        links = _links(self._copied, old)
        if links is None:
            return f"what {self._copied.title} follows is not found by a primary key, which is not modelled"
        if self._copied.keeps and not self._always_finds(old, links):
            return (
                f"{self._copied.title} is NOT NULL, and the generated rows may lead to no value, which is not modelled"
            )
        return None

    def link(self, old: dict[TableName, TableShape], new: dict[TableName, TableShape]) -> None:
        """See `Relation.link`."""
        for name, link in _links(self._copied, old) or ():
            for shapes in (old, new):
                shapes[name] = replace(shapes[name], links=(*shapes[name].links, link))

    def _always_finds(self, shapes: Shapes, links: Sequence[tuple[TableName, Link]]) -> bool:
        """Whether a row always leads to one that has a value."""
        for path in self._copied.paths:
            before, sure = shapes[self.target], not shapes[path.hops[-1].place].columns[path.column].nullable
            for hop in path.hops:
                referred = tuple(hop.on.values())
                link = Link(columns=tuple(hop.on), table=hop.place, referred=referred)
                known = (*before.links, *(one for name, one in links if name == before.name))
                sure = sure and link in known and not any(before.columns[name].nullable for name in hop.on)
                before = shapes[hop.place]
            if sure:
                return True
        return False

    # -- what is found -----------------------------------------------------------------------------------------------

    def found(self, row: Values, rows: Rows) -> Any:
        """What the paths find for a row of the target; ANY where nobody but the server knows."""
        try:
            for path in self._copied.paths:
                value = next((value for value in self._said(path, 0, row, rows) if value is not None), None)
                if value is not None:
                    return value
        except _Unknown:
            return ANY
        return None

    def _said(self, path: Path, position: int, row: Values, rows: Rows) -> Iterator[Any]:
        """What the path finds from a row of one of its tables, the one that counts first."""
        if position == len(path.hops):
            if row[path.column] is ANY:
                raise _Unknown
            yield row[path.column]
            return
        hop = path.hops[position]
        reached = [worlds for worlds in rows(hop.place) if any(_leads(hop, row, world) for world in worlds)]
        if any(len(worlds) > 1 for worlds in reached):
            raise _Unknown
        values = [worlds[0].values for worlds in reached if worlds[0].values is not None]
        if any(one[name] is ANY for one in values for name in hop.key):
            raise _Unknown
        for one in sorted(values, key=lambda one: [one[name] for name in hop.key]):
            yield from self._said(path, position + 1, one, rows)

    # -- what it makes of the column ---------------------------------------------------------------------------------

    @property
    def _image(self) -> str:
        """Where a world has what was found when it was last asked."""
        return self._copied.image

    def filled(self, world: World, rows: Rows) -> World:
        """The row once the backfill has asked for it."""
        if world.values is None:
            return world
        found = self.found(world.values, rows)
        return replace(world, values={**world.values, self._copied.column: found, self._image: found})

    def inserted(self, world: World, rows: Rows) -> Iterator[World]:
        """The row once the triggers have asked for it."""
        if world.values is None:
            yield world
        else:
            fresh = replace(world, values={**world.values, self._image: None})
            yield from self._asked(fresh, self.found(world.values, rows))

    def follow(self, written: Written, items: Items, rows: Rows, *, sure: bool) -> Iterable[Item]:
        """See `Relation.follow`."""
        written = [(item, before) for item, before in written if item.table in self.tables - {self.target}]
        for target in items(self.target) if written else ():
            concerning = [one for one in written if self._concerns(target, *one)]
            if concerning:
                target.worlds = distinct(
                    after
                    for world in target.worlds
                    for after in (
                        *self._followed(world, rows, several=len(concerning) > 1),
                        *(() if sure else (world,)),
                    )
                )
        return ()

    def _concerns(self, target: Item, item: Item, before: Sequence[World]) -> bool:
        """Whether a row may be on the way from a target; certainly not if it is next to another one."""
        firsts = [path.hops[0] for path in self._copied.paths]
        if any(item.table == hop.place for path in self._copied.paths for hop in path.hops[1:]):
            return True
        return any(
            hop.place == item.table and world.values is not None and _leads(hop, world.values, there)
            for hop in firsts
            for world in target.worlds
            for there in (*before, *item.worlds)
        )

    def _followed(self, world: World, rows: Rows, *, several: bool) -> Iterator[World]:
        row = world.values
        if row is None:
            yield world
            return
        found = self.found(row, rows)
        yield from self._asked(world, found)
        if several and not (found is None and self._copied.keeps):
            # Servers that look at the rows one after the other may have seen another value in between.
            yield replace(world, values={**row, self._copied.column: found, self._image: found})

    def _asked(self, world: World, found: Any) -> Iterator[World]:
        row = world.values
        assert row is not None  # noqa: S101 - the callers look
        image, held = row.get(self._image), row[self._copied.column]
        stays = replace(world, values={**row, self._image: found})
        follows = replace(world, values={**row, self._copied.column: found, self._image: found})
        first = self._copied.winner == "new" and image is None
        if found is None and self._copied.keeps:
            yield world
        elif found is ANY or image is ANY or (first and held is ANY):
            yield from (stays, follows)
        else:
            yield stays if same(found, image) or (first and held is not None) else follows


def _leads(hop: Hop, row: Values, there: World) -> bool:
    values = there.values
    return values is not None and all(
        row[here] is not None and same(row[here], values[name]) for here, name in hop.on.items()
    )


class CopyingOracle(TableOracle):
    """The model of a table with columns that follow other tables.

    It can only tell what a write makes of a row once it was given the other tables' rows by `of`.
    """

    alone = False

    def __init__(
        self,
        *,
        old: TableShape,
        new: TableShape,
        sync: Sync | None,
        followings: Sequence[Following],
        conditions: Sequence[expressions.Expression] = (),
    ) -> None:
        super().__init__(old=old, new=new, sync=sync, conditions=conditions)
        self._followings = followings
        self.rows: Rows = _nothing

    @property
    def proposed(self) -> frozenset[str]:
        """See `TableOracle.proposed`."""
        return frozenset(following.column for following in self._followings)

    def of(self, rows: Rows) -> Self:
        """See `TableOracle.of`."""
        mine = copy(self)
        mine.rows = rows
        return mine

    def insert(self, given: Mapping[str, Any], stage: Stage) -> list[World]:
        """See `TableOracle.insert`."""
        worlds = super().insert(given, stage)
        for following in self._followings if stage is Stage.BOTH else ():
            worlds = [after for world in worlds for after in following.inserted(world, self.rows)]
        return distinct(worlds)

    def moved(self, worlds: list[World], stage: Stage) -> list[World]:
        """See `TableOracle.moved`."""
        moved = super().moved(worlds, stage)
        for following in self._followings if stage is Stage.BOTH else ():
            moved = [following.filled(world, self.rows) for world in moved]
        return distinct(moved)


def _nothing(_table: TableName) -> Iterable[Sequence[World]]:
    return ()
