"""The engine's own connections: beside the application's, and lost in the middle of the work."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.engine import Options, Progress, Runner, State
from contraflow.engine.connect import refuse_missing_file
from contraflow.problems import ProblemError
from tests.engine import service
from tests.servers.shared import Database, new_engine

USERS = ("users",)


def test_an_engine_lends_its_way_of_connecting_but_not_its_pool(database: Database) -> None:
    service.make_tables(database.engine, tables=USERS)
    connected: list[int] = []
    limits: dict[str, Any] = {"poolclass": sa.pool.QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    engine = new_engine(database.url, isolation_level="SERIALIZABLE", **limits)
    sa.event.listen(engine, "do_connect", lambda *_arguments: connected.append(1))
    with engine.connect():  # the whole pool is in use
        known = len(connected)
        with Runner(engine, service.upgrade(tables=USERS), options=service.FAST) as runner:
            runner.expand()
            assert runner.status().state is State.EXPANDED
        assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    assert known == 1
    assert len(connected) > known  # each connection asks, for a password that changes
    engine.dispose()


def test_connect_arguments_of_the_engine_are_used(database: Database) -> None:
    made: list[Any] = []
    inner = sa.create_engine(database.url)

    def creator() -> Any:
        fairy = inner.raw_connection()
        fairy.detach()
        made.append(fairy.dbapi_connection)
        return fairy.dbapi_connection

    engine = sa.create_engine(database.url, creator=creator)
    with Runner(engine) as runner:
        assert runner.status().due == "nothing"
    assert made
    engine.dispose()
    inner.dispose()


def lose_connections(database: Database) -> None:
    """End every other connection to the database, as an operator or a failing network does."""
    engine = sa.create_engine(database.url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return
        own = connection.exec_driver_sql("SELECT connection_id()").scalar_one()
        rows = connection.execute(
            sa.text("SELECT id FROM information_schema.processlist WHERE db = :db"), {"db": database.url.database}
        )
        for number in rows.scalars():
            if number != own:
                try:
                    connection.exec_driver_sql(f"KILL {number}")
                except sa.exc.DBAPIError as error:
                    if getattr(error.orig, "args", (0,))[0] != 1094:  # unknown thread: it has ended by itself
                        raise


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
@pytest.mark.parametrize("verb", ["expand", "migrate", "verify", "contract"])
def test_a_lost_connection_is_a_problem_and_the_verb_goes_on_later(database: Database, verb: str) -> None:
    service.make_tables(database.engine, tables=USERS)
    database.engine.dispose()
    lost = threading.Event()

    def lose(progress: Progress) -> None:
        if progress.phase == verb and not lost.is_set():
            lost.set()
            lose_connections(database)

    with service.runner(database.url, service.upgrade(tables=USERS), progress=lose) as runner:
        with pytest.raises(ProblemError) as raised:
            runner.run("contract")
        assert raised.value.problems[0].code == "CF201"
        assert lost.is_set()
        runner.run("contract")
        assert runner.status().state is State.CONTRACTED


def test_runners_that_begin_at_once_on_a_fresh_database(database: Database) -> None:
    """All of them make the journal's tables; one has the lock, the others are told so or find the work done."""
    service.make_tables(database.engine, tables=USERS)
    start = threading.Barrier(4)
    codes: list[str] = []
    others: list[BaseException] = []

    def expand() -> None:
        with service.runner(database.url, service.upgrade(tables=USERS)) as runner:
            assert runner.adapter
            start.wait(300)
            try:
                runner.expand()
                codes.append("done")
            except ProblemError as error:
                codes.extend(problem.code for problem in error.problems)
            except BaseException as error:  # noqa: BLE001 - a thread's errors are looked at below
                others.append(error)

    threads = [threading.Thread(target=expand) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not others
    assert set(codes) <= {"done", "CF001"}
    assert "done" in codes
    assert len(codes) == 4
    with service.runner(database.url) as runner:
        assert runner.status().state is State.EXPANDED


@pytest.mark.only_on("sqlite")
def test_an_sqlite_file_that_is_not_there(tmp_path: Path) -> None:
    there, missing = tmp_path / "a b.db", tmp_path / "c.db"
    there.touch()
    for url in ("sqlite:///{}", "sqlite:///file:{}?uri=true", "sqlite:///file://localhost{}?mode=rwc&uri=true"):
        refuse_missing_file(sa.make_url(url.format(str(there).replace(" ", "%20") if "file:" in url else there)))
        with pytest.raises(ProblemError, match=r"there is no database .*c\.db"):
            refuse_missing_file(sa.make_url(url.format(missing)))
    for harmless in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:{}?mode=ro&uri=true", "postgresql:///none"):
        refuse_missing_file(sa.make_url(harmless.format(missing)))  # SQLite makes no file, or there is none


@pytest.mark.only_on("postgresql", "postgresql15")
def test_the_journal_in_a_schema_of_its_own(database: Database) -> None:
    service.make_tables(database.engine, tables=USERS)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA operations")
    options = Options(schema="operations")
    with service.runner(database.url, service.upgrade(tables=USERS), options=options) as runner:
        runner.run("contract")
        assert runner.status().state is State.CONTRACTED
    inspector = sa.inspect(database.engine)
    assert not [name for name in inspector.get_table_names() if name.startswith("contraflow")]
    assert len(inspector.get_table_names(schema="operations")) == 5
