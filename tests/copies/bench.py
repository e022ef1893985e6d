"""A column that follows other tables, on a server, and a model of it that shares no code with the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from contraflow import CopyColumn, Source, Through
from contraflow.copies import BackfillCopy, Copy
from contraflow.dialects.copying import copy_fill, copy_probe, copy_repair
from contraflow.lens import Side
from contraflow.operations.base import TableName
from contraflow.operations.planning import plan
from contraflow.steps import Hold, Online, RemovePair
from tests.dialects.support import attached
from tests.servers.shared import Database
from tests.upgrades import upgrade_of
from tests.workbench import Workbench

Values = Mapping[str, Any]

META = sa.MetaData()
_number: Any = {"primary_key": True, "autoincrement": False}
GOODS = sa.Table(
    "goods",
    META,
    sa.Column("id", sa.Integer, **_number),
    sa.Column("maker", sa.Integer, index=True),
    sa.Column("note", sa.String(9)),
)
"""The target. The new column is called ``place``."""
LABELS = sa.Table(
    "labels",
    META,
    sa.Column("good", sa.Integer, **_number),
    sa.Column("place", sa.String(9)),
    sa.Column("note", sa.String(9)),
)
"""A child: at most one for each good."""
STORED = sa.Table(
    "stored",
    META,
    sa.Column("id", sa.Integer, **_number),
    sa.Column("good", sa.Integer, nullable=False, index=True),
    sa.Column("store", sa.Integer, index=True),
    sa.Column("note", sa.String(9)),
)
"""Between goods and stores: any number for each."""
STORES = sa.Table(
    "stores",
    META,
    sa.Column("id", sa.Integer, **_number),
    sa.Column("place", sa.String(9)),
    sa.Column("note", sa.String(9)),
)
"""Also the makers'."""
TABLES = {table.name: table for table in META.sorted_tables}
NEW_GOODS = GOODS.to_metadata(sa.MetaData())
NEW_GOODS.append_column(sa.Column("place", sa.String(9)))

LABEL = Source(table="labels", column="place", on={"id": "good"})
MAKER = Source(table="stores", column="place", on={"maker": "id"})
STORE = Source(table="stores", column="place", on={"store": "id"}, through=[Through(table="stored", on={"id": "good"})])


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One copy."""

    name: str
    sources: tuple[Source, ...]
    winner: Literal["old", "new"] = "new"
    keeps: bool = False


SCENES = (
    Scene(name="a child, then through a table", sources=(LABEL, STORE)),
    Scene(name="a parent, keeping the last value", sources=(MAKER,), keeps=True),
    Scene(
        name="through a table, then a parent, which is the same; the old release wins",
        sources=(STORE, MAKER),
        winner="old",
    ),
)


@dataclass(kw_only=True)
class Model:
    """What the tables hold, by table and key."""

    scene: Scene
    rows: dict[str, dict[int, dict[str, Any]]] = field(default_factory=lambda: {name: {} for name in TABLES})
    images: dict[int, Any] = field(default_factory=dict)
    """What was found for a good when it was last asked."""
    installed: bool = False

    def found(self, good: int) -> Any:
        """What the sources say of a good now."""
        for source in self.scene.sources:
            if (value := self._said(source, good)) is not None:
                return value
        return None

    def _said(self, source: Source, good: int) -> Any:
        stores = self.rows["stores"]
        if source is LABEL:
            return self.rows["labels"].get(good, {}).get("place")
        if source is MAKER:
            return stores.get(self.rows["goods"][good]["maker"], {}).get("place")
        listed = sorted((key, row["store"]) for key, row in self.rows["stored"].items() if row["good"] == good)
        places = [stores.get(store, {}).get("place") for _, store in listed]
        return next((place for place in places if place is not None), None)

    def ask(self, good: int, *, given: bool = False) -> None:
        """Follow; ``given``: the statement itself says what the column holds."""
        found, row = self.found(good), self.rows["goods"][good]
        if found == self.images.get(good) or (found is None and self.scene.keeps):
            return
        mine = self.scene.winner == "new" and (given or (self.images.get(good) is None and row["place"] is not None))
        if not mine:
            row["place"] = found
        self.images[good] = found

    def settle(self) -> None:
        """After any statement: whatever concerns a good is asked of it."""
        for good in self.rows["goods"] if self.installed else ():
            self.ask(good)

    def insert(self, table: str, key: int, given: Values) -> None:
        names = [column.name for column in TABLES[table].columns if not column.primary_key]
        self.rows[table][key] = {**dict.fromkeys([*names, *(["place"] if table == "goods" else [])]), **given}
        self.settle()

    def update(self, table: str, keys: Sequence[int], given: Values) -> None:
        for key in keys:
            if key not in self.rows[table]:
                continue
            row = self.rows[table][key]
            changed = {name: value for name, value in given.items() if row[name] != value}
            row.update(given)
            if table == "goods" and self.installed and "maker" in changed:
                self.ask(key, given="place" in changed)
        self.settle()

    def upsert(self, table: str, key: int, given: Values) -> None:
        if key in self.rows[table]:
            self.update(table, [key], given)
        else:
            self.insert(table, key, given)

    def delete(self, table: str, keys: Sequence[int]) -> None:
        for key in keys:
            self.rows[table].pop(key, None)
            if table == "goods":
                self.images.pop(key, None)
        self.settle()

    def rekey(self, table: str, key: int, to: int) -> None:
        self.rows[table][to] = self.rows[table].pop(key)
        if table == "goods":
            image = self.images.pop(key, None)
            self.images[to] = image
        self.settle()


@dataclass(kw_only=True)
class Bench(Workbench):
    """The tables on a server."""

    scene: Scene
    copy: Copy
    expand: Sequence[Hold]

    @classmethod
    def made(cls, database: Database, scene: Scene) -> Bench:
        """Create the tables, and the new columns; no triggers yet."""
        connection, adapter = attached(database)
        META.create_all(connection)
        place = sa.Column("place", sa.String(9), nullable=not scene.keeps)
        operation = CopyColumn(table="goods", column=place, sources=scene.sources, winner=scene.winner)
        upgrade = upgrade_of(operation, new="r")
        tables: dict[TableName, sa.Table] = {(None, name): table for name, table in TABLES.items()}
        phases = plan(upgrade, tables)
        steps = [block.step for block in phases.migrate if isinstance(block, Online)]
        (copy,) = [step.copy for step in steps if isinstance(step, BackfillCopy)]
        holds = [block for block in phases.expand if isinstance(block, Hold)]
        bench = cls(scene=scene, connection=connection, adapter=adapter, copy=copy, expand=holds)
        bench.install()
        return bench

    def install(self) -> None:
        """As expand does."""
        for hold in self.expand:
            self.hold(hold)

    def remove(self) -> None:
        """Take the triggers away, and the rows."""
        self.remove_triggers()
        for table in TABLES.values():
            self.run(sa.delete(table))

    def remove_triggers(self) -> None:
        """As contract and rollback do."""
        for place in (self.copy.target, *self.copy.others):
            step = RemovePair(table=place[1], name=self.copy.stem(place))
            self.hold(Hold(title="", table=place[1], steps=(step,)))

    def table(self, name: Any) -> sa.Table:
        return NEW_GOODS if name == "goods" else TABLES[name]

    def missed(self) -> int:
        """The rows that a verification counts."""
        text = copy_probe(self.copy, self.adapter.product, self.adapter.compiler)
        return self.count(text.unsynced, *(query for _, query in text.differing))

    def backfill(self) -> int:
        """Fill all rows, three at a time."""
        return self.fill(copy_fill(self.copy, self.adapter.product, self.adapter.compiler, estimate="SELECT 0"))

    def repair(self, side: Side) -> int:
        compiler = self.adapter.compiler
        return self.fill(copy_repair(self.copy, side, self.adapter.product, compiler, estimate="SELECT 0"))
