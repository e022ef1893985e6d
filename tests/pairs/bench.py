"""Two tables with a pair's triggers on them, on one server; and what they must hold, told by a model of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from alembic.operations import ops

from contraflow.dialects.pair_queries import pair_probe, pair_repair
from contraflow.expressions import Ref, lower
from contraflow.lens import Row, Side
from contraflow.steps import AddColumns, Backfill, Hold, InstallPair, RemovePair
from contraflow.syncs import Pair, PairTable, Sync, SyncColumn
from tests.dialects.support import attached
from tests.servers.shared import Database
from tests.workbench import Refused, Workbench

__all__ = ["SCENES", "Bench", "Model", "Refused", "Scene", "Values"]

MARKER = "cf_pair"
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A pair, once as the compiler gets it and once in Python."""

    name: str
    main: Sequence[sa.Column[Any]]
    """The pair's columns in the main table."""
    companion: Sequence[sa.Column[Any]]
    old: Literal["main", "companion"] = "main"
    forward: Callable[[Any], Mapping[str, Any]]
    """From the main table's columns to the companion's, as expressions."""
    backward: Callable[[Any], Mapping[str, Any]]
    to_companion: Callable[[Values], Values]
    """The same in Python."""
    to_main: Callable[[Values], Values]
    values: Mapping[str, Sequence[Any]]
    """What is written into each column, ``table.column``."""
    key: tuple[str, ...] = ("id",)
    companion_key: tuple[str, ...] = ("user_id",)
    tables: tuple[str, str] = ("users", "profiles")
    rowid: bool = True
    goes: bool = False
    """The companion's row goes with the last value."""

    @property
    def nothing(self) -> Values:
        """What the main row holds without a row in the companion table."""
        return self.to_main({column.name: None for column in self.companion})


def _text(name: str, length: int = 20, *, nullable: bool = True, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable, server_default=default)


WORDS = ("a", "B", "b", None)
SCENES = (
    Scene(
        name="split",
        main=[_text("bio"), sa.Column("size", sa.Integer())],
        companion=[_text("bio"), sa.Column("width", sa.Integer())],
        forward=lambda row: {"bio": row.bio, "width": row["size"]},
        backward=lambda row: {"bio": row.bio, "size": row.width},
        to_companion=lambda row: {"bio": row["bio"], "width": row["size"]},
        to_main=lambda row: {"bio": row["bio"], "size": row["width"]},
        values={"users.bio": WORDS, "users.size": (1, 2, None), "profiles.bio": WORDS, "profiles.width": (1, 2, None)},
    ),
    Scene(
        name="join",
        main=[_text("bio"), sa.Column("size", sa.Integer())],
        companion=[_text("bio"), sa.Column("width", sa.Integer())],
        old="companion",
        forward=lambda row: {"bio": row.bio, "width": row["size"]},
        backward=lambda row: {"bio": row.bio, "size": row.width},
        to_companion=lambda row: {"bio": row["bio"], "width": row["size"]},
        to_main=lambda row: {"bio": row["bio"], "size": row["width"]},
        values={"users.bio": WORDS, "users.size": (1, 2, None), "profiles.bio": WORDS, "profiles.width": (1, 2, None)},
    ),
    Scene(
        name="split of columns that may not be NULL, with odd names and two key columns",
        main=[_text("lang'x", nullable=False, default="en"), _text("order", nullable=False, default="")],
        companion=[_text("select", nullable=False), _text("a b", nullable=False)],
        forward=lambda row: {"select": row["lang'x"], "a b": row["order"]},
        backward=lambda row: {
            "lang'x": sa.func.coalesce(row["select"], "en"),
            "order": sa.func.coalesce(row["a b"], ""),
        },
        to_companion=lambda row: {"select": row["lang'x"], "a b": row["order"]},
        to_main=lambda row: {"lang'x": "en" if row["select"] is None else row["select"], "order": row["a b"] or ""},
        values={
            "us er.lang'x": ("en", "de", "En"),
            "us er.order": ("", "x"),
            "pro-file.select": ("en", "de"),
            "pro-file.a b": ("", "x", "y"),
        },
        key=("id", "group"),
        companion_key=("of", "where"),
        tables=("us er", "pro-file"),
        rowid=False,
    ),
    Scene(
        name="split with a lens that loses letters",
        main=[_text("name")],
        companion=[_text("nick")],
        forward=lambda row: {"nick": lower(row["name"])},
        backward=lambda row: {"name": row.nick},
        to_companion=lambda row: {"nick": row["name"] and row["name"].lower()},
        to_main=lambda row: {"name": row["nick"]},
        values={"users.name": WORDS, "profiles.nick": WORDS},
    ),
    Scene(
        name="split whose row goes with its value",
        main=[_text("street")],
        companion=[_text("street", nullable=False)],
        forward=lambda row: {"street": row.street},
        backward=lambda row: {"street": row.street},
        to_companion=lambda row: {"street": row["street"]},
        to_main=lambda row: {"street": row["street"]},
        values={"users.street": WORDS, "profiles.street": ("a", "B", "b")},
        goes=True,
    ),
    Scene(
        name="join of a column that may not be NULL",
        main=[_text("street"), _text("town")],
        companion=[_text("street", nullable=False, default="-"), _text("town")],
        old="companion",
        forward=lambda row: {"street": sa.func.coalesce(row.street, "?"), "town": row.town},
        backward=lambda row: {"street": row.street, "town": row.town},
        to_companion=lambda row: {"street": "?" if row["street"] is None else row["street"], "town": row["town"]},
        to_main=lambda row: {"street": row["street"], "town": row["town"]},
        values={
            "users.street": ("a", None),
            "users.town": WORDS,
            "profiles.street": ("a", "?"),
            "profiles.town": WORDS,
        },
        goes=True,
    ),
)


@dataclass(kw_only=True)
class Model:
    """What both tables must hold after each statement. Knows nothing of triggers or SQL."""

    scene: Scene
    main: dict[int, Values] = field(default_factory=dict)
    companion: dict[int, Values] = field(default_factory=dict)
    synced: set[int] = field(default_factory=set)

    def _full(self, columns: Sequence[sa.Column[Any]], given: Values) -> Values:
        row: Values = {}
        for column in columns:
            default = getattr(column.server_default, "arg", None)
            row[column.name] = given.get(column.name, default)
        return {**row, "note": given.get("note")}

    def _checked(self, columns: Sequence[sa.Column[Any]], row: Values) -> Values:
        for column in columns:
            if not column.nullable and row[column.name] is None:
                raise Refused(f"{column.name} may not be NULL")
        return row

    def _push_main(self, key: int) -> None:
        """The main row was written: its companion follows."""
        row = self.main[key]
        image = self.scene.to_companion(row)
        nothing = self.scene.nothing
        if all(row[name] == value for name, value in nothing.items()):
            if key not in self.companion:
                return
            if self.scene.goes:
                del self.companion[key]
            else:
                self.companion[key] = {**self.companion[key], **image}
        elif key in self.companion:
            self.companion[key] = self._checked(self.scene.companion, {**self.companion[key], **image})
        else:
            self.companion[key] = self._checked(self.scene.companion, {"note": None, **image})

    def _push_companion(self, key: int) -> None:
        if key in self.main:
            image = self.scene.to_main(self.companion[key])
            self.main[key] = self._checked(self.scene.main, {**self.main[key], **image})

    def put(self, on_main: bool, key: int, given: Values) -> None:
        """A row from before the sync."""
        columns = self.scene.main if on_main else self.scene.companion
        (self.main if on_main else self.companion)[key] = self._checked(columns, self._full(columns, given))

    # -- statements on the main table --

    def insert_main(self, key: int, given: Values) -> None:
        if key in self.main:
            raise Refused("duplicate")
        self.main[key] = self._checked(self.scene.main, self._full(self.scene.main, given))
        self._push_main(key)

    def update_main(self, keys: Sequence[int], given: Values) -> None:
        for key in keys:
            if key not in self.main:
                continue
            before = self.main[key]
            self.main[key] = self._checked(self.scene.main, {**before, **given})
            if any(before[column.name] != self.main[key][column.name] for column in self.scene.main):
                self._push_main(key)

    def upsert_main(self, key: int, given: Values) -> None:
        if key in self.main:
            proposed = self._full(self.scene.main, given)
            self._checked(self.scene.main, proposed)
            self.update_main([key], {name: proposed[name] for name in given})
        else:
            self.insert_main(key, given)

    def delete_main(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.main.pop(key, None)
            self.companion.pop(key, None)

    def rekey_main(self, key: int, to: int) -> None:
        self.main[to] = self.main.pop(key)
        if key in self.companion:
            self.companion[to] = self.companion.pop(key)

    # -- statements on the companion table --

    def insert_companion(self, key: int, given: Values) -> None:
        if key in self.companion or key not in self.main:
            raise Refused("duplicate, or no such main row")
        self.companion[key] = self._checked(self.scene.companion, self._full(self.scene.companion, given))
        self._push_companion(key)

    def update_companion(self, keys: Sequence[int], given: Values) -> None:
        for key in keys:
            if key not in self.companion:
                continue
            before = self.companion[key]
            self.companion[key] = self._checked(self.scene.companion, {**before, **given})
            if any(before[column.name] != self.companion[key][column.name] for column in self.scene.companion):
                self._push_companion(key)

    def upsert_companion(self, key: int, given: Values) -> None:
        if key in self.companion:
            proposed = self._checked(self.scene.companion, self._full(self.scene.companion, given))
            self.update_companion([key], {name: proposed[name] for name in given})
        else:
            self.insert_companion(key, given)

    def delete_companion(self, keys: Sequence[int]) -> None:
        for key in keys:
            if self.companion.pop(key, None) is not None:
                self.main[key] = {**self.main[key], **self.scene.nothing}

    def rekey_companion(self, key: int, to: int) -> None:
        """The row is given to another main row: this one now has none."""
        if to in self.companion or to not in self.main:
            raise Refused("duplicate, or no such main row")
        row = self.companion.pop(key)
        self.companion[to] = row
        self.main[key] = {**self.main[key], **self.scene.nothing}
        agrees = all(row[name] == value for name, value in self.scene.to_companion(self.main[to]).items())
        if not agrees:
            self._push_companion(to)

    def backfill(self, keys: Sequence[int]) -> None:
        """Rows of the old table from before the sync."""
        for key in keys:
            if self.scene.old == "main":
                self._push_main(key)
            else:
                self._push_companion(key)


def _columns(columns: Sequence[sa.Column[Any]]) -> list[sa.Column[Any]]:
    return [column._copy() for column in columns]


@dataclass(kw_only=True)
class Bench(Workbench):
    """The two tables of one scene."""

    scene: Scene
    pair: Pair
    main: sa.Table
    companion: sa.Table

    @classmethod
    def made(cls, database: Database, scene: Scene) -> Bench:
        """Create both tables; no triggers yet."""
        connection, adapter = attached(database)
        if adapter.product == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        metadata = sa.MetaData()
        options: Any = {"sqlite_with_rowid": scene.rowid}
        keys = [sa.Column(name, sa.Integer(), primary_key=True, autoincrement=False) for name in scene.key]
        main = sa.Table(scene.tables[0], metadata, *keys, *_columns(scene.main), _text("note"), **options)
        links = [sa.Column(name, sa.Integer(), primary_key=True, autoincrement=False) for name in scene.companion_key]
        reference = sa.ForeignKeyConstraint(
            scene.companion_key, [main.c[name] for name in scene.key], onupdate="CASCADE"
        )
        companion = sa.Table(
            scene.tables[1], metadata, *links, *_columns(scene.companion), _text("note"), reference, **options
        )
        metadata.create_all(connection)
        pair = _pair(scene, main, companion)
        bench = cls(scene=scene, connection=connection, adapter=adapter, pair=pair, main=main, companion=companion)
        for end in (pair.main, pair.companion):
            marker = ops.AddColumnOp(end.table, sa.Column(MARKER, sa.SmallInteger()))
            bench.steps(end.table, AddColumns(table=end.table, columns=(marker,)))
        return bench

    def install(self) -> None:
        """As expand does: the new table's triggers first."""
        ends: list[Literal["main", "companion"]] = ["main", "companion"]
        for on in reversed(ends) if self.pair.old == "main" else ends:
            step = InstallPair(pair=self.pair, on=on)
            self.steps(step.table, step)

    def remove(self) -> None:
        """As contract and rollback do."""
        for end in (self.pair.old_table, self.pair.new_table):
            self.steps(end.table, RemovePair(table=end.table, name=end.name))

    def steps(self, table: str, *steps: Any) -> list[str]:
        """Carry out steps in one hold; the statements that were sent."""
        return self.hold(Hold(title="", table=table, steps=steps))

    def clear(self) -> None:
        """Empty both tables."""
        self.run(sa.delete(self.companion))
        self.run(sa.delete(self.main))

    def markers(self, table: sa.Table) -> dict[int, int | None]:
        """The marker of every row."""
        key = next(iter(table.primary_key))
        rows = self.connection.execute(sa.select(key, sa.literal_column(MARKER)).select_from(table))
        return {int(number): marker for number, marker in rows}

    def backfill(self) -> int:
        """Fill all rows, three at a time."""
        end = self.pair.old_table
        key = tuple(column.name for column in end.key)
        sync = Sync(table=end.table, key=key, columns={}, groups=(), marker=MARKER, name="unused")
        return self.fill(self.adapter.backfill(Backfill(sync=sync)), width=len(key))

    def repair(self, side: Side) -> int:
        text = pair_repair(self.pair, side, self.adapter.product, self.adapter.compiler, estimate="SELECT 0")
        return self.fill(text, width=len(self.pair.main.key))

    def differing(self) -> int:
        """The rows that a verification counts."""
        ((_title, query),) = pair_probe(self.pair, self.adapter.compiler).differing
        return self.count(query)


def _pair(scene: Scene, main: sa.Table, companion: sa.Table) -> Pair:
    def end(table: sa.Table, columns: Sequence[sa.Column[Any]], name: str) -> PairTable:
        def sync_column(column: sa.Column[Any]) -> SyncColumn:
            return SyncColumn(name=column.name, type=column.type, nullable=bool(column.nullable))

        return PairTable(
            table=table.name,
            key=tuple(map(sync_column, table.primary_key)),
            columns={column.name: sync_column(column) for column in columns},
            name=name,
        )

    def row(columns: Sequence[sa.Column[Any]]) -> Row:
        return Row({column.name: Ref(column.name, column.type) for column in columns})

    return Pair(
        main=end(main, scene.main, "zcf_main"),
        companion=end(companion, scene.companion, "zcf_companion"),
        old=scene.old,
        to_companion=dict(scene.forward(row(scene.main))),
        to_main=dict(scene.backward(row(scene.companion))),
        follows=True,
        marker=MARKER,
    )
