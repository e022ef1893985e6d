"""The model of whole rows that live in other tables for the new release: a table's copy, its split, the merge of two.

A row of the whole table and its row in a part are two rows here, as each is written by whichever release has it: a
write of one is carried over to the other one at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from contraflow import expressions
from contraflow.rehearsal.oracle import ABSENT, Rows, TableOracle, World, distinct
from contraflow.rehearsal.relations import Items, Relation, Shapes, Written
from contraflow.rehearsal.rule import Side, Values, same
from contraflow.rehearsal.shapes import ANY, TableShape
from contraflow.rehearsal.transactions import Item
from contraflow.syncs import Pair, PairTable

if TYPE_CHECKING:
    from contraflow.operations.base import TableName
    from contraflow.rehearsal.transactions import Key

__all__ = ["PartOracle", "Parts"]


class PartOracle(TableOracle):
    """The model of one of the tables: what it holds by its own statements."""

    alone = False


class Parts(Relation):
    """What one `CopyTable`, `SplitTable` or `MergeTables` makes of the rows of its tables.

    :param pairs: the whole table with each of its parts.
    :param models: the model of each table, once there is one.
    :ivar whole: the table that has all rows.
    :ivar tables: this, and its parts.
    """

    def __init__(self, pairs: Sequence[Pair], models: Mapping[TableName, TableOracle]) -> None:
        self.whole: TableName = (pairs[0].main.schema, pairs[0].main.table)
        self.tables: frozenset[TableName] = frozenset((self.whole, *map(_part, pairs)))
        self.bound = self.tables
        self._pairs = {_part(pair): pair for pair in pairs}
        self._models = models
        self._first: Side = "old" if pairs[0].old == "main" else "new"
        """The release that has the whole table."""

    def obstacle(self, old: Shapes, new: Shapes) -> str | None:
        """See `Relation.obstacle`."""
        shapes = [found[name] for name in sorted(self.tables, key=str) for found in (old, new) if name in found]
        for shape in shapes:
            if shape.automatic is not None and shape.columns[shape.automatic].identity is not None:
                return f"{shape.title} numbers its rows itself, and another table gets the same keys from elsewhere"
        whole = (old if self._first == "old" else new)[self.whole]
        reads = {name for pair in self._pairs.values() for name in _reads(pair)}
        if any(whole.default(name) is ANY for name in reads):
            return f"the server makes what {whole.title} is told apart by"
        return None

    def link(self, old: dict[TableName, TableShape], new: dict[TableName, TableShape]) -> None:
        """See `Relation.link`: what one table demands of a row, the workload obeys in the other one, too."""
        for shapes, name in ((shapes, name) for shapes in (old, new) for name in self.tables if name in shapes):
            # Keys come from one place, which is the workload, whether a server could number the rows or not.
            shapes[name] = replace(shapes[name], made=shapes[name].made - {*shapes[name].key})
        first, second = (old, new) if self._first == "old" else (new, old)
        for part in self._pairs:
            if self._first == "old":
                second[part] = _obeying(second[part], first[self.whole])
            else:
                first[self.whole] = _obeying(first[self.whole], second[part])

    def side(self, table: TableName, shape: TableShape) -> Sequence[expressions.Expression]:
        """The condition that rows of a part meet which has the columns for it."""
        pair = self._pairs.get(table)
        if pair is None or pair.where is None or not set(_reads(pair)) <= set(shape.columns):
            return ()
        return (pair.where,)

    # -- while both releases write -----------------------------------------------------------------------------------

    def begin(self, items: Items) -> Iterator[Item]:
        """See `Relation.begin`."""
        for part, pair in self._pairs.items():
            if self._first == "old":
                for item in items(self.whole):
                    worlds = distinct(self._in_part(part, pair, world, ABSENT) for world in item.worlds)
                    yield from self._made(item, part, worlds)
            else:
                for item in items(part):
                    worlds = distinct(self._in_whole(pair, world, ABSENT) for world in item.worlds)
                    yield from self._made(item, self.whole, worlds)

    def beside(self, item: Item, items: Items) -> Iterator[Item]:
        """See `Relation.beside`."""
        for table in self.tables - {item.table} if item.table in self.tables else ():
            other = _find(items(table), item.key)
            if other is not None:
                yield other

    def follow(
        self,
        written: Written,
        items: Items,
        rows: Rows,  # noqa: ARG002 - what a copied column asks
        *,
        sure: bool,
    ) -> Iterator[Item]:
        """See `Relation.follow`."""
        for item, before in written:
            if item.table == self.whole:
                yield from self._carried_out(item, before, items, self._pairs, sure=sure)
            elif item.table in self._pairs:
                whole = _find(items(self.whole), item.key)
                earlier = whole.worlds if whole is not None else []
                yield from self._carried_in(item, before, whole, sure=sure)
                if whole is not None:
                    others = {part: pair for part, pair in self._pairs.items() if part != item.table}
                    yield from self._carried_out(whole, earlier, items, others, sure=sure)

    def _carried_out(
        self, item: Item, before: Sequence[World], items: Items, pairs: Mapping[TableName, Pair], *, sure: bool
    ) -> Iterator[Item]:
        """What the parts hold once a row of the whole table was written."""
        for part, pair in pairs.items():
            there = _find(items(part), item.key)
            present = there.worlds if there is not None else [ABSENT]
            worlds = [
                self._in_part(part, pair, world, one) if change else one
                for world, one in product(item.worlds, present)
                for change in _changes(pair.main, before, world)
            ]
            yield from self._settled(item, part, there, worlds if sure else [*present, *worlds])

    def _carried_in(self, item: Item, before: Sequence[World], whole: Item | None, *, sure: bool) -> Iterator[Item]:
        """What the whole table holds once a row of a part was written."""
        pair = self._pairs[item.table]
        present = whole.worlds if whole is not None else [ABSENT]
        worlds = [
            self._in_whole(pair, world, one) if change else one
            for world, one in product(item.worlds, present)
            for change in _changes(pair.companion, before, world)
        ]
        yield from self._settled(item, self.whole, whole, worlds if sure else [*present, *worlds])

    def _settled(self, item: Item, table: TableName, there: Item | None, worlds: Iterable[World]) -> Iterator[Item]:
        if there is not None:
            there.worlds = distinct(worlds)
        else:
            yield from self._made(item, table, distinct(worlds))

    @staticmethod
    def _made(item: Item, table: TableName, worlds: list[World]) -> Iterator[Item]:
        if any(world.values is not None for world in worlds):
            yield Item(table=table, key=dict(item.key), worlds=worlds, parents=item.parents, history=item.history)

    # -- one row -----------------------------------------------------------------------------------------------------

    def _in_part(self, part: TableName, pair: Pair, whole: World, present: World) -> World:
        row = whole.values
        if row is None or not self._belongs(pair, row):
            return ABSENT
        second: Side = "new" if self._first == "old" else "old"
        there = present.values or self._fresh(part, second, pair.companion, row)
        return World({**there, **self._image(part, pair.to_companion, row)}, synced=True)

    def _in_whole(self, pair: Pair, companion: World, present: World) -> World:
        row = companion.values
        if row is None:
            gone = present.values is not None and self._belongs(pair, present.values)
            return ABSENT if gone else present
        there = present.values or self._fresh(self.whole, self._first, pair.main, row)
        return World({**there, **self._image(self.whole, pair.to_main, row)}, synced=True)

    def _fresh(self, table: TableName, release: Side, end: PairTable, row: Values) -> Values:
        """A row that the sync inserts, before the columns that it fills."""
        shape = self._models[table].shape(release)
        return {**{name: shape.default(name) for name in shape.columns}, **{one.name: row[one.name] for one in end.key}}

    @staticmethod
    def _belongs(pair: Pair, row: Values) -> bool:
        return pair.where is None or bool(expressions.evaluate(pair.where, row))

    def _image(self, table: TableName, images: Mapping[str, Any], row: Values) -> Values:
        image = {
            name: ANY
            if any(row.get(source) is ANY for source in expressions.references(expression))
            else expressions.evaluate(expression, row)
            for name, expression in images.items()
        }
        return self._models[table].coerced(image)


def _obeying(shape: TableShape, other: TableShape) -> TableShape:
    """The shape with the constraints of another one on columns that both have."""
    common = [name for name in shape.columns if name in other.columns]
    for name in common:
        needed = not (shape.columns[name].nullable and other.columns[name].nullable)
        shape.columns[name].nullable = other.columns[name].nullable = not needed
    known = {*shape.unique, shape.key}
    linked = {link.columns for link in shape.links}
    return replace(
        shape,
        unique=(*shape.unique, *(one for one in other.unique if one not in known and set(one) <= set(common))),
        links=(
            *shape.links,
            *(link for link in other.links if link.columns not in linked and set(link.columns) <= set(common)),
        ),
    )


def _part(pair: Pair) -> TableName:
    return pair.companion.schema, pair.companion.table


def _reads(pair: Pair) -> Iterable[str]:
    return () if pair.where is None else expressions.references(pair.where)


def _find(items: Iterable[Item], key: Key) -> Item | None:
    return next((item for item in items if item.key == key), None)


def _changes(end: PairTable, before: Sequence[World], after: World) -> set[bool]:
    """Whether a write may have changed what the other table hears of."""
    found: set[bool] = set()
    for world in before or [ABSENT]:
        if world.values is None or after.values is None:
            found.add((world.values is None) != (after.values is None))
            continue
        cells = [(world.values[name], after.values[name]) for name in end.columns]
        if any(one is not two and ANY in (one, two) for one, two in cells):
            return {True, False}
        found.add(any(not same(one, two) for one, two in cells))
    return found
