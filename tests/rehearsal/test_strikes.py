"""Each strike really hurts while it lasts, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from contraflow import faults
from contraflow.faults import Fault as Class
from contraflow.rehearsal import servers
from contraflow.rehearsal.faults import KINDS, Fault
from contraflow.rehearsal.strikes import STRIKES, Striking
from tests.rehearsal.stage import Load, SmallStage, small_stage

LONG = 600.0  # seconds: each test ends its strike itself
NETWORK = pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")


@pytest.fixture
def stage(server: servers.Server) -> Iterator[SmallStage]:
    with small_stage(server) as made:
        yield made


@pytest.fixture
def own_stage(private_server: servers.Server) -> Iterator[SmallStage]:
    """On a server that may be hurt."""
    with small_stage(private_server) as made:
        yield made


def fault(kind: str, seconds: float = LONG) -> Fault:
    if "both" in KINDS[kind].phases:
        return Fault(kind=kind, phase="both", share=0.0, seconds=seconds)
    return Fault(kind=kind, phase="expand", statement=1, seconds=seconds)


@contextlib.contextmanager
def striking(stage: SmallStage, kind: str, seconds: float = LONG) -> Iterator[None]:
    """Let a fault last while the block runs; afterwards no session of its is left."""
    before = sessions(stage)
    one = Striking(fault(kind, seconds), stage, "0")
    one.wait_until_begun()
    try:
        assert not stage.faults or seconds < LONG, stage.faults  # it lasts
        yield
    finally:
        one.stop()
    assert [found.kind for found in stage.faults] == [kind]
    eventually(lambda: sessions(stage) <= before, "its sessions are gone")


def eventually(condition: Callable[[], bool], what: str, patience: float = 300) -> None:
    """Wait for what another process is about to do; the limit only ends a failing test."""
    limit = time.monotonic() + patience
    while not condition():
        if time.monotonic() > limit:
            pytest.fail(f"still not so after {patience} s: {what}")
        time.sleep(0.02)


def engine_of(url: sa.URL) -> sa.Engine:
    arguments = {"timeout": 0.1} if url.get_backend_name() == "sqlite" else {}
    return sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)


def sessions(stage: SmallStage) -> int:
    """How many sessions use the stage's database, this one apart."""
    queries = {
        "postgresql": "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()",
        "mysql": "SELECT count(*) - 1 FROM information_schema.processlist WHERE db = database()",
    }
    with engine_of(stage.url).connect() as connection:
        query = queries.get({"mariadb": "mysql"}.get(connection.dialect.name, connection.dialect.name), "SELECT 0")
        found: int = connection.exec_driver_sql(query).scalar_one()
        return found


def can_lock(stage: SmallStage) -> bool:
    """Whether the users table can be had for oneself."""
    with engine_of(stage.url).connect() as connection:
        statements = {
            "sqlite": ["BEGIN IMMEDIATE", "ROLLBACK"],
            "postgresql": ["SET lock_timeout = '50ms'", "BEGIN", "LOCK TABLE users", "ROLLBACK"],
        }.get(connection.dialect.name, ["SET lock_wait_timeout = 1", "LOCK TABLES users WRITE", "UNLOCK TABLES"])
        try:
            for statement in statements:
                connection.exec_driver_sql(statement)
        except sa.exc.DBAPIError as error:
            if faults.diagnose(error).fault is not Class.LOCK_TIMEOUT:
                raise
            return False
        return True


def test_every_kind_but_the_runners_own_has_a_strike() -> None:
    own = {
        "release-taken-back",
        "runner-killed",
        "runner-cut",
        "second-runner",
        "rolled-back",
        "clock-step",
        "disk-full",
    }
    assert set(STRIKES) == set(KINDS) - own


# -- transactions ---


@NETWORK
def test_a_long_reader_keeps_the_table(stage: SmallStage) -> None:
    eventually(lambda: can_lock(stage), "the table is free, also of the server's own housekeeping")
    with striking(stage, "long-reader"):
        assert not can_lock(stage)
    eventually(lambda: can_lock(stage), "the table is free, also of the server's own housekeeping")
    assert stage.faults[0].detail == "2 tables read"


@pytest.mark.only_on("sqlite")
def test_a_long_reader_keeps_its_snapshot(stage: SmallStage) -> None:
    def checkpoint_is_kept_waiting() -> int:
        with engine_of(stage.url).connect() as connection:
            connection.exec_driver_sql("UPDATE users SET visits = visits + 1")
            busy: int = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
            return busy

    assert not checkpoint_is_kept_waiting()
    with striking(stage, "long-reader"):
        assert checkpoint_is_kept_waiting()
    assert not checkpoint_is_kept_waiting()


def test_a_transaction_left_open_keeps_the_table_and_changes_no_row(stage: SmallStage) -> None:
    eventually(lambda: can_lock(stage), "the table is free, also of the server's own housekeeping")
    with striking(stage, "idle-in-transaction"):
        assert not can_lock(stage)
        if stage.url.get_backend_name() != "sqlite":
            with engine_of(stage.url).connect() as connection:  # beside it, writers go on
                connection.exec_driver_sql("UPDATE users SET visits = visits + 1")
    eventually(lambda: can_lock(stage), "the table is free, also of the server's own housekeeping")


def test_a_lock_storm_takes_locks(stage: SmallStage) -> None:
    def is_locked() -> bool:
        if stage.url.get_backend_name() not in ("mysql", "mariadb"):
            return not can_lock(stage)
        # There a try for a table's lock waits for whole seconds, much longer than a storm's locks last.
        with engine_of(stage.url).connect() as connection:
            return bool(connection.exec_driver_sql("SHOW OPEN TABLES WHERE `Table` = 'users' AND In_use > 0").all())

    with striking(stage, "lock-storm"):
        eventually(is_locked, "a lock was not had because of it")
    eventually(lambda: can_lock(stage), "the table is free, also of the server's own housekeeping")
    assert int(stage.faults[0].detail.split()[0]) > 0


@NETWORK
def test_deadlocks_hit_whoever_locks_several_rows(stage: SmallStage) -> None:
    hit = threading.Event()

    def work() -> None:
        with engine_of(stage.url).connect() as connection:
            while not hit.is_set():
                connection.exec_driver_sql("BEGIN")
                try:
                    for key in range(30):
                        connection.exec_driver_sql(f"SELECT visits FROM users WHERE id = {key} FOR UPDATE")
                except sa.exc.DBAPIError as error:
                    if faults.diagnose(error).fault is Class.DEADLOCK:
                        hit.set()
                connection.exec_driver_sql("ROLLBACK")

    with striking(stage, "deadlocks"):
        worker = threading.Thread(target=work)
        worker.start()
        found = hit.wait(300)
        hit.set()
        worker.join()
    assert found


# -- connections ---


@NETWORK
def test_workers_lose_their_connections(stage: SmallStage) -> None:
    with Load(stage=stage).running() as load:
        eventually(lambda: load.at_work, "they work")
        with striking(stage, "worker-cut", 0.0):
            pass
        eventually(lambda: load.retried["disconnect"] > 0, "they notice")
        more = len(load.written)
        eventually(lambda: len(load.written) > more + 5, "they go on")
    assert int(stage.faults[0].detail.split()[0]) >= 3
    assert load.failed == []


@NETWORK
def test_answers_to_commit_are_lost_and_the_commits_are_not(stage: SmallStage) -> None:
    with Load(stage=stage).running() as load:
        # Making a connection may take a COMMIT, too: psycopg looks up types in a transaction.
        eventually(lambda: load.at_work, "they are connected and work")
        with striking(stage, "commit-lost"):
            eventually(lambda: load.retried["commit unknown"] > 0, "a commit is unknown")
        more = len(load.written)
        eventually(lambda: len(load.written) > more + 5, "they go on")
    assert int(stage.faults[0].detail.split()[0]) >= load.retried["commit unknown"]
    with engine_of(stage.url).connect() as connection:
        found = set(connection.exec_driver_sql("SELECT id FROM users WHERE id >= 1000").scalars())
    assert found == set(load.written)  # none lost, none left over
    assert load.failed == []


@NETWORK
def test_commits_lose_a_conflict_and_are_made_again(stage: SmallStage) -> None:
    word = "serialization" if stage.url.get_backend_name() == "postgresql" else "deadlock"
    with Load(stage=stage).running() as load:
        eventually(lambda: load.at_work, "they are connected and work")
        with striking(stage, "serialization-failed"):
            eventually(lambda: load.retried[word] > 2, "commits are refused")
            more = len(load.written)
            eventually(lambda: len(load.written) > more + 2, "some are not")
    # One that the library itself sent while the strike began or ended may be among them.
    assert int(stage.faults[0].detail.split()[0]) >= load.retried[word]
    with engine_of(stage.url).connect() as connection:
        found = list(connection.exec_driver_sql("SELECT id FROM users WHERE id >= 1000").scalars())
    assert sorted(found) == sorted(load.written)
    assert load.failed == []


@NETWORK
def test_messages_are_delayed(stage: SmallStage) -> None:
    with engine_of(stage.worker_url()).connect() as connection:

        def took() -> float:
            began = time.monotonic()
            connection.exec_driver_sql("SELECT 1")
            return time.monotonic() - began

        took()
        with striking(stage, "worker-delayed"):
            assert took() >= 0.02  # what the shortest delay is


@NETWORK
def test_a_black_hole_says_nothing_until_it_is_cut(stage: SmallStage) -> None:
    ended: list[BaseException] = []

    def ask(connection: sa.Connection) -> None:
        try:
            connection.exec_driver_sql("SELECT 1")
        except sa.exc.DBAPIError as error:
            ended.append(error)

    with engine_of(stage.worker_url()).connect() as connection:
        with striking(stage, "black-hole"):
            asking = threading.Thread(target=ask, args=(connection,))
            asking.start()
            asking.join(0.3)
            assert asking.is_alive()
            with engine_of(stage.worker_url()).connect() as another:  # a new one passes
                another.exec_driver_sql("SELECT 1")
        asking.join()
        connection.invalidate()
    assert [faults.diagnose(error).fault for error in ended] == [Class.DISCONNECT]
    assert stage.faults[0].detail == "1 connections"


# -- servers ---


@NETWORK
def test_the_server_is_out_of_connections(own_stage: SmallStage) -> None:
    with striking(own_stage, "out-of-connections"):
        with pytest.raises(sa.exc.OperationalError) as caught:
            engine_of(own_stage.url).connect()
        assert faults.diagnose(caught.value).fault is Class.UNAVAILABLE
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(engine_of(own_stage.url).connect())


@NETWORK
@pytest.mark.parametrize("kind", ["server-killed", "server-restarted"])
def test_the_server_goes_and_comes_back_with_all_that_was_committed(own_stage: SmallStage, kind: str) -> None:
    with Load(stage=own_stage).running() as load:
        eventually(lambda: load.at_work, "they work")
        with striking(own_stage, kind, 0.2):
            pass
        more = len(load.written)
        eventually(lambda: len(load.written) > more + 5, "they go on")
    assert load.retried
    assert load.failed == []
    with engine_of(own_stage.url).connect() as connection:
        found = set(connection.exec_driver_sql("SELECT id FROM users WHERE id >= 1000").scalars())
    assert found == set(load.written)
