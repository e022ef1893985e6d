"""Readers and writers in the way: the engine steps back, and nobody queues behind it for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.dialects.base import Statement
from contraflow.engine import Options, Progress, State
from contraflow.engine.journal import Event, Journal, Tables
from contraflow.problems import ProblemError
from tests.engine import service
from tests.servers.shared import Database

USERS = ("users",)


@pytest.fixture
def users(database: Database) -> Database:
    service.make_tables(database.engine, tables=USERS)
    return database


@contextmanager
def transaction_in_the_way(database: Database, *statements: str) -> Iterator[sa.Connection]:
    """A transaction that keeps its locks until the block ends."""
    with database.engine.connect() as connection:
        begin = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN"
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(begin)
        for statement in statements:
            connection.exec_driver_sql(statement)
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")


def blocker(database: Database) -> str:
    """What keeps a hold out: a long reader; on SQLite, where readers keep nobody out, a writer."""
    if database.kind.startswith("sqlite"):
        return "UPDATE users SET visits = visits WHERE id = 5"
    return "SELECT count(*) FROM users"


def events(database: Database) -> list[Event]:
    journal = Journal(tables=Tables(), runner="")
    with database.engine.connect() as connection:
        return journal.events(connection, journal.entries(connection)[-1])


class Patient:
    """A clock that only moves when somebody sleeps, so that patience is a number of tries."""

    def __init__(self) -> None:
        self.time = 0.0
        self.rests: list[float] = []

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.time += seconds


def test_a_hold_behind_a_long_reader_steps_back_and_writers_go_on(users: Database) -> None:
    tries_to_see = 4
    release = threading.Event()
    entered = threading.Event()

    def read_for_long() -> None:
        with transaction_in_the_way(users, blocker(users)):
            entered.set()
            release.wait(300)

    wrote: list[int] = []

    def between_two_tries(_seconds: float) -> None:
        # The engine rests here: whoever queued behind its try has its lock now.
        if not users.kind.startswith("sqlite"):
            with users.engine.begin() as connection:
                service.run(connection, "UPDATE users SET full_name = :name WHERE id = 7", name=f"Try {len(wrote)}")
        wrote.append(1)
        if len(wrote) == tries_to_see:
            release.set()
            reader.join()

    def told(progress: Progress) -> None:
        if progress.title == "expand users" and not entered.is_set():
            reader.start()
            assert entered.wait(300)

    reader = threading.Thread(target=read_for_long)
    upgrade = service.upgrade(tables=USERS)
    with service.runner(users.url, upgrade, sleep=between_two_tries, progress=told) as runner:
        runner.expand()
        assert runner.status().state is State.EXPANDED
    (hold,) = [event for event in events(users) if event.kind == "done" and event.title == "expand users"]
    assert hold.tries is not None
    assert hold.tries > tries_to_see
    if not users.kind.startswith("sqlite"):
        with users.engine.connect() as connection:
            row = connection.execute(sa.text("SELECT full_name, first_name FROM users WHERE id = 7")).one()
        assert row.full_name == f"Try {len(wrote) - 1}"


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_a_lock_that_is_never_had(users: Database) -> None:
    patient = Patient()
    options = Options(lock_timeout=0.05, lock_patience=1.0)
    before = service.snapshot(users.engine)
    with (
        transaction_in_the_way(users, blocker(users)),
        service.runner(
            users.url, service.upgrade(tables=USERS), options=options, clock=patient.clock, sleep=patient.sleep
        ) as runner,
    ):
        with pytest.raises(ProblemError) as raised:
            runner.expand()
        (problem,) = raised.value.problems
        assert problem.code == "CF006"
        assert "users" in problem.what
        assert all(0.05 <= rest <= 2.0 for rest in patient.rests)
        assert len(patient.rests) >= 3
    assert service.snapshot(users.engine) == before
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.run("contract")


WRITER = "UPDATE users SET visits = visits WHERE id = 5"


@pytest.mark.only_on("sqlite")
def test_another_writer_of_the_database_is_told_from_a_refusal(users: Database) -> None:
    """SQLite's one lock keeps the journal out, too."""
    impatient = Options(lock_timeout=0.05, lock_patience=0.2)
    upgrade = service.upgrade(tables=USERS)
    with service.runner(users.url, upgrade, options=impatient) as runner:
        with transaction_in_the_way(users, WRITER):
            assert codes(runner.expand) == ["CF006"]
        runner.expand()
        for verb in (runner.migrate, runner.rollback):
            with transaction_in_the_way(users, WRITER):
                assert codes(verb) == ["CF006"]
        # Between two blocks, when the runner has its own lock already.
        ways: list[Any] = []

        def told(progress: Progress) -> None:
            if progress.title == "backfill users" and not ways:
                ways.append(transaction_in_the_way(users, WRITER))
                ways[0].__enter__()

        with service.runner(users.url, upgrade, options=impatient, progress=told) as second:
            assert codes(second.migrate) == ["CF006"]
        ways[0].__exit__(None, None, None)
        runner.run("contract")


@pytest.mark.only_on("sqlite")
def test_a_second_runner_beside_a_long_statement_is_told_of_the_first(users: Database) -> None:
    impatient = Options(lock_timeout=0.05, lock_patience=0.2)
    upgrade = service.upgrade(tables=USERS)
    told: list[list[str]] = []
    second = service.runner(users.url, upgrade, options=impatient)

    def inside_the_hold(statement: Statement) -> None:
        if statement.sql.startswith("CREATE TRIGGER") and not told:
            told.append(codes(second.expand))

    with second, service.runner(users.url, upgrade, before_statement=inside_the_hold) as first:
        first.expand()
    assert told == [["CF001"]]


@pytest.mark.only_on("sqlite")
def test_a_statement_that_outlasts_the_lease_keeps_the_lock(users: Database) -> None:
    """Its own lock keeps the heartbeat out, so nobody else can have taken it either."""
    options = Options(lock_timeout=0.2, lease=0.4)
    upgrade = service.upgrade(tables=USERS)

    def slowly(statement: Statement) -> None:
        if statement.sql.startswith("ALTER TABLE") and "DROP COLUMN" in statement.sql:
            time.sleep(1.0)

    with service.runner(users.url, upgrade, options=options, before_statement=slowly) as runner:
        runner.run("contract")
        assert runner.status().state is State.CONTRACTED


def codes(verb: Callable[[], None]) -> list[str]:
    with pytest.raises(ProblemError) as raised:
        verb()
    return [problem.code for problem in raised.value.problems]


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_a_contract_that_never_had_its_lock_can_be_rolled_back(users: Database) -> None:
    patient = Patient()
    options = Options(lock_timeout=0.05, lock_patience=1.0)
    before = service.snapshot(users.engine)
    with service.runner(
        users.url, service.upgrade(tables=USERS), options=options, clock=patient.clock, sleep=patient.sleep
    ) as runner:
        runner.upgrade()
        with transaction_in_the_way(users, blocker(users)):
            with pytest.raises(ProblemError, match="CF006"):
                runner.contract()
            assert runner.status().pending is None
        runner.rollback()
    assert service.snapshot(users.engine) == before


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_a_backfill_behind_a_locked_row_gets_smaller_and_waits(users: Database) -> None:
    rests: list[float] = []
    locked = transaction_in_the_way(users, "UPDATE users SET visits = 9 WHERE id = 6")

    def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            locked.__exit__(None, None, None)

    with service.runner(users.url, service.upgrade(tables=USERS), sleep=rest) as runner:
        runner.expand()
        rests.clear()
        locked.__enter__()
        runner.migrate()
        assert runner.status().state is State.MIGRATED
        runner.verify()
    assert len(rests) >= 3


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_a_backfill_behind_rows_that_are_deleted_meanwhile(users: Database) -> None:
    """Those were the last ones of the table: when it tries again, there is nothing beyond the checkpoint."""
    with users.engine.connect() as writer:

        def rest(_seconds: float) -> None:
            writer.commit()

        with service.runner(users.url, service.upgrade(tables=USERS), sleep=rest) as runner:
            runner.expand()
            service.run(writer, "DELETE FROM users WHERE id >= 4")
            runner.migrate()
            runner.verify()
    with users.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT id, last_name FROM users ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(number, f"Last{number}") for number in range(4)]


def test_rows_that_come_behind_the_backfills_back_are_filled_too(users: Database) -> None:
    """A row that is unsynced although the sync stands (written with triggers off), at a key that is passed already."""
    done: list[int] = []

    def told(progress: Progress) -> None:
        if progress.phase == "migrate" and progress.done >= 8 and not done:
            done.append(progress.done)
            with users.engine.begin() as connection:
                service.run(
                    connection, "UPDATE users SET cf_marker = NULL, first_name = NULL, last_name = NULL WHERE id = 0"
                )

    with service.runner(users.url, service.upgrade(tables=USERS), progress=told) as runner:
        runner.upgrade()
        assert runner.status().state is State.VERIFIED
    assert done


def test_a_backfill_lets_writers_in_where_they_do_not_queue(users: Database) -> None:
    rests: list[float] = []
    options = Options(lock_timeout=0.2, latency_budget=1e-9)  # each batch takes as long as several may
    with service.runner(users.url, service.upgrade(tables=USERS), options=options, sleep=rests.append) as runner:
        runner.expand()
        rests.clear()
        runner.migrate()
        assert runner.status().state is State.MIGRATED
    polls = users.engine.dialect.name == "sqlite"
    assert bool(rests) is polls
    assert all(rest >= 0.025 for rest in rests)
