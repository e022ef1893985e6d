"""Columns that repeat themselves become a look-up table, whose rows are made on demand: its whole life, everywhere."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    CreateIndex,
    CreateTable,
    Declared,
    Options,
    ProblemError,
    ReferColumns,
    Runner,
    State,
    Upgrade,
)
from contraflow.lens import Side
from contraflow.retry import run_transaction
from tests.engine.service import Killed
from tests.operations.lives import exact
from tests.pairs.test_lives import Killer
from tests.servers.shared import Database, new_engine

OLD = sa.Table(
    "orders",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("customer_name", sa.String(40), nullable=False),
    sa.Column("customer_email", sa.String(40), nullable=False),
    sa.Column("item", sa.String(40)),
)
NEW = sa.Table(
    "orders",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("item", sa.String(40)),
    sa.Column("customer_id", sa.Integer, nullable=False),
)
CUSTOMERS = sa.Table(
    "customers",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("email", sa.String(40), nullable=False),
    sa.Column("source", sa.String(20), nullable=False),
    sa.UniqueConstraint("name", "email", name="uq_customers"),
)
EXTRACTION = ReferColumns(
    table="orders",
    columns={"customer_name": "name", "customer_email": "email"},
    column=sa.Column("customer_id", sa.Integer, nullable=False),
    to="customers",
    key="id",
    create=True,
    values={"source": "it's an order"},
)
OPERATIONS = (
    CreateTable(definition=CUSTOMERS),
    EXTRACTION,
    CreateIndex(table="orders", name="ix_orders_customer", columns=["customer_id"]),
)
OLD_QUERY = sa.select(OLD.c.id, OLD.c.customer_name, OLD.c.customer_email).order_by(OLD.c.id)
NEW_QUERY = (
    sa.select(NEW.c.id, CUSTOMERS.c.name, CUSTOMERS.c.email)
    .join_from(NEW, CUSTOMERS, NEW.c.customer_id == CUSTOMERS.c.id)
    .order_by(NEW.c.id)
)
PEOPLE = sa.select(CUSTOMERS.c.name, CUSTOMERS.c.email).order_by(CUSTOMERS.c.name, CUSTOMERS.c.email)


def runner(database: Database, **more: Any) -> Runner:
    declared = Declared(revision="r1", operations=OPERATIONS)
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    return Runner(database.url, upgrade, options=Options(lock_timeout=0.3), **more)


def send(engine: sa.Engine, *statements: sa.Executable) -> None:
    """Each statement in a transaction of its own."""
    for statement in statements:
        with engine.begin() as connection:
            connection.execute(statement)


def read(engine: sa.Engine, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def order(number: int, name: str, email: str = "-") -> sa.Insert:
    return OLD.insert().values(id=number, customer_name=name, customer_email=email)


def new_order(number: int, name: str, email: str = "-") -> sa.Insert:
    """The new release inserts an order of a customer that is there.

    Not by INSERT ... SELECT: MariaDB refuses one that leaves out a NOT NULL column, before any trigger (error 1364).
    """
    found = sa.select(CUSTOMERS.c.id).where(CUSTOMERS.c.name == name, CUSTOMERS.c.email == email)
    return NEW.insert().values(id=number, item="new", customer_id=found.scalar_subquery())


def test_a_life(database: Database) -> None:
    engine = database.engine
    OLD.create(engine)
    send(engine, order(1, "ada", "a@"), order(2, "bob"), order(3, "ada", "a@"), order(4, "ada", "b@"))
    start = exact(engine, "orders")
    rows = read(engine, OLD_QUERY)
    with runner(database) as run:
        assert run.check() == []
        run.expand()
        send(engine, order(5, "eve"))
        run.rollback()
        assert exact(engine, "orders") == start
        assert read(engine, OLD_QUERY) == [*rows, (5, "eve", "-")]
        assert not sa.inspect(engine).has_table("customers")

        run.expand()
        send(engine, order(6, "o'brien"), OLD.update().where(OLD.c.id == 2).values(customer_name="Bob\\"))
        run.migrate()
        people = [("Bob\\", "-"), ("ada", "a@"), ("ada", "b@"), ("eve", "-"), ("o'brien", "-")]
        assert sorted(read(engine, PEOPLE)) == people
        send(
            engine,
            # The old release: a customer who is there, one who is not, and one who becomes another.
            order(10, "ada", "a@"),
            order(11, "new"),
            OLD.update().where(OLD.c.id == 1).values(customer_email="c@"),
            OLD.update().where(OLD.c.id == 3).values(item="book"),
            # The new one: it makes its own customers, and they may change.
            CUSTOMERS.insert().values(name="zoe", email="z@", source="web"),
            new_order(20, "zoe", "z@"),
            new_order(21, "eve"),
            NEW.update().where(NEW.c.id == 4).values(item="pen"),
            CUSTOMERS.update().where(CUSTOMERS.c.name == "eve").values(name="eva", email="e@"),
        )
        wanted = [
            (1, "ada", "c@"),
            (2, "Bob\\", "-"),
            (3, "ada", "a@"),
            (4, "ada", "b@"),
            (5, "eva", "e@"),
            (6, "o'brien", "-"),
            (10, "ada", "a@"),
            (11, "new", "-"),
            (20, "zoe", "z@"),
            (21, "eva", "e@"),
        ]
        assert read(engine, OLD_QUERY) == wanted
        assert read(engine, NEW_QUERY) == wanted
        run.verify()
        run.rollback()
        assert exact(engine, "orders") == start
        assert read(engine, OLD_QUERY) == wanted

        run.upgrade()
        assert read(engine, NEW_QUERY) == wanted
        assert read(engine, sa.select(CUSTOMERS.c.source).distinct()) == [("it's an order",)]
        run.contract()
    assert read(engine, NEW_QUERY) == wanted
    names = {column["name"]: column["nullable"] for column in sa.inspect(engine).get_columns("orders")}
    assert names == {"id": False, "item": True, "customer_id": False}
    columns = [column["name"] for column in sa.inspect(engine).get_columns("customers")]
    assert columns == ["id", "name", "email", "source"]


def test_an_order_of_nobody_is_refused(database: Database) -> None:
    """The new release's reference to a row that is not there: the old one could not read it."""
    engine = database.engine
    OLD.create(engine)
    with runner(database) as run:
        run.upgrade()
        with pytest.raises(sa.exc.DBAPIError):
            send(engine, NEW.insert().values(id=1, customer_id=4711))
        assert read(engine, OLD_QUERY) == []


def test_drift_is_found_and_mended_from_either_side(database: Database) -> None:
    engine = database.engine
    OLD.create(engine)
    send(engine, order(1, "ada"), order(2, "bob"))
    drift = (
        "UPDATE orders SET customer_name = 'bob', cf_marker = CASE WHEN cf_marker = 1 THEN 2 ELSE 1 END WHERE id = 1"
    )
    with runner(database) as run:
        run.upgrade()
        sides: tuple[tuple[Side, str], ...] = (("new", "ada"), ("old", "bob"))
        for side, wanted in sides:
            with engine.begin() as connection:  # as the sync's own write
                connection.exec_driver_sql(drift)
            with pytest.raises(ProblemError, match=r"(?s)CF012.*1 row of orders"):
                run.verify()
            assert run.repair("orders", side) == 1
            assert read(engine, OLD_QUERY) == read(engine, NEW_QUERY) == [(1, wanted, "-"), (2, "bob", "-")]
            run.verify()
        send(engine, CUSTOMERS.delete().where(CUSTOMERS.c.name == "bob"))
        with pytest.raises(ProblemError, match="CF013"):
            run.verify()


@pytest.mark.only_on("sqlite", "postgresql", "mariadb", "mysql")
def test_killed_at_every_statement_both_releases_go_on(database: Database) -> None:
    engine = database.engine
    OLD.create(engine)
    send(engine, order(1, "first"), order(2, "second"))
    wanted = {1: "first", 2: "second"}
    number = 10
    for left in itertools.cycle((2, 3, 1, 4)):  # what a kill left half done is undone at times, and done anew
        killer = Killer(left=left, ours=("orders", "customers", "zcf_"))
        with runner(database, before_statement=killer) as run, contextlib.suppress(Killed):
            run.run("contract")
        with runner(database) as run:
            status = run.status()
        number += 1
        if status.state is not State.CONTRACTED and status.pending != "contract":
            name = f"old {number}"
            send(engine, order(number, name), OLD.update().where(OLD.c.id == 1).values(customer_name=name))
            wanted |= {1: name, number: name}
        number += 1
        if status.state in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
            name = f"new {number}"
            send(
                engine,
                CUSTOMERS.insert().values(name=name, email="-", source="new"),
                new_order(number, name),
                CUSTOMERS.update().where(CUSTOMERS.c.name == wanted[2]).values(name=f"{name}, again"),
            )
            wanted |= {2: f"{name}, again", number: name}
        if not killer.dead:
            break
        assert number < 400, "no end"
    assert status.state is State.CONTRACTED
    assert {row: name for row, name, _ in read(engine, NEW_QUERY)} == wanted


def test_writers_of_both_releases_and_the_backfill_at_once(database: Database) -> None:
    """Everybody wants the same few customers at once: each is made once, and the two shapes agree."""
    engine = database.engine
    OLD.create(engine)
    send(engine, *(order(number, f"n{number % 4}") for number in range(40)))
    with runner(database) as run:
        run.expand()
        database.hasten_deadlocks()
        with ThreadPoolExecutor(3) as pool:
            writers = [
                pool.submit(_write, database, base, writes)
                for base, writes in ((100, _old_writes), (200, _old_writes), (300, _customer_writes))
            ]
            run.migrate()
        for writer in writers:
            writer.result()
        run.verify()
    assert read(engine, OLD_QUERY) == read(engine, NEW_QUERY)
    people = read(engine, PEOPLE)
    assert len(people) == len(set(people))


def _write(database: Database, base: int, writes: Any) -> None:
    engine = new_engine(database.url)
    try:
        for statements in writes(base):

            def work(tx: sa.Connection, statements: Sequence[sa.Executable] = statements) -> None:
                for statement in statements:
                    tx.execute(statement)

            run_transaction(engine, work, attempts=None)
    finally:
        engine.dispose()


def _old_writes(base: int) -> list[list[sa.Executable]]:
    """New orders, and old ones that change their customer, two statements in a transaction."""
    return [
        [
            order(base + number, f"n{number % 6}"),
            OLD.update().where(OLD.c.id == (base + number * 7) % 40).values(customer_name=f"n{(number + 3) % 6}"),
        ]
        for number in range(25)
    ]


def _customer_writes(base: int) -> list[list[sa.Executable]]:
    """Customers who change their address, and so all of their orders."""
    return [
        [CUSTOMERS.update().where(CUSTOMERS.c.name == f"n{number % 4}").values(source=f"{base + number}")]
        if number % 2
        else [
            CUSTOMERS.update()
            .where(CUSTOMERS.c.name == f"n{number % 4}", CUSTOMERS.c.email == "-")
            .values(email=f"{base + number}")
        ]
        for number in range(15)
    ]
