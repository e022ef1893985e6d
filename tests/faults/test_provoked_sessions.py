"""Faults that take a second session, an account or a setting to provoke, on every server with every driver."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow import faults
from contraflow.faults import Fault
from contraflow.rehearsal import servers
from contraflow.rehearsal.servers.base import free_port
from tests.faults.drivers import FAMILY, Driver, drivers_of
from tests.faults.test_provoked import check, sql
from tests.servers.shared import Database

Work = Callable[[sa.Connection], object]
NETWORKED = ("postgresql", "postgresql15", "mariadb", "mysql")


@pytest.fixture(autouse=True)
def table(request: pytest.FixtureRequest) -> None:
    """A table of two rows, where the test has a database."""
    if "database" in request.fixturenames:
        database: Database = request.getfixturevalue("database")
        with database.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL)")
            connection.exec_driver_sql("INSERT INTO t VALUES (1, 0), (2, 0)")


def is_postgresql(database: Database) -> bool:
    return FAMILY[database.kind] == "postgresql"


def statements(*texts: str) -> Work:
    """Run all of ``texts``, one after the other."""

    def work(connection: sa.Connection) -> None:
        for text in texts:
            sql(text)(connection)

    return work


@contextmanager
def other(database: Database, *texts: str) -> Iterator[sa.Connection]:
    """Another session's open transaction, after ``texts``."""
    with database.engine.connect() as connection:
        statements(*texts)(connection)
        yield connection


@pytest.mark.only_on(*NETWORKED)
@pytest.mark.parametrize("statement", ["UPDATE t SET n = 2 WHERE id = 1", "ALTER TABLE t ADD COLUMN x INTEGER"])
def test_lock_timeout(driver: Driver, database: Database, statement: str) -> None:
    limits = (
        ["SET lock_timeout = '50ms'"]
        if is_postgresql(database)
        else ["SET innodb_lock_wait_timeout = 1", "SET lock_wait_timeout = 1"]
    )
    with other(database, "UPDATE t SET n = 1 WHERE id = 1"):
        check(driver.fails(statements(*limits, statement)), Fault.LOCK_TIMEOUT)


@pytest.mark.only_on(*NETWORKED)
def test_nowait(driver: Driver, database: Database) -> None:
    with other(database, "UPDATE t SET n = 1 WHERE id = 1"):
        check(driver.fails(sql("SELECT * FROM t WHERE id = 1 FOR UPDATE NOWAIT")), Fault.LOCK_TIMEOUT)


@pytest.mark.only_on(*NETWORKED)
def test_deadlock(driver: Driver, database: Database) -> None:
    """The other session is made the heavier or the more patient one, so the driver's is chosen to die."""
    patient = ["SET deadlock_timeout = '10min'"] if is_postgresql(database) else []
    hasty = ["SET deadlock_timeout = '50ms'"] if is_postgresql(database) else []
    heavier = "INSERT INTO t VALUES " + ", ".join(f"({n}, {n})" for n in range(10, 60))

    def ignore_errors(connection: sa.Connection) -> None:
        connection.exec_driver_sql("UPDATE t SET n = 1 WHERE id = 2")

    with other(database, *patient, heavier, "UPDATE t SET n = 1 WHERE id = 1") as holder:
        waiting = session_of(holder)
        waiter = threading.Thread(target=ignore_errors, args=(holder,))

        def work(connection: sa.Connection) -> None:
            statements(*hasty, "UPDATE t SET n = 2 WHERE id = 2")(connection)
            waiter.start()
            if is_postgresql(database):  # which looks for a deadlock once: the other one must wait by then
                until_it_waits(database, waiting)
            connection.exec_driver_sql("UPDATE t SET n = 2 WHERE id = 1")

        error = check(driver.fails(work), Fault.DEADLOCK)
        waiter.join(300)
        assert not waiter.is_alive()
    assert error.fault.loses_transaction("postgresql" if is_postgresql(database) else "mysql")


def until_it_waits(database: Database, session: int) -> None:
    """Wait until the session waits for a lock of another one, on PostgreSQL."""
    waits = f"SELECT 1 FROM pg_locks WHERE pid = {session} AND NOT granted"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.exec_driver_sql(waits).scalar():
            pass


@pytest.mark.only_on("postgresql", "postgresql15")
def test_serialization_failures(driver: Driver, database: Database) -> None:
    def update(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT * FROM t")
        sql_elsewhere(database, "UPDATE t SET n = 5 WHERE id = 1")
        connection.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")

    def write_skew_at_commit(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT sum(n) FROM t")
        connection.exec_driver_sql("UPDATE t SET n = 6 WHERE id = 2")
        with database.engine.connect().execution_options(isolation_level="SERIALIZABLE") as rival:
            rival.exec_driver_sql("SELECT sum(n) FROM t")
            rival.exec_driver_sql("UPDATE t SET n = 7 WHERE id = 1")
            rival.commit()
        connection.commit()

    check(driver.fails(update, isolation_level="REPEATABLE READ"), Fault.SERIALIZATION)
    check(driver.fails(write_skew_at_commit, isolation_level="SERIALIZABLE"), Fault.SERIALIZATION)


@pytest.mark.only_on("mariadb")
def test_a_row_newer_than_the_snapshot(driver: Driver, database: Database) -> None:
    """1020, where MariaDB is told to notice (the default since 11.6). It rolls the whole transaction back."""

    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET innodb_snapshot_isolation = 1")
        connection.commit()
        connection.exec_driver_sql("SELECT * FROM t WHERE id = 2")
        connection.exec_driver_sql("INSERT INTO t VALUES (3, 3)")
        sql_elsewhere(database, "UPDATE t SET n = 5 WHERE id = 1")
        try:
            connection.exec_driver_sql("UPDATE t SET n = 6 WHERE id = 1")
        finally:
            # 1020 comes from the server with its transaction rolled back: nothing of it can be committed.
            connection.connection.commit()

    check(driver.fails(work), Fault.SERIALIZATION)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t WHERE id = 3").scalar() == 0


def sql_elsewhere(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.only_on(*NETWORKED)
def test_statement_timeout(driver: Driver, database: Database) -> None:
    if is_postgresql(database):
        work, fault = statements("SET statement_timeout = '50ms'", "SELECT pg_sleep(30)"), Fault.CANCELLED
    elif database.kind == "mariadb":
        work, fault = statements("SET max_statement_time = 0.05", "SELECT sleep(30)"), Fault.STATEMENT_TIMEOUT
    else:
        work = statements("SELECT /*+ MAX_EXECUTION_TIME(50) */ count(*) FROM t a, t b, t c WHERE sleep(5) = 0")
        fault = Fault.STATEMENT_TIMEOUT
    error = check(driver.fails(work), fault)
    assert isinstance(error, faults.Cancelled)  # the one class that means it everywhere


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do ``action`` in another thread."""
    thread = threading.Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join(300)
        assert not thread.is_alive()


def session_of(connection: sa.Connection) -> int:
    text = "SELECT pg_backend_pid()" if connection.dialect.name == "postgresql" else "SELECT connection_id()"
    session = connection.exec_driver_sql(text).scalar()
    assert isinstance(session, int)
    return session


def when_it_sleeps(database: Database, session: int, statement: str) -> None:
    """Run ``statement`` elsewhere as soon as ``session`` is in the middle of one."""
    if is_postgresql(database):
        busy = f"SELECT 1 FROM pg_stat_activity WHERE pid = {session} AND wait_event = 'PgSleep'"
    else:
        busy = f"SELECT 1 FROM information_schema.processlist WHERE id = {session} AND state = 'User sleep'"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(100_000):
            if connection.exec_driver_sql(busy).scalar():
                connection.exec_driver_sql(statement)
                return
    raise AssertionError("it never slept")


def sleeping(database: Database, statement: str) -> Work:
    """Sleep on the server until another session runs ``statement`` with this one's number."""
    asleep = "SELECT pg_sleep(60)" if is_postgresql(database) else "SELECT sleep(60) FROM t"

    def work(connection: sa.Connection) -> None:
        session = session_of(connection)
        with meanwhile(lambda: when_it_sleeps(database, session, statement.format(session))):
            connection.exec_driver_sql(asleep)

    return work


@pytest.mark.only_on(*NETWORKED)
def test_cancelled(driver: Driver, database: Database) -> None:
    statement = "SELECT pg_cancel_backend({})" if is_postgresql(database) else "KILL QUERY {}"
    check(driver.fails(sleeping(database, statement)), Fault.CANCELLED)


@pytest.mark.only_on(*NETWORKED)
def test_disconnected(driver: Driver, database: Database) -> None:
    """In the middle of a statement, while idle, and when a connection that is known to be lost is used again."""
    statement = "SELECT pg_terminate_backend({})" if is_postgresql(database) else "KILL CONNECTION {}"

    def idle(connection: sa.Connection) -> None:
        session = session_of(connection)
        sql_elsewhere(database, statement.format(session))
        while session in sessions(database):
            pass
        connection.exec_driver_sql("SELECT 1")

    def used_again(connection: sa.Connection) -> None:
        """Past SQLAlchemy, whose connection would not be used again: what the driver itself says."""
        bare = connection.connection
        session = session_of(connection)
        sql_elsewhere(database, statement.format(session))
        for _ in range(2):
            with pytest.raises(connection.dialect.loaded_dbapi.Error) as caught:
                bare.cursor().execute("SELECT 1")
            assert faults.classify(caught.value) is Fault.DISCONNECT, repr(caught.value)
        connection.exec_driver_sql("SELECT 1")

    for work in (sleeping(database, statement), idle):
        error = check(driver.fails(work), Fault.DISCONNECT)
        assert error.connection_invalidated
    check(driver.fails(used_again), Fault.DISCONNECT)


def sessions(database: Database) -> set[object]:
    text = (
        "SELECT pid FROM pg_stat_activity"
        if is_postgresql(database)
        else "SELECT id FROM information_schema.processlist"
    )
    with database.engine.connect() as connection:
        return set(connection.exec_driver_sql(text).scalars())


@pytest.mark.only_on("postgresql", "postgresql15")
def test_idle_in_transaction(driver: Driver, database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '50ms'")
        session = session_of(connection)
        while session in sessions(database):
            pass
        connection.exec_driver_sql("SELECT 1")

    check(driver.fails(work), Fault.DISCONNECT)


@pytest.mark.only_on("mariadb", "mysql")
def test_idle_too_long(driver: Driver, database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET wait_timeout = 1")
        session = session_of(connection)
        while session in sessions(database):
            pass
        connection.exec_driver_sql("SELECT 1")

    check(driver.fails(work), Fault.DISCONNECT)


@pytest.mark.only_on("postgresql", "postgresql15")
def test_cached_plan(driver: Driver, database: Database) -> None:
    """A plan older than an added column; another unsupported feature has the same SQLSTATE and another fault."""

    def work(connection: sa.Connection) -> None:
        if driver.name == "postgresql+asyncpg":  # SQLAlchemy prepares by itself
            connection.exec_driver_sql("SELECT * FROM t")
            connection.commit()
            sql_elsewhere(database, "ALTER TABLE t ADD COLUMN x INTEGER")
            connection.exec_driver_sql("SELECT * FROM t")
        else:
            connection.exec_driver_sql("PREPARE q AS SELECT * FROM t")
            connection.exec_driver_sql("EXECUTE q")
            connection.commit()
            sql_elsewhere(database, "ALTER TABLE t ADD COLUMN x INTEGER")
            connection.exec_driver_sql("EXECUTE q")

    check(driver.fails(work), Fault.SCHEMA_CHANGED)
    unsupported = check(driver.fails(sql("SELECT DISTINCT n FROM t FOR UPDATE")), Fault.OTHER)
    assert unsupported.diagnosis.sqlstate == "0A000"


@pytest.mark.only_on("mariadb", "mysql")
def test_table_newer_than_the_snapshot(driver: Driver, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE u (id INTEGER PRIMARY KEY)")

    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT * FROM u")
        sql_elsewhere(database, "ALTER TABLE t FORCE, ALGORITHM=COPY")
        connection.exec_driver_sql("SELECT * FROM t")

    error = check(driver.fails(work, isolation_level="REPEATABLE READ"), Fault.SCHEMA_CHANGED)
    assert error.diagnosis.errno == 1412


@pytest.mark.only_on("postgresql", "postgresql15")
def test_aborted_transaction(driver: Driver, database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        with pytest.raises(faults.BadSyntax):
            connection.exec_driver_sql("SELEC 1")
        connection.exec_driver_sql("SELECT 1")

    check(driver.fails(work), Fault.TRANSACTION_ABORTED)


@pytest.mark.only_on(*NETWORKED)
def test_read_only_transaction(driver: Driver, database: Database) -> None:
    begin = "SET TRANSACTION READ ONLY" if is_postgresql(database) else "START TRANSACTION READ ONLY"
    check(driver.fails(statements(begin, "UPDATE t SET n = 1")), Fault.READ_ONLY)


@pytest.fixture
def account(database: Database) -> Iterator[str]:
    """A new account that may log in, once at a time, and do nothing."""
    name = f"cf_{uuid.uuid4().hex[:10]}"
    postgresql = is_postgresql(database)
    create = f"ROLE {name} LOGIN CONNECTION LIMIT 1" if postgresql else f"USER {name} WITH MAX_USER_CONNECTIONS 1"
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE {create}")
        if not postgresql:
            connection.exec_driver_sql(f"GRANT SELECT ON {database.url.database}.t TO {name}")
    yield name
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP {'ROLE' if postgresql else 'USER'} {name}")


def as_user(driver: Driver, name: str) -> Driver:
    return Driver(driver.url.set(username=name), driver.installed)


@pytest.mark.only_on(*NETWORKED)
def test_no_permission(driver: Driver, database: Database, account: str) -> None:
    check(as_user(driver, account).fails(sql("UPDATE t SET n = 1")), Fault.PERMISSION)


def codeless(driver: Driver) -> bool:
    """Whether the driver hands on no code when connecting fails: libpq keeps it to itself."""
    return driver.name.startswith("postgresql+psycopg")


@pytest.mark.only_on(*NETWORKED)
def test_refused_while_connecting(driver: Driver, database: Database, account: str) -> None:
    """An unknown account, an unknown database, too many connections of one account, and no server at all."""
    limited = as_user(driver, account)

    def second_connection(connection: sa.Connection) -> None:
        with connection.engine.connect():
            pass

    stranger = as_user(driver, "nobody_at_all").fails(sql("SELECT 1"))
    assert faults.classify(stranger) is (Fault.UNAVAILABLE if codeless(driver) else Fault.PERMISSION)
    lost = Driver(driver.url.set(database="nosuch")).fails(sql("SELECT 1"))
    assert faults.classify(lost) is (Fault.UNAVAILABLE if codeless(driver) else Fault.NO_SUCH_DATABASE)
    assert faults.classify(limited.fails(second_connection)) is Fault.UNAVAILABLE
    nowhere = Driver(driver.url.set(port=free_port())).fails(sql("SELECT 1"))
    assert faults.classify(nowhere) is Fault.UNAVAILABLE
    # asyncpg's refused connections are the operating system's errors, and do not pass SQLAlchemy's events.
    assert isinstance(nowhere, ConnectionRefusedError if driver.name == "postgresql+asyncpg" else faults.Unavailable)


@pytest.mark.only_on(*NETWORKED)
def test_server_killed_in_the_middle_of_a_statement(private_server: servers.Server) -> None:
    """With every driver at once: SIGKILL, what a new connection then meets, and the server back again."""
    url = private_server.create_database()
    names = drivers_of(private_server.kind)
    errors: dict[str, Exception] = {}
    asleep = threading.Barrier(len(names) + 1)
    statement = "SELECT pg_sleep(60)" if FAMILY[private_server.kind] == "postgresql" else "SELECT sleep(60)"

    def work(connection: sa.Connection) -> None:
        session_of(connection)
        asleep.wait(300)
        connection.exec_driver_sql(statement)

    def victim(name: str) -> None:
        errors[name] = Driver.of(name, url).fails(work)

    threads = [threading.Thread(target=victim, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    asleep.wait(300)
    private_server.kill()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    refused = {name: Driver.of(name, url).fails(sql("SELECT 1")) for name in names}
    private_server.restart()
    for name in names:
        check(errors[name], Fault.DISCONNECT)
        assert faults.classify(refused[name]) is Fault.UNAVAILABLE, repr(refused[name])
        assert Driver.of(name, url).run(one) == 1


def one(engine: sa.Engine) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT 1").scalar()


def has_read_only_transactions(url: sa.URL) -> bool:
    with sa.create_engine(url, poolclass=sa.pool.NullPool).connect() as connection:
        return connection.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "on"


@pytest.mark.only_on(*NETWORKED)
def test_read_only_server(private_server: servers.Server) -> None:
    url = private_server.create_database()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        if FAMILY[private_server.kind] == "postgresql":
            connection.exec_driver_sql("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
            # The server's first process reads it some time later, and hands it on to new connections.
            while not has_read_only_transactions(url):
                pass
        elif private_server.kind == "mariadb":
            connection.exec_driver_sql("CREATE USER reader")
            connection.exec_driver_sql("GRANT INSERT ON *.* TO reader")
            connection.exec_driver_sql("SET GLOBAL read_only = 1")
        else:
            connection.exec_driver_sql("SET GLOBAL super_read_only = 1")
    engine.dispose()
    for name in drivers_of(private_server.kind):
        driver = Driver.of(name, url)
        if private_server.kind == "mariadb":  # where read_only does not hold for those who may set it
            driver = as_user(driver, "reader")
        check(driver.fails(sql("INSERT INTO t VALUES (1)")), Fault.READ_ONLY)


@pytest.mark.only_on("sqlite")
def test_sqlite_busy_of_both_kinds(driver: Driver, database: Database) -> None:
    def locked(connection: sa.Connection) -> None:
        statements("PRAGMA busy_timeout = 20", "UPDATE t SET n = 2")(connection)

    def stale(connection: sa.Connection) -> None:
        statements("PRAGMA busy_timeout = 20", "BEGIN", "SELECT * FROM t")(connection)
        sql_elsewhere(database, "UPDATE t SET n = 3")
        connection.exec_driver_sql("UPDATE t SET n = 4")

    with other(database, "UPDATE t SET n = 1"):
        error = check(driver.fails(locked), Fault.LOCK_TIMEOUT)
    assert error.diagnosis.errno == 5
    newer = hasattr(sqlite3, "SQLITE_BUSY_SNAPSHOT")  # Python 3.10 does not tell the one from the other
    check(driver.fails(stale), Fault.SERIALIZATION if newer else Fault.LOCK_TIMEOUT)


@pytest.mark.only_on("sqlite")
def test_sqlite_files(driver: Driver, database: Database, tmp_path: Path) -> None:
    cannot_open = Driver(driver.url.set(database=str(tmp_path / "nosuch" / "x.db"))).fails(sql("SELECT 1"))
    check(cannot_open, Fault.UNAVAILABLE)
    path = f"file:{database.url.database}?mode=ro&uri=true"
    read_only = Driver(sa.make_url(f"{driver.name}:///{path}")).fails(sql("UPDATE t SET n = 1"))
    check(read_only, Fault.READ_ONLY)
    no_database = tmp_path / "text.db"
    no_database.write_text("no database at all, and long enough to be looked at" * 50)
    check(Driver(driver.url.set(database=str(no_database))).fails(sql("SELECT * FROM t")), Fault.OTHER)


@pytest.mark.only_on("sqlite")
def test_sqlite_full_and_interrupted(driver: Driver, database: Database) -> None:
    def full(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        connection.exec_driver_sql("CREATE TABLE big AS SELECT zeroblob(1000000)")

    check(driver.fails(full), Fault.RESOURCES)

    def interrupted(connection: sa.Connection) -> None:
        inner: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        raw = inner if isinstance(inner, sqlite3.Connection) else inner._conn
        raw.set_progress_handler(lambda: 1, 10)
        connection.exec_driver_sql(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c LIMIT 1"
        )

    check(driver.fails(interrupted), Fault.CANCELLED)
