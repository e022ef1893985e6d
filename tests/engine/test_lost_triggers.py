"""MariaDB reads triggers when it opens their table; ended meanwhile, it keeps a broken copy. The engine mends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from contraflow.engine import Progress
from contraflow.rehearsal import servers
from tests.engine.service import make_tables, runner, snapshot, upgrade
from tests.servers.shared import Database, fresh_database

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]
NAMES = upgrade(until=1, tables=("users",))
WORD = upgrade(until=2, tables=("hollow",))
"""Its rollback begins with DROP TRIGGER: nothing before opens the table anew."""
LONG = "\n".join(f"IF NEW.id <=> {-number} THEN SET @nothing = {number}; END IF;" for number in range(1500))
"""The server takes a few milliseconds to read it."""


@pytest.fixture(scope="module")
def one_cache() -> Iterator[servers.Server]:
    """A server whose sessions all get the same copies of a table: by default they are spread over some stores."""
    with servers.start("mariadb", settings={"table-open-cache-instances": "1"}) as server:
        yield server


@pytest.fixture
def database(one_cache: servers.Server) -> Iterator[Database]:
    with fresh_database(one_cache) as made:
        yield made


def make(database: Database, table: str = "users") -> None:
    """The application has a long trigger of its own, which is read before those of the upgrade."""
    make_tables(database.engine, tables=(table,))
    with database.engine.begin() as connection:
        if table == "hollow":
            connection.exec_driver_sql("INSERT INTO hollow (id, word) VALUES (1, 'one')")
        connection.exec_driver_sql(f"CREATE TRIGGER long_one BEFORE UPDATE ON {table} FOR EACH ROW BEGIN {LONG} END")


def error_of(connection: sa.Connection, statement: str) -> str:
    try:
        connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        return str(error.orig)
    return ""


def spoil(database: Database, table: str = "users") -> None:
    """Let what opens the table run out of time, until the server has kept a broken copy, and no other one."""
    write = f"UPDATE {table} SET id = id WHERE id = 1"
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for attempt in range(2000):
            connection.exec_driver_sql(f"FLUSH TABLES {table}")
            error_of(connection, f"SET STATEMENT max_statement_time = {(attempt % 20 + 1) * 0.0005} FOR {write}")
            told = error_of(connection, write)
            if "has an error in its body" in told and "cf_" not in told:
                return  # not even the first of them was read
    pytest.fail("the server has not kept a broken copy of the table's triggers: has it got better?")


def triggers(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        query = "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = database()"
        return set(connection.exec_driver_sql(query).scalars())


def test_the_backfill_goes_on_where_the_server_has_lost_the_triggers(database: Database) -> None:
    make(database)
    told: list[Progress] = []
    with runner(database.url, NAMES, progress=told.append) as run:
        run.expand()
        spoil(database)
        run.migrate()
        run.verify()
    mended = [one.message for one in told if one.title == "mend triggers that the server lost"]
    assert mended
    assert "has an error in its body" in mended[0]


def test_triggers_are_made_where_the_server_has_lost_others(database: Database) -> None:
    make(database)
    with runner(database.url, NAMES) as run:
        spoil(database)
        run.expand()
        assert len(triggers(database)) == 3
        run.upgrade()


def test_no_trigger_is_lost_where_others_are_dropped(database: Database) -> None:
    """DROP TRIGGER would write down what the server has read of the others."""
    make(database, "hollow")
    with runner(database.url, WORD) as run:
        run.upgrade()
        with database.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TRIGGER another AFTER UPDATE ON hollow FOR EACH ROW SET @nothing = 0")
        spoil(database, "hollow")
        run.rollback()
    assert triggers(database) == {"long_one", "another"}


def test_a_trigger_goes_that_the_server_says_it_has_dropped(database: Database) -> None:
    """Such a one fires on, and the server knows it no more by its name."""
    make(database, "hollow")
    start = snapshot(database.engine)
    told: list[Progress] = []
    with runner(database.url, WORD, progress=told.append) as run:
        run.upgrade()
        spoil(database, "hollow")
        (name,) = (name for name in triggers(database) if name.endswith("_u"))
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        assert name in triggers(database), "the server has dropped it: has it got better?"
        run.rollback()
    assert [one.message for one in told if "does not exist" in one.message]
    assert triggers(database) == {"long_one"}
    assert snapshot(database.engine) == start
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE hollow SET word = 'two'")
