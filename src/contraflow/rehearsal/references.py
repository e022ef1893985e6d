"""The model of rows that refer to rows of another table: by its natural key in one release, by its key in the other.

Each client refers to rows of its own only, so what it knows of both tables tells exactly what either release reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from contraflow.operations.references import ReferColumns
from contraflow.rehearsal.oracle import Rows, TableOracle, World, distinct
from contraflow.rehearsal.relations import Items, Relation, Shapes, Written
from contraflow.rehearsal.rule import Group, Values, same
from contraflow.rehearsal.shapes import ANY, Link, TableShape
from contraflow.syncs import Sync

if TYPE_CHECKING:
    from typing_extensions import Self

    from contraflow import expressions
    from contraflow.operations.base import TableName
    from contraflow.rehearsal.transactions import Item

__all__ = ["Reference", "ReferringOracle"]


class Reference(Relation):
    """What makes rows of a table refer to those of another one by other columns in each release.

    :ivar table: the table whose rows refer.
    :ivar to: the table that they refer to.
    :ivar column: the column by which they do so for the new release, to ``key``.
    :ivar columns: those by which they do so for the old one, each with what it refers to.
    :param follows: those that are referred to may change what they are known by.
    :param creates: they are made where there are none.
    :param lossy: something alike is found, too.
    """

    def __init__(
        self,
        *,
        table: TableName,
        to: TableName,
        column: str,
        columns: Mapping[str, str],
        key: str,
        follows: bool = True,
        creates: bool = False,
        lossy: bool = False,
    ) -> None:
        self.table = table
        self.to = to
        self.tables = frozenset((self.table, self.to))
        self.bound = frozenset((self.table,))
        self.column = column
        self.columns = dict(columns)
        self.key = key
        self._follows = follows
        self._creates = creates
        self._lossy = lossy
        self._nulls: frozenset[str] = frozenset()

    @classmethod
    def declared(cls, operation: ReferColumns) -> Self:
        """What one `ReferColumns` makes of the rows of its two tables."""
        return cls(
            table=(operation.schema, operation.table),
            to=(operation.schema, operation.to),
            column=operation.column.name,
            columns=operation.columns,
            key=operation.key,
            creates=operation.create,
            lossy=operation.lossy,
        )

    def obstacle(self, old: Shapes, new: Shapes) -> str | None:
        """See `Relation.obstacle`."""
        if self._creates:
            return f"rows of {self.to[1]} are made for those that refer to them, which is not modelled"
        for shape, columns in ((old[self.table], set(self.columns)), (new[self.table], {self.column})):
            if columns & set(shape.key):
                return f"the primary key of {self.table[1]} refers to {self.to[1]}, which is not modelled"
        return None

    def link(self, old: dict[TableName, TableShape], new: dict[TableName, TableShape]) -> None:
        """See `Relation.link`."""
        mine, theirs = old[self.table].columns, old[self.to].columns
        if len(self.columns) > 1:
            self._nulls = frozenset(
                name for name, there in self.columns.items() if mine[name].nullable and theirs[there].nullable
            )
        natural = Link(
            columns=tuple(self.columns),
            table=self.to,
            referred=tuple(self.columns.values()),
            moves=True,
            nulls=self._nulls,
        )
        by_key = Link(columns=(self.column,), table=self.to, referred=(self.key,), moves=True)
        for shapes, link in ((old, natural), (new, by_key)):
            shape = shapes[self.table]
            others = (one for one in shape.links if not set(one.columns) & set(link.columns))
            shapes[self.table] = replace(shape, links=(*others, link))
            if self._follows:
                to = shapes[self.to]
                shapes[self.to] = replace(to, followed=to.followed | {*self.columns.values(), self.key})

    # -- the lens ----------------------------------------------------------------------------------------------------

    def forward(self, row: Values, rows: Rows) -> Values:
        """The key of the row that the natural key means."""
        natural = [(there, row[here], here in self._nulls) for here, there in self.columns.items()]
        if any(value is ANY for _, value, _ in natural):
            return {self.column: ANY}
        if all(value is None for _, value, _ in natural):
            return {self.column: None}
        for there in _values(rows(self.to)):
            if all(same(there[name], value) and (value is not None or nulls) for name, value, nulls in natural):
                return {self.column: there[self.key]}
        # Something alike that is not the same may be there, which only the server's collation knows.
        return {self.column: ANY if self._lossy else None}

    def backward(self, row: Values, rows: Rows) -> Values:
        """The natural key of the row that the key means."""
        key = row[self.column]
        if key is ANY:
            return dict.fromkeys(self.columns, ANY)
        for there in _values(rows(self.to)) if key is not None else ():
            if same(there[self.key], key):
                return {here: there[name] for here, name in self.columns.items()}
        return dict.fromkeys(self.columns)

    # -- while both releases write -----------------------------------------------------------------------------------

    def follow(
        self,
        written: Written,
        items: Items,
        rows: Rows,  # noqa: ARG002 - what a copy asks
        *,
        sure: bool,  # noqa: ARG002 - natural keys do not change else
    ) -> Iterable[Item]:
        """See `Relation.follow`."""
        for item, before in written:
            for other in items(self.table) if item.table == self.to else ():
                other.worlds = distinct(
                    after for world in other.worlds for after in self._followed(world, before, item.worlds)
                )
        return ()

    def _followed(self, world: World, before: Sequence[World], after: Sequence[World]) -> Iterator[World]:
        row = world.values
        held = [one.values for one in before if one.values is not None]
        if row is None:
            yield world
        elif row[self.column] is ANY:
            yield replace(world, values={**row, **dict.fromkeys(self.columns, ANY)}) if held else world
        elif any(same(row[self.column], one[self.key]) for one in held):
            for there in after:
                yield self._referring(world, row, there.values, held)
        else:
            yield from (self._adopted(world, row, there.values) for there in after)

    def _referring(self, world: World, row: Values, there: Values | None, held: Sequence[Values]) -> World:
        if there is None:
            return replace(world, values={**row, self.column: None})
        names = (self.key, *self.columns.values())
        if len(held) == 1 and all(same(there[name], held[0][name]) for name in names):
            return world
        natural = {here: there[name] for here, name in self.columns.items()}
        return replace(world, values={**row, **natural, self.column: there[self.key]})

    def _adopted(self, world: World, row: Values, there: Values | None) -> World:
        """A row that refers to nothing refers to what comes to be meant by it."""
        if there is None or row[self.column] is not None or all(row[here] is None for here in self.columns):
            return world
        if all(
            same(row[here], there[name]) and (row[here] is not None or here in self._nulls)
            for here, name in self.columns.items()
        ):
            return replace(world, values={**row, self.column: there[self.key]})
        return world


def _values(found: Iterable[Sequence[World]]) -> Iterator[Values]:
    return (world.values for worlds in found for world in worlds if world.values is not None)


class ReferringOracle(TableOracle):
    """The model of a table whose rows refer to rows of others.

    It can only tell what a write makes of a row once it was given the other tables' rows by `of`.
    """

    alone = False

    def __init__(
        self,
        *,
        old: TableShape,
        new: TableShape,
        sync: Sync,
        references: Sequence[Reference],
        conditions: Sequence[expressions.Expression] = (),
    ) -> None:
        super().__init__(old=old, new=new, sync=sync, conditions=conditions)
        self._references = {reference.column: reference for reference in references}
        self._compiled = self.groups

    def of(self, rows: Rows) -> Self:
        """See `TableOracle.of`."""
        mine = copy(self)
        mine.groups = tuple(self._looked_up(group, rows) for group in self._compiled)
        return mine

    def _looked_up(self, group: Group, rows: Rows) -> Group:
        names = [cell.name for cell in group.new]
        if len(names) != 1 or names[0] not in self._references:
            return group
        reference = self._references[names[0]]
        return replace(group, forward=_with(reference.forward, rows), backward=_with(reference.backward, rows))


def _with(image: Callable[[Values, Rows], Values], rows: Rows) -> Callable[[Values], Values]:
    return lambda row: image(row, rows)
