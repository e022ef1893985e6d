"""Each phase on a real server: done, repeated, undone, and gone on with after a kill between any two statements."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from contraflow.dialects.base import Adapter, LockTimeout
from contraflow.expressions import after, before, concat, trim
from contraflow.lens import Lens, Side
from contraflow.problems import ProblemError
from contraflow.steps import Hold
from tests.dialects.support import (
    MARKER,
    RENAME,
    TIMEOUT,
    Case,
    connected,
    fill,
    probe,
    rows,
    run,
    run_online,
    send,
    shape,
)
from tests.servers.shared import Database

SPLIT = Lens(
    old=["fullname"],
    new=["first_name", "last_name"],
    forward=lambda row: {"first_name": before(row.fullname, " "), "last_name": after(row.fullname, " ")},
    backward=lambda row: {"fullname": trim(concat(row.first_name, " ", row.last_name))},
)
CASE = Case(lens=SPLIT)
ALL = ("id", "fullname", "first_name", "last_name")


class Killed(Exception):
    """The runner dies here."""


@pytest.fixture
def live(database: Database) -> Iterator[tuple[sa.Connection, Adapter]]:
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, fullname VARCHAR(60) NOT NULL, age INTEGER)",
            "INSERT INTO users (id, fullname) VALUES (1, 'Ada Lovelace'), (2, 'Cher')",
        )
        yield connection, adapter


def test_an_upgrade_is_expanded_filled_and_contracted(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    run(connection, adapter, CASE.expand)
    send(
        connection,
        "INSERT INTO users (id, fullname) VALUES (3, 'Alan Turing')",
        "INSERT INTO users (id, first_name, last_name) VALUES (4, 'Grace', 'Hopper')",
    )
    assert probe(connection, adapter, CASE)["unsynced"] == 2
    assert sum(fill(connection, adapter, CASE)) == 2
    send(connection, "UPDATE users SET last_name = 'King' WHERE id = 1")
    assert probe(connection, adapter, CASE) == {
        "unsynced": 0,
        "fullname -> first_name, last_name": 0,
        "first_name": 0,
        "last_name": 0,
    }
    run_online(connection, adapter, CASE.enforce)
    run(connection, adapter, CASE.contract)
    assert adapter.find(connection, "users", None).columns == {
        "id": False,
        "age": True,
        "first_name": False,
        "last_name": False,
    }
    assert rows(connection, adapter, CASE, ("id", "first_name", "last_name")) == [
        (1, "Ada", "King"),
        (2, "Cher", ""),
        (3, "Alan", "Turing"),
        (4, "Grace", "Hopper"),
    ]
    with pytest.raises(sa.exc.DBAPIError):
        send(connection, "INSERT INTO users (id, first_name) VALUES (5, 'x')")
    # Visible again to statements that name no columns.
    assert len(connection.exec_driver_sql("SELECT * FROM users").first() or ()) == 4


def test_nothing_is_left_after_a_hold_and_it_may_be_repeated(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    for hold in (CASE.expand, CASE.rollback, CASE.expand, CASE.contract):
        if hold.title == "contract":
            fill(connection, adapter, CASE)
            run_online(connection, adapter, CASE.enforce)
            found = adapter.find(connection, "users", None)
            assert adapter.online(CASE.enforce, found) == []
        found = adapter.find(connection, "users", None)
        assert adapter.hold(hold, found)
        run(connection, adapter, hold)
        done = shape(connection, adapter, CASE)
        assert not adapter.hold(hold, done["found"])
        run(connection, adapter, hold)
        assert shape(connection, adapter, CASE) == done


def test_rollback_gives_back_the_schema_exactly(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    start = shape(connection, adapter, CASE)
    run(connection, adapter, CASE.expand)
    assert shape(connection, adapter, CASE) != start
    send(connection, "INSERT INTO users (id, first_name, last_name) VALUES (3, 'Grace', 'Hopper')")
    run(connection, adapter, CASE.rollback)
    assert shape(connection, adapter, CASE) == start
    assert rows(connection, adapter, CASE, ("id", "fullname"))[2] == (3, "Grace Hopper")


def test_a_hold_that_dies_between_two_statements_is_gone_on_with(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    for hold, undo in ((CASE.expand, CASE.rollback), (CASE.rollback, CASE.expand)):
        if hold.title == "rollback":
            run(connection, adapter, CASE.expand)
        start = shape(connection, adapter, CASE)
        whole = adapter.hold(hold, adapter.find(connection, "users", None))
        assert whole
        run(connection, adapter, hold)
        end = shape(connection, adapter, CASE)
        run(connection, adapter, undo)
        for count in range(len(whole)):
            assert shape(connection, adapter, CASE) == start
            _die_after(connection, adapter, hold, count)
            if adapter.transactional_ddl:
                assert shape(connection, adapter, CASE) == start
            run(connection, adapter, hold)
            assert shape(connection, adapter, CASE) == end, f"{hold.title}, killed after {whole[:count]}"
            run(connection, adapter, undo)


def _die_after(connection: sa.Connection, adapter: Adapter, hold: Hold, count: int) -> None:
    with contextlib.suppress(Killed), adapter.holding(connection, hold, TIMEOUT):
        statements = adapter.hold(hold, adapter.find(connection, hold.table, hold.schema))
        adapter.execute(connection, statements[:count])
        raise Killed


def test_every_prefix_of_expand_is_harmless_to_the_old_release(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    whole = adapter.hold(CASE.expand, adapter.find(connection, "users", None))
    for count in range(len(whole) + 1):
        _die_after(connection, adapter, CASE.expand, count)
        # As an old node writes: without column names too, which hidden columns allow.
        # SQLite hides no columns, but there a killed hold leaves none.
        send(
            connection,
            f"INSERT INTO users VALUES ({10 + count}, 'Old Node', 1)",
            f"UPDATE users SET fullname = 'Ada {count}' WHERE id = 1",
            f"INSERT INTO users (id, fullname) VALUES ({30 + count}, 'Brief One')",
            f"UPDATE users SET fullname = 'Brief Two' WHERE id = {30 + count}",
            f"DELETE FROM users WHERE id = {10 + count}",
        )
        run(connection, adapter, CASE.expand)
        fill(connection, adapter, CASE)
        assert set(probe(connection, adapter, CASE).values()) == {0}
        found = rows(connection, adapter, CASE, ALL)
        assert found[0] == (1, f"Ada {count}", "Ada", str(count))
        assert found[-1] == (30 + count, "Brief Two", "Brief", "Two")
        run(connection, adapter, CASE.rollback)


@pytest.mark.parametrize("winner", ["new", "old"])
def test_every_prefix_of_contract_is_harmless_to_the_new_release(
    live: tuple[sa.Connection, Adapter], winner: Side
) -> None:
    connection, adapter = live
    case = Case(lens=dataclasses.replace(SPLIT, winner=winner))
    count, length = 0, 1
    while count <= length:
        send(connection, "DROP TABLE users")
        send(
            connection,
            "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, fullname VARCHAR(60) NOT NULL, age INTEGER)",
            "INSERT INTO users (id, fullname) VALUES (1, 'Ada Lovelace')",
        )
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        run_online(connection, adapter, case.enforce)
        length = len(adapter.hold(case.contract, adapter.find(connection, "users", None)))
        _die_after(connection, adapter, case.contract, count)
        send(
            connection,
            "INSERT INTO users (id, first_name, last_name) VALUES (2, 'Grace', 'Hopper')",
            "UPDATE users SET first_name = 'Ava' WHERE id = 1",
            "UPDATE users SET age = 1 WHERE id = 2",
        )
        run(connection, adapter, case.contract)
        assert rows(connection, adapter, case, ("id", "first_name", "last_name")) == [
            (1, "Ava", "Lovelace"),
            (2, "Grace", "Hopper"),
        ]
        count += 1


def test_another_sync_of_the_same_name_is_replaced_and_every_row_counts_as_never_synced(
    live: tuple[sa.Connection, Adapter],
) -> None:
    connection, adapter = live
    earlier = Case(lens=RENAME)
    run(connection, adapter, earlier.expand)
    fill(connection, adapter, earlier)
    grown = Case(lens=Lens(old=["fullname"], new=["display_name"], forward=RENAME.forward, winner="old"))
    assert grown.sync.fingerprint != earlier.sync.fingerprint
    whole = adapter.hold(grown.expand, adapter.find(connection, "users", None))
    for count in range(len(whole) + 1):
        run(connection, adapter, earlier.expand)
        fill(connection, adapter, earlier)
        _die_after(connection, adapter, grown.expand, count)
        send(connection, f"UPDATE users SET fullname = 'Ada {count}' WHERE id = 1")
        run(connection, adapter, grown.expand)
        found = adapter.find(connection, "users", None)
        assert not adapter.hold(grown.expand, found)
        assert all(grown.sync.fingerprint in text for text in found.triggers.values())
        fill(connection, adapter, grown)
        assert rows(connection, adapter, grown, ("fullname", "display_name"))[0] == (f"Ada {count}",) * 2


def test_a_long_reader_delays_a_hold_no_longer_than_the_timeout_and_nothing_is_left(
    database: Database, live: tuple[sa.Connection, Adapter]
) -> None:
    connection, adapter = live
    start = shape(connection, adapter, CASE)
    with database.engine.connect() as other:
        # SQLite's readers are in nobody's way in WAL mode; there it takes a writer.
        if adapter.product == "sqlite":
            other.exec_driver_sql("BEGIN IMMEDIATE")
        other.exec_driver_sql("SELECT * FROM users").all()
        with pytest.raises(LockTimeout):
            run(connection, adapter, CASE.expand)
        # Neither a lock nor a place in the queue is kept.
        if adapter.product != "sqlite":
            send(connection, "UPDATE users SET age = 7")
    assert shape(connection, adapter, CASE) == start
    run(connection, adapter, CASE.expand)


def test_a_lock_timeout_is_told_from_other_errors(database: Database, live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    with database.engine.begin() as other:
        if adapter.product == "sqlite":
            other.exec_driver_sql("BEGIN IMMEDIATE")
        other.exec_driver_sql("UPDATE users SET age = 1 WHERE id = 1")
        with pytest.raises((sa.exc.DBAPIError, LockTimeout)) as caught, adapter.transaction(connection, 0.05):
            send(connection, "UPDATE users SET age = 2 WHERE id = 1")
    assert adapter.is_lock_timeout(caught.value)
    with pytest.raises(sa.exc.DBAPIError) as other_error:
        send(connection, "SELECT nothing FROM nowhere")
    assert not adapter.is_lock_timeout(other_error.value)
    assert not adapter.is_lock_timeout(ValueError("lock"))


def test_a_transaction_is_rolled_back_on_an_error_and_kept_without(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    with contextlib.suppress(Killed), adapter.transaction(connection, TIMEOUT):
        send(connection, "DELETE FROM users")
        raise Killed
    assert len(rows(connection, adapter, CASE, ("id",))) == 2
    with adapter.transaction(connection, TIMEOUT):
        send(connection, "DELETE FROM users WHERE id = 1")
    assert rows(connection, adapter, CASE, ("id",)) == [(2,)]


def test_nothing_is_taken_from_a_table_that_is_gone_and_nothing_can_be_put_there(
    live: tuple[sa.Connection, Adapter],
) -> None:
    connection, adapter = live
    send(connection, "DROP TABLE users")
    found = adapter.find(connection, "users", None)
    assert not found.exists
    assert adapter.hold(CASE.rollback, found) == []
    with pytest.raises(ProblemError, match="CF101"):
        adapter.hold(CASE.expand, found)


def test_a_new_column_that_somebody_dropped_is_a_problem(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    found = adapter.find(connection, "users", None)
    with pytest.raises(ProblemError, match="CF101: the table users has no column first_name, last_name"):
        adapter.hold(CASE.contract, found)
    with pytest.raises(ProblemError, match="CF101"):
        adapter.online(CASE.enforce, found)


def test_a_plan_without_a_database_names_every_statement_and_its_lock(live: tuple[sa.Connection, Adapter]) -> None:
    connection, adapter = live
    found = adapter.find(connection, "users", None)
    live_plan = adapter.hold(CASE.expand, found)
    if adapter.product != "sqlite":  # there the table's own text is needed
        blind = adapter.hold(CASE.expand, None)
        # A trigger's body may say less once the columns are known.
        assert [(one.sql.split(" FOR EACH")[0], one.lock) for one in blind] == [
            (one.sql.split(" FOR EACH")[0], one.lock) for one in live_plan
        ]
    for hold in (CASE.expand, CASE.contract, CASE.rollback):
        statements = [*adapter.opening(hold, TIMEOUT), *adapter.hold(hold, None), *adapter.closing(hold)]
        assert all(
            statement.lock
            for statement in statements
            if statement.sql.startswith(("ALTER", "LOCK", "CREATE TRIGGER", "DROP TRIGGER"))
        )
        assert any(MARKER in statement.sql for statement in statements)
