"""The generated workload: transactions of either release, drawn for rows that one client owns."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contraflow.operations.base import TableName
from contraflow.rehearsal.history import KeyHistory
from contraflow.rehearsal.nodes import Statement
from contraflow.rehearsal.oracle import ABSENT, Stage, TableOracle, World
from contraflow.rehearsal.rule import NOW, Side, same
from contraflow.rehearsal.shapes import ANY, Link, TableShape, value_for

__all__ = ["Drawer", "Item", "Key", "Step", "after_update", "in_order"]

Key = dict[str, Any]

_MOVES = 0.4
"""How many of the updates of rows that may refer to another row let them do so."""
_DEPTH = 3
"""How far rows that are made to be referred to may themselves need rows to refer to."""


@dataclass(eq=False, kw_only=True)
class Item:
    """One row that a client knows of.

    :ivar children: how many rows refer to it.
    :ivar partner: its row in a table that is kept in step with this one.
    :ivar shared: whether rows that this client does not know may refer to it.
    """

    table: TableName
    key: Key
    worlds: list[World]
    parents: tuple[Item, ...] = ()
    children: int = 0
    partner: Item | None = None
    shared: bool = False
    history: KeyHistory = field(default_factory=KeyHistory)

    @property
    def certain(self) -> bool:
        """Whether the row is there, whatever else is not known."""
        return all(world.values is not None for world in self.worlds)

    def key_of(self, shape: TableShape) -> Key:
        """The key by which a release knows the row; `knows` tells whether that is known."""
        return {name: self.key[name] for name in shape.key}

    def knows(self, shape: TableShape) -> bool:
        """Whether the key is known by which a release knows the row."""
        return self.key.keys() >= set(shape.key)

    @property
    def title(self) -> str:
        """The key as people write it."""
        return ", ".join(f"{name}={value}" for name, value in self.key.items())


@dataclass(frozen=True, kw_only=True)
class Step:
    """One statement of a transaction.

    :ivar items: the rows that it touches.
    :ivar values: what it writes to each of them; None for a DELETE.
    :ivar after: what each of them may hold once it is committed.
    :ivar fresh: whether it makes them.
    """

    statement: Statement
    items: tuple[Item, ...]
    values: tuple[Mapping[str, Any] | None, ...]
    after: tuple[list[World], ...]
    fresh: bool = False
    referred: Item | None = None
    """The row that all of them come to refer to, besides those that they refer to."""

    @property
    def verb(self) -> str:
        """``insert``, ``upsert``, ``update`` or ``delete``."""
        return str(self.statement[0])


class Drawer:
    """Draws transactions from chance.

    :param tables: the model of each table.
    :param items: the rows that may be used, by table; looked at anew for each transaction.
    :param token: gives a number that nobody else gets.
    :param known: every row of a table that may be there, also such as cannot be used.
    :param followed: whether rows follow those that they are found by, at present.
    """

    def __init__(
        self,
        *,
        tables: Mapping[TableName, TableOracle],
        items: Mapping[TableName, Sequence[Item]],
        token: Callable[[], int],
        rng: random.Random,
        known: Callable[[TableName], Iterable[Item]],
        followed: Callable[[], bool] = bool,
    ) -> None:
        self._known = known
        self._followed = followed
        self._tables = tables
        self._items = items
        self._token = token
        self._rng = rng

    # -- transactions ------------------------------------------------------------------------------------------------

    def insert(self, release: Side, table: TableName, stage: Stage, *, rows: int = 1) -> list[Step]:
        """Insert rows into ``table``, together with the rows they refer to where there are none yet.

        Where the server numbers those, they are all that is inserted: the transaction after this one can refer to
        them. Empty if there is nothing to refer to, and no way to make it.
        """
        steps: list[Step] = []
        drawn: list[tuple[Item, dict[str, Any]]] = []
        shape = self._tables[table].shape(release)
        for _ in range(1 if shape.automatic is not None else rows):
            row = self._row(release, table, stage, steps, drawn, depth=0)
            if row is None:
                break
            drawn.append(row)
        if drawn:
            steps.append(self._inserted(shape, drawn))
        return steps

    def update(self, release: Side, items: Sequence[Item], stage: Stage, *, busy: Sequence[Item] = ()) -> list[Step]:
        """Give rows of one table new values; empty if there is nothing that may change.

        :param busy: rows that the transaction has touched, to which none is to refer now.
        """
        oracle, rng = self._tables[items[0].table], self._rng
        shape = oracle.shape(release)
        once = _distinguishing(shape)
        # Rows that were there before the workload may agree in all other columns of a unique set.
        apart = {*once, *itertools.chain(*shape.unique)}
        free = [name for name in self._free(shape) if len(items) == 1 or name not in apart]
        reference, referred = self._moved(release, shape, items, busy)
        if not free and not reference:
            return []
        values = {
            name: value_for(shape.columns[name], rng, token=self._token() if name in once else None)
            for name in rng.sample(free, rng.randint(1, min(len(free), 4)) if free else 0)
        }
        values.update(reference)
        values = oracle.whole(release, values, rng, self._token)
        after = tuple(after_update(oracle, item, values, stage) for item in items)
        if any(map(oracle.breaks, after)):
            return []
        keys = [item.key_of(shape) for item in items]
        return [
            Step(
                statement=("update", shape.title, keys, values),
                items=tuple(items),
                values=(values,) * len(items),
                after=after,
                referred=referred,
            )
        ]

    def _moved(
        self, release: Side, shape: TableShape, items: Sequence[Item], busy: Sequence[Item]
    ) -> tuple[dict[str, Any], Item | None]:
        """The values that let rows refer to another row, and that row; mostly none."""
        rng = self._rng
        for link in shape.links:
            if not link.moves or rng.random() >= _MOVES:
                continue
            if all(shape.columns[name].nullable for name in link.columns) and rng.random() < _MOVES:
                return dict.fromkeys(link.columns), None
            owned = [item for item in self._items[link.table] if item not in busy]
            parent = rng.choice(owned) if owned else None
            reference = self._reference(release, parent, link) if parent is not None else None
            if parent is not None and any(set(link.columns) & one for one in _all_linked(shape)):
                # At most one row refers to it: not one that others refer to already, nor several at once.
                reference = reference if len(items) == 1 and not (parent.children or parent.shared) else None
            if reference is not None:
                return reference, parent
        return {}, None

    def delete(self, release: Side, items: Sequence[Item]) -> list[Step]:
        """Delete rows of one table that nothing refers to."""
        shape = self._tables[items[0].table].shape(release)
        return [
            Step(
                statement=("delete", shape.title, [item.key_of(shape) for item in items]),
                items=tuple(items),
                values=(None,) * len(items),
                after=([ABSENT],) * len(items),
            )
        ]

    def upsert(self, release: Side, item: Item, stage: Stage) -> list[Step]:
        """INSERT a row that is there, with the clause that updates it instead."""
        oracle = self._tables[item.table]
        if oracle.opaque and release == "new":
            return []  # its writer has no such statement
        shape = oracle.shape(release)
        if shape.keyless:
            return []  # nothing of it is unique
        present = oracle.view(item.worlds[0], release) or {}
        linked = {name: present[name] for link in shape.links for name in link.columns}
        if any(value is ANY for value in linked.values()):
            return []  # nobody knows what it refers to
        values = {**self._values(oracle, release, linked), **item.key_of(shape)}
        free = [name for name in self._free(shape) if name in values and name not in oracle.proposed]
        if not free or not item.certain or len({repr(oracle.view(world, release)) for world in item.worlds}) > 1:
            return []
        assigned = self._rng.sample(free, self._rng.randint(1, min(len(free), 3)))
        written = {name: values[name] for name in assigned}
        # The row that is proposed is looked at, too, although it is not stored.
        after = after_update(oracle, item, written, stage)
        if oracle.breaks(after) or oracle.breaks(oracle.insert(values, stage)):
            return []
        return [
            Step(
                statement=("upsert", shape.title, values, assigned),
                items=(item,),
                values=(written,),
                after=(after,),
            )
        ]

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _inserted(self, shape: TableShape, drawn: Sequence[tuple[Item, dict[str, Any]]]) -> Step:
        return Step(
            statement=("insert", shape.title, [values for _, values in drawn]),
            items=tuple(item for item, _ in drawn),
            values=tuple(values for _, values in drawn),
            after=tuple(item.worlds for item, _ in drawn),
            fresh=True,
        )

    def _row(
        self,
        release: Side,
        table: TableName,
        stage: Stage,
        steps: list[Step],
        others: Sequence[tuple[Item, dict[str, Any]]],
        *,
        depth: int,
    ) -> tuple[Item, dict[str, Any]] | None:
        """A new row, after the steps that make what it refers to; None if it has to wait for those."""
        rng, oracle = self._rng, self._tables[table]
        shape = oracle.shape(release)
        values: dict[str, Any] = {}
        parents: dict[Link, Item] = {}
        for link in shape.links:
            optional = all(shape.columns[name].nullable for name in link.columns)
            chosen = None
            if not (optional and rng.random() < 0.4):
                chosen = self._parent(release, shape, link, parents, stage, steps, others, depth=depth)
            if chosen is not None:
                parent, reference = chosen
                values.update(reference)
                parents[link] = parent
            elif optional:
                values.update(dict.fromkeys(link.columns))
            else:
                return None
        values = self._values(oracle, release, values)
        if others and set(values) != set(others[0][1]):
            # The rows of one statement give the same columns.
            values = {name: values.get(name, self._value(shape, name)) for name in others[0][1]}
        key = {name: values.get(name) for name in shape.key}
        worlds = oracle.insert(values, stage)
        if oracle.breaks(worlds):
            return None
        return Item(table=table, key=key, worlds=worlds, parents=tuple(parents.values())), values

    def _values(self, oracle: TableOracle, release: Side, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values for every column that is not left to its default, besides those that are given."""
        shape, values = oracle.shape(release), dict(given)
        needed = oracle.must_give(release)
        for name, column in shape.columns.items():
            if name in values or name in shape.made:
                continue
            if column.server_default is None or name in needed or name in shape.key or self._rng.random() < 0.5:
                values[name] = self._value(shape, name)
        return oracle.whole(release, values, self._rng, self._token)

    def _value(self, shape: TableShape, name: str) -> Any:
        token = self._token() if name in _distinguishing(shape) else None
        return value_for(shape.columns[name], self._rng, token=token)

    def _parent(
        self,
        release: Side,
        shape: TableShape,
        link: Link,
        parents: Mapping[Link, Item],
        stage: Stage,
        steps: list[Step],
        others: Sequence[tuple[Item, dict[str, Any]]],
        *,
        depth: int,
    ) -> tuple[Item, dict[str, Any]] | None:
        """A row to refer to, besides those that the row refers to by other links, and the values that do so."""
        if link.table not in self._tables or not self._tables[link.table].knows(release):
            return None
        siblings = [*self._known(shape.name), *(item for item, _ in others)]
        for _ in range(4):
            owned = self._items[link.table]
            if owned and self._rng.random() < 0.8:
                parent = self._rng.choice(owned)
            else:
                made = self._made(release, shape, link, stage, steps, depth=depth)
                if made is None:
                    continue
                parent = made
            reference = self._reference(release, parent, link)
            if reference is None:
                continue
            if not _doubles(shape, {**parents, link: parent}, siblings):
                return parent, reference
        return None

    def _free(self, shape: TableShape) -> list[str]:
        """Columns that an UPDATE may change."""
        linked = {name for link in shape.links for name in link.columns}
        fixed = {*shape.key, *shape.made, *linked, *(() if self._followed() else shape.followed)}
        return [name for name in shape.columns if name not in fixed]

    def _reference(self, release: Side, parent: Item, link: Link) -> dict[str, Any] | None:
        """The values that refer to a row; None while they are not certain."""
        if not parent.certain:
            return None
        far = self._tables[link.table].shape(release)
        if link.moves and any(_held(parent, name) is ANY for name in far.followed):
            return None
        found = {name: _held(parent, there) for name, there in zip(link.columns, link.referred, strict=True)}
        lacking = any(value is ANY or (value is None and name not in link.nulls) for name, value in found.items())
        return None if lacking or all(value is None for value in found.values()) else found

    def _made(
        self, release: Side, shape: TableShape, link: Link, stage: Stage, steps: list[Step], *, depth: int
    ) -> Item | None:
        """A new row to refer to, made by the same transaction; None if its key will not be known in time."""
        if depth >= _DEPTH or link.table == shape.name:
            return None
        drawn = self._row(release, link.table, stage, steps, (), depth=depth + 1)
        if drawn is None:
            return None
        far = self._tables[link.table].shape(release)
        steps.append(self._inserted(far, [drawn]))
        return drawn[0] if far.automatic is None else None


def after_update(oracle: TableOracle, item: Item, values: Mapping[str, Any], stage: Stage) -> list[World]:
    """What a row may hold once these values were given to it."""
    return [after for world in item.worlds for after in oracle.update(world, values, stage)]


def _held(item: Item, name: str) -> Any:
    """What the row holds in a column; ANY while that is not certain."""
    values = [item.key.get(name, (world.values or {}).get(name)) for world in item.worlds]
    known = values[0] is not NOW and all(same(value, values[0]) for value in values)
    return values[0] if known else ANY


def _all_linked(shape: TableShape) -> list[set[str]]:
    """The sets of columns that may not repeat, and all of which refer to other rows."""
    linked = {name for link in shape.links for name in link.columns}
    return [set(columns) for columns in (shape.key, *shape.unique) if columns and set(columns) <= linked]


def _doubles(shape: TableShape, parents: Mapping[Link, Item], siblings: Iterable[Item]) -> bool:
    """Whether a row that refers to these may repeat what only one row may hold; rather too often than too rarely."""
    for columns in _all_linked(shape):
        concerned = [parent for link, parent in parents.items() if columns & set(link.columns)]
        covered = {name for link in parents for name in link.columns}
        if columns <= covered and (
            all(parent.shared for parent in concerned)
            or any(all(parent in sibling.parents for parent in concerned) for sibling in siblings)
        ):
            return True
    return False


def _distinguishing(shape: TableShape) -> frozenset[str]:
    """Columns that get a value of their own in each row, so that no unique set and no key repeats."""
    linked = {name for link in shape.links for name in link.columns}
    chosen: set[str] = set()
    for columns in (shape.key, *shape.unique):
        free = [name for name in columns if name in shape.columns and name not in linked and name not in shape.made]
        if free and not chosen & set(free):
            chosen.add(free[-1] if columns == shape.key else free[0])
    return frozenset(chosen)


def in_order(tables: Mapping[TableName, TableOracle]) -> list[TableName]:
    """The old release's tables, those that others refer to first."""
    ordered: list[TableName] = []
    waiting = {name: table.shape("old") for name, table in tables.items() if table.knows("old")}
    while waiting:
        ready = [
            name
            for name, shape in waiting.items()
            if not any(link.table in waiting and link.table != name for link in shape.links)
        ]
        for name in ready or [min(waiting, key=str)]:
            ordered.append(name)
            del waiting[name]
    return ordered
