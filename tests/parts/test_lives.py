"""Tables copied, split by a condition and merged, through the whole life of an upgrade, on every server."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    CopyTable,
    CreateTable,
    Declared,
    DropTable,
    MergeTables,
    Options,
    ProblemError,
    Runner,
    SplitTable,
    State,
    Upgrade,
)
from contraflow.operations.base import Operation
from contraflow.retry import run_transaction
from tests.dialects.support import connected
from tests.engine.service import Killed
from tests.operations.lives import exact
from tests.pairs.test_lives import Killer
from tests.parts.bench import SCENES, Bench
from tests.servers.shared import Database, new_engine
from tests.upgrades import upgrade_of

Rows = Sequence[tuple[Any, ...]]


def _key() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)


def table(name: str, *columns: str) -> sa.Table:
    kinds: dict[str, sa.types.TypeEngine[Any]] = {"archived": sa.Boolean(), "total": sa.Integer()}
    return sa.Table(
        name,
        sa.MetaData(),
        _key(),
        *(sa.Column(column, kinds.get(column, sa.String(20))) for column in columns),
    )


@dataclass(frozen=True, kw_only=True)
class Life:
    """One upgrade, with statements of both releases and what each must read."""

    name: str
    old: Sequence[sa.Table]
    new: Sequence[sa.Table]
    operations: Sequence[Operation]
    seed: Sequence[str]
    old_writes: Sequence[str]
    new_writes: Sequence[str]
    old_reads: Mapping[str, Rows]
    """Query to rows, after both have written."""
    new_reads: Mapping[str, Rows]


SPLIT = Life(
    name="a table is split by a condition",
    old=[table("orders", "note", "archived", "total")],
    new=[table("live_orders", "note", "total"), table("old_orders", "note", "total", "archived")],
    operations=[
        CreateTable(definition=table("live_orders", "note", "total")),
        CreateTable(definition=table("old_orders", "note", "total", "archived")),
        SplitTable(
            table="orders",
            matching="old_orders",
            others="live_orders",
            reads=["archived"],
            where=lambda row: row.archived.is_(True),
            values={"live_orders": {"archived": False}},
        ),
        DropTable(table="orders"),
    ],
    seed=[
        "INSERT INTO orders (id, note, archived) VALUES (1, 'one', {true}), (2, 'two', {false}), (3, 'three', NULL)",
    ],
    old_writes=[
        "INSERT INTO orders (id, note, archived) VALUES (10, 'ten', {true}), (11, 'eleven', {false}), (12, 'x', NULL)",
        "UPDATE orders SET archived = {true} WHERE id = 2",
        "UPDATE orders SET archived = {false}, note = 'back' WHERE id = 1",
        "UPDATE orders SET id = 13 WHERE id = 12",
        "DELETE FROM orders WHERE id = 11",
        "UPDATE orders SET total = 5 WHERE id = 10",
    ],
    new_writes=[
        "INSERT INTO live_orders (id, note) VALUES (20, 'live')",
        "INSERT INTO old_orders (id, note, archived) VALUES (21, 'old', {true})",
        "UPDATE live_orders SET note = 'LIVE' WHERE id = 20",
        "DELETE FROM old_orders WHERE id = 10",
        # The new release moves a row to the other side, in either order.
        "INSERT INTO old_orders (id, note, archived) VALUES (20, 'moved', {true})",
        "DELETE FROM live_orders WHERE id = 20",
        "DELETE FROM live_orders WHERE id = 13",
        "INSERT INTO old_orders (id, note, archived) VALUES (13, 'x', {true})",
        "UPDATE live_orders SET id = 14 WHERE id = 3",
    ],
    old_reads={
        "SELECT id, note, archived, total FROM orders ORDER BY id": [
            (1, "back", False, None),
            (2, "two", True, None),
            (13, "x", True, None),
            (14, "three", None, None),
            (20, "moved", True, None),
            (21, "old", True, None),
        ]
    },
    new_reads={
        "SELECT id, note, total FROM live_orders ORDER BY id": [(1, "back", None), (14, "three", None)],
        "SELECT id, note, archived FROM old_orders ORDER BY id": [
            (2, "two", True),
            (13, "x", True),
            (20, "moved", True),
            (21, "old", True),
        ],
    },
)
MERGE = Life(
    name="two tables become one",
    old=[table("live_orders", "note", "total"), table("old_orders", "note", "total")],
    new=[table("orders", "note", "archived", "total")],
    operations=[
        CreateTable(definition=table("orders", "note", "archived", "total")),
        MergeTables(
            to="orders",
            matching="old_orders",
            others="live_orders",
            reads=["archived"],
            where=lambda row: row.archived.is_(True),
            values={"live_orders": {"archived": False}, "old_orders": {"archived": True}},
        ),
        DropTable(table="live_orders"),
        DropTable(table="old_orders"),
    ],
    seed=[
        "INSERT INTO live_orders (id, note) VALUES (1, 'one'), (2, 'two')",
        "INSERT INTO old_orders (id, note) VALUES (3, 'three'), (4, 'four')",
    ],
    old_writes=[
        "INSERT INTO live_orders (id, note) VALUES (10, 'ten')",
        "UPDATE old_orders SET note = 'THREE' WHERE id = 3",
        "INSERT INTO old_orders (id, note) VALUES (1, 'moved')",
        "DELETE FROM live_orders WHERE id = 1",
        "DELETE FROM old_orders WHERE id = 4",
        "INSERT INTO live_orders (id, note) VALUES (4, 'moved')",
        "UPDATE live_orders SET id = 5 WHERE id = 2",
    ],
    new_writes=[
        "INSERT INTO orders (id, note, archived) VALUES (20, 'a', {true}), (21, 'b', {false}), (22, 'c', NULL)",
        "UPDATE orders SET archived = {true} WHERE id = 10",
        "UPDATE orders SET note = 'B', total = 7 WHERE id = 21",
        "DELETE FROM orders WHERE id = 3",
    ],
    old_reads={
        "SELECT id, note, total FROM live_orders ORDER BY id": [
            (4, "moved", None),
            (5, "two", None),
            (21, "B", 7),
            (22, "c", None),
        ],
        "SELECT id, note, total FROM old_orders ORDER BY id": [
            (1, "moved", None),
            (10, "ten", None),
            (20, "a", None),
        ],
    },
    new_reads={
        "SELECT id, note, archived, total FROM orders ORDER BY id": [
            (1, "moved", True, None),
            (4, "moved", False, None),
            (5, "two", False, None),
            (10, "ten", True, None),
            (20, "a", True, None),
            (21, "B", False, 7),
            (22, "c", None, None),
        ]
    },
)
COPY = Life(
    name="a table is copied, and the old one stays",
    old=[table("orders", "note", "total")],
    new=[table("orders", "note", "total"), table("purchases", "note", "total")],
    operations=[
        CreateTable(definition=table("purchases", "note", "total")),
        CopyTable(table="orders", to="purchases"),
    ],
    seed=["INSERT INTO orders (id, note) VALUES (1, 'one'), (2, NULL)"],
    old_writes=[
        "INSERT INTO orders (id) VALUES (10)",
        "UPDATE orders SET note = 'ten' WHERE id = 10",
        "DELETE FROM orders WHERE id = 1",
    ],
    new_writes=[
        "INSERT INTO purchases (id, total) VALUES (20, 20), (21, 21)",
        "UPDATE purchases SET note = 'two' WHERE id = 2",
        "DELETE FROM purchases WHERE id = 21",
        "UPDATE purchases SET id = 11 WHERE id = 10",
    ],
    old_reads={"SELECT id, note, total FROM orders ORDER BY id": [(2, "two", None), (11, "ten", None), (20, None, 20)]},
    new_reads={
        "SELECT id, note, total FROM purchases ORDER BY id": [(2, "two", None), (11, "ten", None), (20, None, 20)]
    },
)
LIVES = (SPLIT, MERGE, COPY)


def send(engine: sa.Engine, statements: Sequence[str]) -> None:
    """Each statement in a transaction of its own."""
    words = {"true": "1", "false": "0"} if engine.dialect.name == "sqlite" else {"true": "true", "false": "false"}
    for statement in statements:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement.format(**words))


def check(engine: sa.Engine, reads: Mapping[str, Rows]) -> None:
    with engine.connect() as connection:
        for query, wanted in reads.items():
            # 1 = True: not every server has a type of its own for it.
            assert [tuple(row) for row in connection.exec_driver_sql(query)] == list(wanted), query


def runner(database: Database, life: Life, **more: Any) -> Runner:
    declared = Declared(revision="r1", operations=tuple(life.operations))
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    return Runner(database.url, upgrade, options=Options(lock_timeout=0.3), **more)


def start(database: Database, life: Life) -> sa.Engine:
    for one in life.old:
        one.create(database.engine)
    send(database.engine, life.seed)
    return database.engine


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_life(database: Database, life: Life) -> None:
    engine = start(database, life)
    before = [exact(engine, one.name) for one in life.old]
    with runner(database, life) as run:
        assert run.check() == []
        run.expand()
        run.rollback()
        assert [exact(engine, one.name) for one in life.old] == before
        run.expand()
        send(engine, life.old_writes)
        run.migrate()
        send(engine, life.new_writes)
        check(engine, {**life.old_reads, **life.new_reads})
        run.verify()
        run.rollback()
        assert [exact(engine, one.name) for one in life.old] == before
        check(engine, life.old_reads)
        run.upgrade()
        check(engine, life.old_reads)
        run.contract()
    left = sorted(name for name in sa.inspect(engine).get_table_names() if not name.startswith("contraflow"))
    assert left == sorted(one.name for one in life.new)
    for one in life.new:
        names = [column["name"] for column in sa.inspect(engine).get_columns(one.name)]
        assert not [name for name in names if name.startswith("cf_")]
    with connected(engine) as (connection, adapter):
        assert not [name for one in left for name in adapter.find(connection, one, None).triggers]


def test_killed_at_every_statement_both_releases_go_on(database: Database) -> None:
    engine = start(database, SPLIT)
    number = -100  # falling: the backfill, which lives for one batch, is not to find another one ahead
    live: dict[int, str] = {2: "two", 3: "three"}
    old = {1: "one"}
    for left in itertools.cycle((1, 2, 1, 3, 1, 4)):  # what a kill left half done is undone at times, and done anew
        killer = Killer(left=left, ours=("orders", "zcf_"))
        with runner(database, SPLIT, before_statement=killer) as run, contextlib.suppress(Killed):
            run.run("contract")
        with runner(database, SPLIT) as run:
            status = run.status()
        number -= 3
        if status.state is not State.CONTRACTED and status.pending != "contract":
            send(
                engine,
                [
                    f"INSERT INTO orders (id, note) VALUES ({number}, 'o{number}'), ({number + 1}, 'gone')",
                    f"UPDATE orders SET note = 'p{number}', archived = {{true}} WHERE id = {number}",
                    f"DELETE FROM orders WHERE id = {number + 1}",
                    f"UPDATE orders SET note = 'q{number}' WHERE id = 2",
                ],
            )
            live[2] = f"q{number}"
            old[number] = f"p{number}"
        number -= 1
        if status.state in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
            send(
                engine,
                [
                    f"INSERT INTO live_orders (id, note) VALUES ({number}, 'n{number}')",
                    f"UPDATE old_orders SET note = 'm{number}' WHERE id = 1",
                ],
            )
            live[number], old[1] = f"n{number}", f"m{number}"
        if not killer.dead:
            break
        assert number > -400, "no end"
    assert status.state is State.CONTRACTED
    for name, wanted in (("live_orders", live), ("old_orders", old)):
        with engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT id, note FROM {name}")
            assert {int(key): note for key, note in found} == wanted


def test_drift_is_found_and_mended_from_either_side(database: Database) -> None:
    engine = start(database, SPLIT)
    # As the sync's own writes: the other table does not hear of them.
    drift = [
        "UPDATE orders SET note = 'drifted', cf_pair = 2 WHERE id = 2",
        "UPDATE old_orders SET cf_pair = 9 WHERE id = 1",
        "DELETE FROM old_orders WHERE id = 1",
        "INSERT INTO live_orders (id, note, cf_pair) VALUES (7, 'alone', 2)",
    ]
    notes = ("SELECT id, note FROM live_orders ORDER BY id", "SELECT id, note FROM old_orders ORDER BY id")
    with runner(database, SPLIT) as run:
        run.run("verify")
        send(engine, drift)
        with pytest.raises(ProblemError, match="CF012") as caught:
            run.contract()
        assert "live_orders without orders" in str(caught.value)
        run.repair("orders", "old")
        check(engine, {notes[0]: [(2, "drifted"), (3, "three"), (7, "alone")], notes[1]: [(1, "one")]})
        # Of a row that only the other side has, nobody but a person knows whether it is to go.
        with pytest.raises(ProblemError, match="CF012"):
            run.verify()
        run.repair("live_orders", "new")
        check(engine, {"SELECT id, note FROM orders WHERE id = 7": [(7, "alone")]})
        run.verify()

        send(
            engine,
            ["UPDATE live_orders SET note = 'right', cf_pair = CASE WHEN cf_pair = 2 THEN 3 ELSE 2 END WHERE id = 2"],
        )
        send(engine, drift[:1])
        run.repair("live_orders", "new")
        check(engine, {"SELECT note FROM orders WHERE id = 2": [("right",)]})
        run.verify()
        run.contract()


def test_the_new_tables_keep_their_sides(database: Database) -> None:
    """A row on the wrong side is refused, before contract and after it."""
    engine = start(database, SPLIT)
    with runner(database, SPLIT) as run:
        for _ in "12":
            run.run("verify")
            for statement in (
                "INSERT INTO old_orders (id, archived) VALUES (50, {false})",
                "UPDATE old_orders SET archived = NULL WHERE id = 1",
            ):
                with pytest.raises(sa.exc.DBAPIError):
                    send(engine, [statement])
        run.contract()
    with pytest.raises(sa.exc.DBAPIError):
        send(engine, ["INSERT INTO old_orders (id, archived) VALUES (50, {false})"])


def test_foreign_keys_act_on_both_tables(database: Database) -> None:
    """Also where their actions fire no triggers (MySQL, MariaDB), and where both the key and a trigger come by."""

    def orders(name: str) -> sa.Table:
        keys = [
            sa.ForeignKeyConstraint([column], ["people.id"], name=f"fk_{name}_{column}", ondelete=rule)
            for column, rule in (("customer", "CASCADE"), ("seller", "SET NULL"))
        ]
        columns = [sa.Column(column, sa.Integer, index=True) for column in ("customer", "seller")]
        return sa.Table(name, sa.MetaData(), _key(), *columns, *keys)

    engine, old = database.engine, orders("orders")
    people = sa.Table("people", old.metadata, _key())
    old.metadata.create_all(engine)
    send(
        engine,
        [
            "INSERT INTO people (id) VALUES (1), (2), (3)",
            "INSERT INTO orders (id, customer, seller) VALUES (1, 1, 2), (2, 2, 1), (3, 3, 3)",
        ],
    )
    operations = (CreateTable(definition=orders("purchases")), CopyTable(table="orders", to="purchases"))
    upgrade = upgrade_of(*operations)
    with Runner(database.url, upgrade) as run:
        run.upgrade()
        for one in (1, 3):
            with engine.begin() as connection:
                if database.kind == "sqlite":
                    connection.exec_driver_sql("PRAGMA foreign_keys = ON")
                connection.execute(sa.delete(people).where(people.c.id == one))
        for name in ("orders", "purchases"):
            check(engine, {f"SELECT id, customer, seller FROM {name}": [(2, 2, None)]})
        run.verify()
        run.contract()


def _writer(database: Database, tables: Sequence[str], seed: int) -> None:
    """Write random values, two statements in a transaction, as an application with retries does."""
    chance = random.Random(seed)
    engine = new_engine(database.url)
    name = tables[seed % len(tables)]
    # An INSERT into one part of a row that the other one has is a move to it: the other one's is to be deleted.
    kinds = ("update", "delete", "update", *(("insert", "side") if name == "orders" else ()))
    found = sa.table(name, *(sa.column(column) for column in ("id", "note", "archived")))
    try:
        for _ in range(25):
            chosen = [(chance.choice(kinds), chance.randint(1, 3)) for _ in "12"]

            def work(tx: sa.Connection, chosen: list[tuple[str, int]] = chosen) -> None:
                for kind, key in chosen:
                    note = {"note": f"{seed} {chance.random()}"[:9]}
                    if kind == "insert":
                        tx.execute(
                            sa.insert(found).values({"id": key, **note, "archived": chance.choice((True, False))})
                        )
                    elif kind == "delete":
                        tx.execute(sa.delete(found).where(found.c.id == key))
                    else:
                        side = {"archived": chance.choice((True, False))} if kind == "side" else {}
                        tx.execute(sa.update(found).where(found.c.id == key).values({**note, **side}))

            with contextlib.suppress(sa.exc.IntegrityError):  # the row is there
                run_transaction(engine, work, attempts=None)
    finally:
        engine.dispose()


def test_writers_of_all_tables_at_once(database: Database) -> None:
    bench = Bench.made(database, SCENES[0])
    try:
        database.hasten_deadlocks()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda seed: _writer(database, list(bench.scene.tables), seed), range(4)))
        assert not any(bench.drift()), {name: bench.read(name) for name in bench.scene.tables}
    finally:
        bench.close()
