"""Tables whose rows are kept in step, on a server, and a model of them that shares no code with the compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from contraflow import CopyTable, CreateTable, DropTable, MergeTables, SplitTable
from contraflow.dialects.pair_queries import pair_backfill, pair_probe, pair_repair
from contraflow.lens import Side
from contraflow.operations.base import Operation, TableName
from contraflow.operations.planning import plan
from contraflow.steps import BackfillPair, Block, Hold, MakeTable, Online, RemovePair
from contraflow.syncs import Pair
from tests.dialects.support import attached
from tests.servers.shared import Database
from tests.upgrades import upgrade_of
from tests.workbench import Workbench

Values = Mapping[str, Any]
COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "note": sa.String(9),
    "total": sa.Integer(),
    "archived": sa.Boolean(),
    "extra": sa.String(9),
}


def made(name: str, *columns: str) -> sa.Table:
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(column, COLUMNS[column]) for column in columns),
    )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The table with all rows, and those that have some of them."""

    name: str
    operations: Sequence[Operation]
    old: Literal["whole", "parts"]
    parts: Mapping[str, tuple[Sequence[str], Values, Callable[[Any], bool]]]
    """By name: the columns, what others hold for the rows, and for which values of ``archived`` they are its rows."""
    tables: Mapping[str, sa.Table]


WHOLE = made("orders", "note", "total", "archived", "extra")
LIVE, OLD = made("live_orders", "note", "total"), made("old_orders", "note", "total", "archived")
OLD_BARE, COPIED = made("old_orders", "note", "total"), made("purchases", "note", "total", "archived")
FIXED = {"live_orders": {"archived": False}, "old_orders": {"archived": True}}


def _is_old(archived: Any) -> bool:
    return bool(archived)


SCENES = (
    Scene(
        name="split",
        operations=[
            CreateTable(definition=LIVE),
            CreateTable(definition=OLD),
            SplitTable(
                table="orders",
                matching="old_orders",
                others="live_orders",
                reads=["archived"],
                where=lambda row: row.archived.is_(True),
                values={"live_orders": FIXED["live_orders"]},
            ),
            DropTable(table="orders"),
        ],
        old="whole",
        parts={
            "live_orders": (("note", "total"), {"archived": False}, lambda archived: not archived),
            "old_orders": (("note", "total", "archived"), {}, _is_old),
        },
        tables={"orders": WHOLE, "live_orders": LIVE, "old_orders": OLD},
    ),
    Scene(
        name="merge",
        operations=[
            CreateTable(definition=WHOLE),
            MergeTables(
                to="orders",
                matching="old_orders",
                others="live_orders",
                reads=["archived"],
                where=lambda row: row.archived.is_(True),
                values=FIXED,
            ),
            DropTable(table="live_orders"),
            DropTable(table="old_orders"),
        ],
        old="parts",
        parts={
            "live_orders": (("note", "total"), {"archived": False}, lambda archived: not archived),
            "old_orders": (("note", "total"), {"archived": True}, _is_old),
        },
        tables={"orders": WHOLE, "live_orders": LIVE, "old_orders": OLD_BARE},
    ),
    Scene(
        name="copy",
        operations=[CreateTable(definition=COPIED), CopyTable(table="orders", to="purchases")],
        old="whole",
        parts={"purchases": (("note", "total", "archived"), {}, lambda _archived: True)},
        tables={"orders": WHOLE, "purchases": COPIED},
    ),
)


@dataclass(kw_only=True)
class Model:
    """All rows by key; the parts' are some of them."""

    scene: Scene
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    def read(self, table: str) -> dict[int, dict[str, Any]]:
        if table == "orders":
            return self.rows
        columns, _, mine = self.scene.parts[table]
        return {key: {name: row[name] for name in columns} for key, row in self.rows.items() if mine(row["archived"])}

    def insert(self, table: str, key: int, given: Values) -> None:
        self.rows[key] = {**dict.fromkeys(COLUMNS), **self._fixed(table), **given}

    def update(self, table: str, keys: Sequence[int], given: Values) -> None:
        mine = self.read(table)
        for key in keys:
            if key in mine and any(mine[key][name] != value for name, value in given.items()):
                self.rows[key].update({**self._fixed(table), **given})

    def upsert(self, table: str, key: int, given: Values) -> None:
        if key in self.read(table):
            self.update(table, [key], given)
        else:
            self.insert(table, key, given)

    def delete(self, table: str, keys: Sequence[int]) -> None:
        for key in keys:
            if key in self.read(table):
                del self.rows[key]

    def rekey(self, table: str, key: int, to: int) -> None:
        if key in self.read(table):
            self.rows[to] = self.rows.pop(key)

    def move(self, table: str, other: str, key: int, given: Values, *, first: str) -> None:  # noqa: ARG002 - alike
        """The row goes in one part, and comes in the other one."""
        columns = self.scene.parts[other][0]
        if first == "insert":  # what only the whole table has is still there
            self.rows[key].update({**dict.fromkeys(columns), **self._fixed(other), **given})
        else:
            self.insert(other, key, given)

    def _fixed(self, table: str) -> Values:
        return {} if table == "orders" else self.scene.parts[table][1]


@dataclass(kw_only=True)
class Bench(Workbench):
    """The tables on a server."""

    scene: Scene
    pairs: Sequence[Pair]
    expand: Sequence[Block]

    @classmethod
    def made(cls, database: Database, scene: Scene) -> Bench:
        """Create the tables, and the markers."""
        connection, adapter = attached(database)
        upgrade = upgrade_of(*scene.operations, new="r")
        whole = scene.old == "whole"
        tables: dict[TableName, sa.Table] = {
            (None, name): table for name, table in scene.tables.items() if (name == "orders") is whole
        }
        for table in tables.values():
            table.create(connection)
        phases = plan(upgrade, tables, write=adapter.condition)
        steps = [block.step for block in phases.migrate if isinstance(block, Online)]
        pairs = [step.pair for step in steps if isinstance(step, BackfillPair)]
        bench = cls(scene=scene, connection=connection, adapter=adapter, pairs=pairs, expand=phases.expand)
        bench.install()
        return bench

    def install(self) -> None:
        """As expand does."""
        for block in self.expand:
            assert isinstance(block, Hold)
            if isinstance(block.steps[0], MakeTable) and self._exists(block.table):
                continue
            self.hold(block)

    def _exists(self, table: str) -> bool:
        return sa.inspect(self.connection).has_table(table)

    def remove_triggers(self) -> None:
        """As contract and rollback do."""
        for pair in self.pairs:
            for end in (pair.main, pair.companion):
                step = RemovePair(table=end.table, name=end.name)
                self.hold(Hold(title="", table=end.table, steps=(step,)))

    def table(self, name: Any) -> sa.Table:
        return self.scene.tables[name]

    def clear(self) -> None:
        for name in self.scene.tables:
            self.run(sa.delete(self.scene.tables[name]))

    def drift(self) -> Iterator[int]:
        """What a verification counts."""
        for pair in self.pairs:
            text = pair_probe(pair, self.adapter.compiler)
            yield self.count(text.unsynced, *(query for _, query in text.differing))

    def move(self, table: str, other: str, key: int, given: Values, *, first: str) -> None:
        if first == "insert":
            self.insert(other, key, given)
        self.delete(table, [key])
        if first != "insert":
            self.insert(other, key, given)

    def backfill(self) -> int:
        """Fill all rows, three at a time."""
        return sum(self.fill(self.adapter.backfill(pair_backfill(pair))) for pair in self.pairs)

    def repair(self, side: Side) -> int:
        compiler, product = self.adapter.compiler, self.adapter.product
        return sum(self.fill(pair_repair(pair, side, product, compiler, estimate="SELECT 0")) for pair in self.pairs)
