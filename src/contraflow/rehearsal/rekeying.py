"""The model of rows that each release knows by a key of its own, and of those that refer to them by it.

Which key the server gives a row for the release that has not inserted it, nobody can foretell. What is known: both
releases know the row by one key each for as long as it is there, and whatever refers to it refers to it by both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contraflow.operations.replacing import KeyReference, ReplaceKey
from contraflow.rehearsal.oracle import Rows, TableOracle, distinct
from contraflow.rehearsal.references import Reference
from contraflow.rehearsal.relations import Items, Relation, Shapes, Written
from contraflow.rehearsal.rule import NOW, Values, same
from contraflow.rehearsal.shapes import ANY, TableShape

if TYPE_CHECKING:
    from contraflow.operations.base import TableName
    from contraflow.rehearsal.transactions import Item, Key

__all__ = ["KeyedReference", "Rekeyed", "RekeyedOracle", "agreed", "taught"]


class RekeyedOracle(TableOracle):
    """The model of a table that each release knows the rows of by a key of its own."""

    alone = False


class Rekeyed(Relation):
    """What one `ReplaceKey` makes of the rows of its table.

    :ivar table: the table whose key is replaced.
    :ivar tables: this, and those whose rows refer to it.
    """

    def __init__(self, declared: ReplaceKey) -> None:
        self.table: TableName = (declared.schema, declared.table)
        self.references = [KeyedReference(declared, one) for one in declared.references]
        self.tables: frozenset[TableName] = frozenset((self.table, *(one.table for one in self.references)))
        self.bound = frozenset()
        self._old = declared.old
        self._new = declared.column.name

    def obstacle(self, old: Shapes, new: Shapes) -> str | None:
        """See `Relation.obstacle`."""
        if (old[self.table].key, new[self.table].key) != ((self._old,), (self._new,)):
            return f"the primary key of {self.table[1]} changes by several operations"
        return None

    def link(self, old: dict[TableName, TableShape], new: dict[TableName, TableShape]) -> None:  # noqa: ARG002 - alike
        """See `Relation.link`."""
        new[self.table] = replace(new[self.table], former=(self._old,))

    def follow(
        self,
        written: Written,  # noqa: ARG002 - keys do not change
        items: Items,  # noqa: ARG002 - likewise
        rows: Rows,  # noqa: ARG002 - likewise
        *,
        sure: bool,  # noqa: ARG002 - likewise
    ) -> Iterable[Item]:
        """See `Relation.follow`."""
        return ()


class KeyedReference(Reference):
    """What one `KeyReference` makes of the rows of its table: they refer by number, and by UUID."""

    def __init__(self, declared: ReplaceKey, reference: KeyReference) -> None:
        super().__init__(
            table=(reference.schema, reference.table),
            to=(declared.schema, declared.table),
            column=reference.new,
            columns={reference.old: declared.old},
            key=declared.column.name,
            follows=False,
        )
        self._here = reference.old
        self._there = declared.old

    def forward(self, row: Values, rows: Rows) -> Values:
        """See `Reference.forward`; ANY while the key that the server gave what is referred to is not known."""
        return _known(super().forward(row, rows), row[self._here])

    def backward(self, row: Values, rows: Rows) -> Values:
        """See `Reference.backward`; likewise."""
        return _known(super().backward(row, rows), row[self.column])

    def follow(
        self,
        written: Written,  # noqa: ARG002 - keys do not change, and no row goes that others refer to
        items: Items,  # noqa: ARG002 - likewise
        rows: Rows,  # noqa: ARG002 - likewise
        *,
        sure: bool,  # noqa: ARG002 - likewise
    ) -> Iterable[Item]:
        """See `Relation.follow`."""
        return ()

    def learned(self, item: Item, items: Items) -> None:
        """See `Relation.learned`."""
        if item.table != self.to:
            return
        number, uid = item.key[self._there], item.key[self.key]
        for other in items(self.table):
            for name, told, known, value in (
                (self.column, self._here, number, uid),
                (self._here, self.column, uid, number),
            ):
                other.worlds = distinct(
                    replace(world, values={**world.values, name: value})
                    if world.values is not None and world.values[name] is ANY and same(world.values[told], known)
                    else world
                    for world in other.worlds
                )


def _known(image: Values, reference: Any) -> Values:
    """The image of a reference: nothing refers to nothing, and what is referred to has a key."""
    if reference is None:
        return image
    return {name: ANY if value is None or value is NOW else value for name, value in image.items()}


def agreed(old: TableShape, new: TableShape, numbered: frozenset[str]) -> tuple[TableShape, TableShape] | str:
    """Both shapes of a table whose primary key changes, with one that both releases may tell its rows by all the time.

    What is unique for one of them is so for both: the workload never repeats it. Without a key that both know, none of
    them has one.

    :param numbered: columns that the upgrade lets the server number.
    :returns: why there is no such key, where rows cannot be told apart by anything else, either.
    """
    # A column that only becomes the key is given by the new release, though some server would number it then.
    new = replace(new, made=new.made - (set(new.key) - old.made - numbered))
    for name in {*old.key, *new.key} & old.made & new.columns.keys():
        column = new.columns[name]
        if column.identity is None and column.server_default is None and column.autoincrement is not True:
            return f"the server numbers {name} for the old release only"
        new = replace(new, made=new.made | {name})
    both = old.columns.keys() & new.columns.keys()
    keys = [key for key in (old.key, new.key) if key and both >= set(key)]
    if old.key and not keys:
        return "its primary key changes, and no release knows both"
    for name in new.key:
        if name in old.columns:
            old.columns[name].nullable = False
    key = keys[0] if keys else ()
    # What only one of them has a constraint for, no statement may count on while both serve.
    keyless = any(key not in (shape.key, *shape.unique) for shape in (old, new))
    return _told_by(old, key, keyless, keys), _told_by(new, key, keyless, keys)


def _told_by(shape: TableShape, key: tuple[str, ...], keyless: bool, keys: Iterable[tuple[str, ...]]) -> TableShape:
    unique = {shape.key, *shape.unique, *keys} - {key, ()}
    return replace(shape, key=key, keyless=keyless and bool(key), unique=tuple(sorted(unique)))


def taught(item: Item, keys: Mapping[str, Any]) -> bool:
    """Remember by which keys each release knows a row; False if one of them does not know it."""
    if any(value is None for value in keys.values()):
        return False
    item.key = {**item.key, **keys}
    item.worlds = distinct(
        world if world.values is None else replace(world, values={**world.values, **_settling(world.values, item.key)})
        for world in item.worlds
    )
    return True


def _settling(row: Values, key: Key) -> Values:
    return {name: value for name, value in key.items() if row[name] is ANY or row[name] is NOW}
