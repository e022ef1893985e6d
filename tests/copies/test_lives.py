"""A column that follows its row's parent, through the whole life of an upgrade, on every server."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import CopyColumn, Declared, Options, ProblemError, Runner, Source, State, Upgrade
from contraflow.installed import Installed
from contraflow.lens import Side
from contraflow.retry import run_transaction
from tests.copies.bench import SCENES, TABLES, Bench, Scene
from tests.dialects.support import connected
from tests.engine.service import Killed
from tests.operations.lives import exact
from tests.pairs.test_lives import Killer
from tests.servers.shared import Database, new_engine

OLD = sa.MetaData()
CUSTOMERS = sa.Table(
    "customers",
    OLD,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("country", sa.String(20)),
)
ORDERS = sa.Table(
    "orders",
    OLD,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("customer", sa.ForeignKey("customers.id", ondelete="SET NULL", name="fk_customer"), index=True),
    sa.Column("note", sa.String(20)),
)
NEW_ORDERS = sa.table("orders", *(sa.column(name) for name in ("id", "customer", "note", "country")))
OPERATION = CopyColumn(
    table="orders",
    column=sa.Column("country", sa.String(20)),
    sources=[Source(table="customers", column="country", on={"customer": "id"})],
)


def send(engine: sa.Engine, *statements: sa.Executable) -> None:
    for statement in statements:
        with engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.execute(statement)


def countries(engine: sa.Engine) -> dict[int, str | None]:
    with engine.connect() as connection:
        rows = connection.execute(sa.select(NEW_ORDERS.c.id, NEW_ORDERS.c.country))
        return {int(key): country for key, country in rows}


def runner(database: Database, operation: CopyColumn = OPERATION, **more: Any) -> Runner:
    declared = Declared(revision="r1", operations=(operation,))
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    return Runner(database.url, upgrade, options=Options(lock_timeout=0.3), **more)


def start(database: Database) -> sa.Engine:
    engine = database.engine
    OLD.create_all(engine)
    send(
        engine,
        CUSTOMERS.insert().values([{"id": 1, "country": "de"}, {"id": 2, "country": None}, {"id": 3, "country": "fr"}]),
        ORDERS.insert().values([{"id": key, "customer": key % 4 or None} for key in range(1, 9)]),
    )
    return engine


def test_a_life(database: Database) -> None:
    engine = start(database)
    before = [exact(engine, table) for table in ("orders", "customers")]
    with runner(database) as run:
        assert run.check() == []
        run.expand()
        with engine.connect() as connection:
            (kept,) = connection.exec_driver_sql("SELECT installed FROM contraflow_journal").scalars()
        listed = json.loads(kept)
        assert [Installed.from_dict(item).as_dict() for item in listed] == listed
        send(engine, CUSTOMERS.update().where(CUSTOMERS.c.id == 3).values(country="be"))
        run.rollback()
        assert [exact(engine, table) for table in ("orders", "customers")] == before
        run.upgrade()
        assert countries(engine) == {1: "de", 2: None, 3: "be", 4: None, 5: "de", 6: None, 7: "be", 8: None}
        send(
            engine,
            ORDERS.insert().values(id=10, customer=1),
            NEW_ORDERS.insert().values(id=11, customer=1, country="at"),
            NEW_ORDERS.update().where(NEW_ORDERS.c.id == 1).values(country="ch"),
            ORDERS.update().where(ORDERS.c.id == 1).values(note="unrelated"),
            ORDERS.update().where(ORDERS.c.id == 2).values(customer=3),
            NEW_ORDERS.update().where(NEW_ORDERS.c.id == 4).values(customer=1, country="lu"),
            ORDERS.delete().where(ORDERS.c.id == 8),
            # By the foreign key's action, which fires no triggers on MySQL and MariaDB.
            CUSTOMERS.delete().where(CUSTOMERS.c.id == 3),
            CUSTOMERS.update().where(CUSTOMERS.c.id == 2).values(country="it"),
        )
        wanted = {1: "ch", 2: None, 3: None, 4: "lu", 5: "de", 6: "it", 7: None, 10: "de", 11: "at"}
        assert countries(engine) == wanted
        run.verify()
        run.contract()
    assert countries(engine) == wanted
    with connected(engine) as (connection, adapter):
        for table in ("orders", "customers"):
            found = adapter.find(connection, table, None)
            assert not found.triggers
            assert not [name for name in found.columns if name.startswith("cf_")]


def test_killed_at_every_statement_both_releases_go_on(database: Database) -> None:
    engine = start(database)
    number = -100  # falling: the backfill, which lives for one batch, is not to find another one ahead
    mine: dict[int, str] = {}
    for left in itertools.cycle((1, 2, 1, 3)):  # what a kill left half done is undone at times, and done anew
        killer = Killer(left=left, ours=("orders", "customers", "zcf_"))
        with runner(database, before_statement=killer) as run, contextlib.suppress(Killed):
            run.run("contract")
        with runner(database) as run:
            status = run.status()
        number -= 1
        last = f"c{number}"
        if status.state is not State.CONTRACTED and status.pending != "contract":
            send(
                engine,
                ORDERS.insert().values(id=number, customer=1),
                CUSTOMERS.update().where(CUSTOMERS.c.id == 1).values(country=last),
            )
            kept = last
            mine.clear()
        number -= 1
        if status.state in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
            mine[number] = f"n{number}"
            send(engine, NEW_ORDERS.insert().values(id=number, customer=1, country=mine[number]))
        if not killer.dead:
            break
        assert number > -300, "no end"
    assert status.state is State.CONTRACTED
    found = countries(engine)
    with engine.connect() as connection:
        ours = set(connection.execute(sa.select(ORDERS.c.id).where(ORDERS.c.customer == 1)).scalars())
    assert {key: found[key] for key in ours} == {**dict.fromkeys(ours, kept), **mine}


def test_what_was_missed_is_found_and_mended_from_either_side(database: Database) -> None:
    bench = Bench.made(database, SCENES[1])
    try:
        bench.insert("stores", 1, {"place": "Ulm"})
        for key in (1, 2, 3):
            bench.insert("goods", key, {"maker": 1})
        sides: tuple[Side, Side] = ("old", "new")
        for side, wanted in zip(sides, (["Bonn"] * 3, ["mine", "Bonn", "Bonn"]), strict=True):
            bench.update("goods", [1], {"place": "mine"})
            bench.remove_triggers()
            bench.update("stores", [1], {"place": "Bonn" if side == "old" else "Rom"})
            bench.install()
            assert bench.missed() == 3
            assert bench.repair(side) == 3
            assert bench.missed() == 0
            assert [row["place"] for row in bench.read("goods").values()] == wanted
    finally:
        bench.close()


def test_a_trigger_that_somebody_dropped_is_missed(database: Database) -> None:
    engine = start(database)
    with runner(database) as run:
        run.run("migrate")
        with connected(engine) as (connection, adapter):
            name = max(adapter.find(connection, "customers", None).triggers)
            on = " ON customers" if adapter.product == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
        with pytest.raises(ProblemError, match="CF008") as caught:
            run.verify()
        assert f"{name} on customers" in str(caught.value)


def _writer(database: Database, seed: int) -> None:
    """Write random values, two statements in a transaction, as an application with retries does."""
    chance = random.Random(seed)
    engine = new_engine(database.url)
    table, other = list(TABLES.values())[seed % 4], list(TABLES.values())[(seed + 1) % 4]
    values: dict[str, list[dict[str, Any]]] = {
        "goods": [{"maker": key} for key in (1, 2, None)],
        "labels": [{"place": place} for place in ("a", "b", None)],
        "stored": [{"store": key} for key in (1, 2, None)],
        "stores": [{"place": place} for place in ("c", "d", None)],
    }
    try:
        for _ in range(25):
            chosen = [(one, chance.randint(1, 2), chance.choice(values[one.name])) for one in (table, other)]

            def work(tx: sa.Connection, chosen: list[tuple[sa.Table, int, dict[str, Any]]] = chosen) -> None:
                for one, row, given in chosen:
                    key = next(iter(one.primary_key))
                    if one.name in ("goods", "stores") or given != values[one.name][0]:
                        tx.execute(sa.update(one).where(key == row).values(given))
                    elif not tx.execute(sa.delete(one).where(key == row)).rowcount:
                        more = {"good": row} if one.name == "stored" else {}
                        tx.execute(sa.insert(one).values({key.name: row, **more, **given}))

            with contextlib.suppress(sa.exc.IntegrityError):  # another writer has inserted the row
                run_transaction(engine, work, attempts=None)
    finally:
        engine.dispose()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_writers_of_all_tables_at_once(database: Database, scene: Scene) -> None:
    """Nothing is missed: of two transactions that concern each other, the later one sees the earlier one."""
    bench = Bench.made(database, scene)
    try:
        database.hasten_deadlocks()
        for key in (1, 2):
            # Without a foreign key between them, these may not come at the same moment as what belongs to them.
            bench.insert("goods", key, {})
            bench.insert("stores", key, {"place": "c"})
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda seed: _writer(database, seed), range(4)))
        assert bench.missed() == 0
    finally:
        bench.close()


INTERLEAVED: dict[str, list[tuple[sa.Executable, sa.Executable]]] = {
    SCENES[0].name: [
        # A row on the way, and the source that it leads to.
        (
            sa.insert(TABLES["stored"]).values(id=1, good=1, store=1),
            sa.update(TABLES["stores"]).values(place="new"),
        ),
        # Two children, one of which goes.
        (sa.delete(TABLES["labels"]), sa.insert(TABLES["stored"]).values(id=1, good=1, store=1)),
    ],
    SCENES[1].name: [
        # A new row of the target, and one that leads elsewhere now, and their source.
        (sa.insert(TABLES["goods"]).values(id=3, maker=1), sa.update(TABLES["stores"]).values(place="new")),
        (sa.update(TABLES["goods"]).values(maker=2), sa.update(TABLES["stores"]).values(place="new")),
    ],
    SCENES[2].name: [
        # Two rows on the way.
        (
            sa.insert(TABLES["stored"]).values(id=1, good=1, store=1),
            sa.insert(TABLES["stored"]).values(id=2, good=1, store=2),
        ),
    ],
}


@pytest.mark.only_on("postgresql", "postgresql15", "mysql", "mariadb")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_two_transactions_that_concern_each_other(database: Database, scene: Scene) -> None:
    """The second one comes while the first one is open: it waits, and then sees what the first one wrote."""
    bench = Bench.made(database, scene)
    errors: list[BaseException] = []

    def run(statement: sa.Executable) -> None:
        try:
            send(database.engine, statement)
        except BaseException as error:  # noqa: BLE001 - shown by the test itself
            errors.append(error)

    try:
        for pair, turned in itertools.product(INTERLEAVED[scene.name], (False, True)):
            first, second = reversed(pair) if turned else pair
            bench.remove()
            bench.install()
            for key in (1, 2):
                bench.insert("goods", key, {"maker": key})
                bench.insert("stores", key, {"place": f"place {key}"})
            bench.insert("labels", 1, {"place": "label"})
            with database.engine.connect() as connection:
                connection.execute(first)
                thread = threading.Thread(target=run, args=(second,))
                thread.start()
                thread.join(0.2)  # as long as it takes to get in the way; on a slow machine it does not get there
                connection.commit()
                thread.join()
            assert errors == []
            assert bench.missed() == 0, (first, second)
    finally:
        bench.close()


@pytest.mark.only_on("mysql", "mariadb")
def test_one_statement_that_uses_the_target_too(database: Database) -> None:
    """Error 1442: what the documentation says of these servers is so."""
    bench = Bench.made(database, SCENES[0])
    try:
        bench.insert("goods", 1, {})
        goods = sa.select(TABLES["goods"].c.id, sa.literal("Ulm"), sa.null())
        statement = sa.insert(TABLES["labels"]).from_select(["good", "place", "note"], goods)
        with pytest.raises(sa.exc.OperationalError, match="1442"):
            bench.run(statement)
        bench.insert("labels", 1, {"place": "Ulm"})
        assert bench.read("goods")[1]["place"] == "Ulm"
    finally:
        bench.close()


@pytest.mark.only_on("postgresql", "postgresql15", "mysql", "mariadb")
def test_a_backfill_sees_what_it_waited_for(database: Database) -> None:
    bench = Bench.made(database, SCENES[1])
    try:
        bench.remove_triggers()
        bench.insert("goods", 1, {"maker": 1})
        bench.insert("stores", 1, {"place": "before"})
        bench.install()
        with database.engine.connect() as connection:
            connection.execute(sa.update(TABLES["stores"]).values(place="after"))
            thread = threading.Thread(target=bench.backfill)
            thread.start()
            thread.join(0.2)
            connection.commit()
            thread.join()
        assert bench.missed() == 0
        assert bench.read("goods")[1]["place"] == "after"
    finally:
        bench.close()
