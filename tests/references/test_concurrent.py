"""Transactions of both tables that overlap: whoever refers, and whoever changes what is referred to, meet."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import DropIndex, Options, ReferColumns, Runner
from tests.servers.shared import Database, new_engine
from tests.upgrades import upgrade_of

pytestmark = pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")  # SQLite has one writer at a time

ROWS = "SELECT id, city, city_id FROM users ORDER BY id"


def upgraded(database: Database) -> None:
    """Users who live in cities; the old release knows these by their names."""
    metadata = sa.MetaData()
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)
    sa.Table("cities", metadata, key, sa.Column("name", sa.String(40), nullable=False, unique=True))
    city = sa.Column("city", sa.String(40), nullable=True, index=True)
    sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), city)
    metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO cities (id, name) VALUES (1, 'Ulm'), (9, 'Zug')")
        connection.exec_driver_sql("INSERT INTO users (id, city) VALUES (1, 'Ulm')")
    reference = ReferColumns(
        table="users",
        columns={"city": "name"},
        column=sa.Column("city_id", sa.Integer),
        to="cities",
        key="id",
        lossy=True,
        scans=True,
    )
    operations = (reference, DropIndex(table="users", name="ix_users_city"))
    upgrade = upgrade_of(*operations)
    with Runner(database.url, upgrade, options=Options(lock_timeout=0.3)) as run:
        run.upgrade()


def read(database: Database) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(ROWS)]


def send(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextlib.contextmanager
def meanwhile(database: Database, statement: str) -> Iterator[None]:
    """A second client sends the statement, which may have to wait for the block's transaction."""
    errors: list[BaseException] = []

    def run() -> None:
        engine = new_engine(database.url)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
        finally:
            engine.dispose()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.3)  # it waits by now, or is through
    yield
    thread.join()
    assert errors == []


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """A transaction that is open while another client sends a statement, and what both come to."""

    name: str
    first: Sequence[str]
    second: str
    committed: Sequence[tuple[Any, ...]]
    rolled_back: Sequence[tuple[Any, ...]]


MEETINGS = (
    Meeting(
        name="a row refers while the other one changes",
        first=["UPDATE cities SET name = 'Neu-Ulm' WHERE id = 1"],
        second="INSERT INTO users (id, city) VALUES (2, 'Ulm')",
        committed=[(1, "Neu-Ulm", 1), (2, "Ulm", None)],
        rolled_back=[(1, "Ulm", 1), (2, "Ulm", 1)],
    ),
    Meeting(
        name="a row changes while others come to refer to it",
        first=["INSERT INTO users (id, city) VALUES (2, 'Ulm')", "INSERT INTO users (id, city_id) VALUES (3, 1)"],
        second="UPDATE cities SET name = 'Neu-Ulm' WHERE id = 1",
        committed=[(1, "Neu-Ulm", 1), (2, "Neu-Ulm", 1), (3, "Neu-Ulm", 1)],
        rolled_back=[(1, "Neu-Ulm", 1)],
    ),
    Meeting(
        name="a row comes that another one has just looked for",
        first=["INSERT INTO users (id, city) VALUES (2, 'Rom')"],
        second="INSERT INTO cities (id, name) VALUES (2, 'Rom')",
        committed=[(1, "Ulm", 1), (2, "Rom", 2)],
        rolled_back=[(1, "Ulm", 1)],
    ),
    Meeting(
        name="a row looks for one that is about to come",
        first=["INSERT INTO cities (id, name) VALUES (2, 'Rom')"],
        second="INSERT INTO users (id, city) VALUES (2, 'Rom')",
        committed=[(1, "Ulm", 1), (2, "Rom", 2)],
        rolled_back=[(1, "Ulm", 1), (2, "Rom", None)],
    ),
)


def test_two_transactions_meet(database: Database) -> None:
    upgraded(database)
    for meeting, ends in itertools.product(MEETINGS, ("commit", "rollback")):
        send(database, "DELETE FROM users", "DELETE FROM cities WHERE id < 9")
        send(
            database,
            "INSERT INTO cities (id, name) VALUES (1, 'Ulm')",
            "INSERT INTO users (id, city) VALUES (1, 'Ulm')",
        )
        with database.engine.connect() as connection:
            for statement in meeting.first:
                connection.exec_driver_sql(statement)
            with meanwhile(database, meeting.second):
                getattr(connection, ends)()
        wanted = meeting.committed if ends == "commit" else meeting.rolled_back
        assert read(database) == wanted, f"{meeting.name}, {ends}"


def test_a_change_reaches_rows_that_came_after_its_transaction_began(database: Database) -> None:
    upgraded(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM users").scalar()  # a snapshot, on MySQL and MariaDB
        send(database, "INSERT INTO users (id, city) VALUES (2, 'Ulm'), (3, 'Rom')")
        connection.exec_driver_sql("UPDATE cities SET name = 'Neu-Ulm' WHERE id = 1")
        connection.exec_driver_sql("INSERT INTO cities (id, name) VALUES (2, 'Rom')")
    assert read(database) == [(1, "Neu-Ulm", 1), (2, "Neu-Ulm", 1), (3, "Rom", 2)]
