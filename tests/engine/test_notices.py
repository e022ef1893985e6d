"""What a server imposes on statements while an upgrade lasts: told before anything is changed, and true."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddUnique,
    CopyColumn,
    CreateIndex,
    DropUnique,
    Fault,
    RenameColumn,
    Runner,
    Source,
    TightenNotNull,
    classify,
    retry,
)
from contraflow.dialects import Profile, for_profile
from contraflow.operations.base import Operation, TableName
from contraflow.operations.planning import plan
from tests.servers.shared import Database, new_engine
from tests.upgrades import runner_of, upgrade_of

RENAME = RenameColumn(table="users", old="name", new="label")
UNIQUE = (
    RENAME,
    DropUnique(table="users", columns=["name"]),
    AddUnique(table="users", name="uq_users_label", columns=["label"]),
)
COPY = CopyColumn(
    table="orders",
    column=sa.Column("buyer", sa.String(20)),
    sources=[Source(table="users", column="name", on={"user_id": "id"})],
)


def tables(*more: sa.schema.SchemaItem) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table(
        "users",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(20), nullable=False),
        *more,
    )
    sa.Table(
        "orders",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), index=True),
    )
    sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True))
    return metadata


@contextlib.contextmanager
def upgrading(
    database: Database, *operations: Operation, more: Sequence[sa.schema.SchemaItem] = ()
) -> Iterator[Runner]:
    """An upgrade of tables with a row each, which no problem keeps from beginning."""
    tables(*more).create_all(database.engine)
    send(database.engine, "INSERT INTO users (id, name) VALUES (1, 'Ada')")
    send(database.engine, "INSERT INTO orders (id, user_id) VALUES (1, 1)")
    with runner_of(database, *operations) as run:
        assert run.check() == []
        yield run


def send(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def codes(run: Runner) -> list[str]:
    return [notice.code for notice in run.notices()]


EXPECTED = {
    "sqlite": (["CF502"], ["CF502"], ["CF502"], []),
    "postgresql": (["CF501", "CF502"], ["CF501", "CF502"], ["CF501", "CF502", "CF504"], []),
    "cockroachdb": (["CF501", "CF502"], ["CF501", "CF502"], ["CF501", "CF502", "CF504"], []),
    "mysql": (["CF502", "CF506"], ["CF502", "CF504", "CF506"], ["CF502", "CF503", "CF504", "CF506"], []),
    "mariadb": (
        ["CF502", "CF506", "CF507"],
        ["CF502", "CF504", "CF506", "CF507"],
        ["CF502", "CF503", "CF504", "CF506"],
        [],
    ),
    "galera": (
        ["CF502", "CF506", "CF507", "CF505"],
        ["CF502", "CF504", "CF506", "CF507", "CF505"],
        ["CF502", "CF503", "CF504", "CF506", "CF505"],
        ["CF505"],
    ),
}
"""For a rename, one under a unique constraint, a column that follows another table, and an index."""


@pytest.mark.parametrize("product", EXPECTED)
def test_each_server_names_what_it_imposes(product: str) -> None:
    version = {"sqlite": (3, 40), "postgresql": (18,), "cockroachdb": (25, 4), "mysql": (9, 7)}.get(product, (10, 11))
    settings = {"wsrep_on": "ON"} if product == "galera" else {}
    name = "mariadb" if product == "galera" else product
    adapter = for_profile(Profile(product=name, version=version, settings=settings))
    index = CreateIndex(table="users", name="ix_users_name", columns=["name"])
    upgrades: tuple[tuple[Operation, ...], ...] = ((RENAME,), UNIQUE, (COPY,), (index,))
    for operations, expected in zip(upgrades, EXPECTED[product], strict=True):
        unique = [sa.UniqueConstraint("name")] if operations is UNIQUE else []
        old: dict[TableName, sa.Table] = {(None, table.name): table for table in tables(*unique).sorted_tables}
        installed = plan(upgrade_of(*operations), old, write=adapter.condition).installed
        notices = [notice for tell in adapter.imposes for notice in tell(installed)]
        assert [notice.code for notice in notices] == expected
        assert all(("orders" if operations == (COPY,) else "users") in notice.what for notice in notices)


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_select_star_that_was_prepared_before(database: Database) -> None:
    with upgrading(database, RENAME) as run:
        assert "CF501" in codes(run)
        with database.engine.connect() as session:
            driver: Any = session.connection.driver_connection
            for phase in (run.expand, run.upgrade, run.contract):
                driver.execute("SELECT * FROM users", prepare=True)
                driver.commit()
                phase()
                if phase == run.upgrade:
                    continue  # it adds no column
                with pytest.raises(Exception, match="cached plan must not change result type") as error:
                    driver.execute("SELECT * FROM users", prepare=True)
                assert classify(error.value) is Fault.SCHEMA_CHANGED
                driver.rollback()
                driver.execute("SELECT * FROM users", prepare=True)  # once: the rollback forgets the plan
                driver.commit()


def test_an_insert_that_names_no_columns(database: Database) -> None:
    with upgrading(database, RENAME) as run:
        assert "CF502" in codes(run)
        run.upgrade()
        if database.kind == "sqlite":
            with pytest.raises(sa.exc.OperationalError, match="has 4 columns but 2 values"):
                send(database.engine, "INSERT INTO users VALUES (2, 'Bob')")
        else:
            send(database.engine, "INSERT INTO users VALUES (2, 'Bob')")
            with database.engine.connect() as connection:
                assert connection.exec_driver_sql("SELECT label FROM users WHERE id = 2").scalar() == "Bob"
        run.contract()
        database.engine.dispose()  # SQLite does not read the schema anew when it counts values
        send(database.engine, "INSERT INTO users VALUES (3, 'Eve')")


@pytest.mark.only_on("mysql", "mariadb")
def test_one_statement_that_uses_both_tables(database: Database) -> None:
    with upgrading(database, COPY) as run:
        assert "CF503" in codes(run)
        run.upgrade()
        with pytest.raises(sa.exc.DBAPIError, match="1442"):
            send(database.engine, "UPDATE users JOIN orders ON orders.user_id = users.id SET users.name = 'Eve'")
        run.contract()
        send(database.engine, "UPDATE users JOIN orders ON orders.user_id = users.id SET users.name = 'Eve'")


@pytest.mark.only_on("mysql", "mariadb")
def test_a_snapshot_from_before_is_run_again(database: Database) -> None:
    with upgrading(database, RENAME) as run:
        assert "CF506" in codes(run)
        if database.kind == "mariadb":
            run.upgrade()
        engine = new_engine(database.url, isolation_level="REPEATABLE READ")
        phase = run.contract if database.kind == "mariadb" else run.expand
        tries = []

        @retry(engine)
        def transaction(session: sa.Connection) -> str:
            session.exec_driver_sql("SELECT id FROM notes").all()
            tries.append(1)
            if len(tries) == 1:
                phase()
            column = "label" if database.kind == "mariadb" else "name"
            return str(session.exec_driver_sql(f"SELECT {column} FROM users").scalar())

        assert transaction() == "Ada"
        assert len(tries) == 2
        engine.dispose()


@pytest.mark.only_on("mariadb")
def test_an_insert_select_of_the_new_release(database: Database) -> None:
    with upgrading(database, RENAME) as run:
        assert "CF507" in codes(run)
        run.upgrade()
        with pytest.raises(sa.exc.DBAPIError, match="1364"):
            send(database.engine, "INSERT INTO users (id, label) SELECT id + 9, 'Bob' FROM orders")
        send(database.engine, "INSERT INTO users (id, label) VALUES (10, 'Bob')")


def test_what_contract_will_ask_for_is_told_before_expand(database: Database) -> None:
    with upgrading(database, RENAME) as run:
        send(database.engine, "CREATE VIEW names AS SELECT name FROM users")
        assert run.check() == []
        (notice,) = (notice for notice in run.notices() if notice.code == "CF111")
        assert "users.name" in notice.what
        assert "names" in notice.what
        run.upgrade()
        assert [problem.code for problem in run.check()] == ["CF111"]
        send(database.engine, "DROP VIEW names", "CREATE VIEW names AS SELECT label FROM users")
        run.contract()
        assert run.notices() == []


@pytest.mark.only_on("sqlite")
def test_an_upgrade_of_what_needs_nothing_has_no_notices(database: Database) -> None:
    with upgrading(database, TightenNotNull(table="orders", column="user_id")) as run:
        assert run.notices() == []
