"""The heartbeat of a node: seen while it runs, gone when it stops, and never in the application's way."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from contraflow.engine import Heartbeat, Node
from tests.engine import service
from tests.servers.shared import Database, new_engine

BEAT = 0.05


def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread does; the limit only ends a test that has failed."""
    limit = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.01)


@contextmanager
def heartbeat(engine: object, **options: object) -> Iterator[Heartbeat]:
    options = {"release": "r0", "interval": BEAT, **options}
    beating = Heartbeat(engine, **options)  # type: ignore[arg-type]
    try:
        yield beating
    finally:
        beating.stop()


@pytest.fixture
def expanded(database: Database) -> Database:
    service.make_tables(database.engine, tables=("users",))
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        runner.expand()
    return database


def nodes(database: Database) -> list[Node]:
    with service.runner(database.url) as runner:
        return runner.nodes()


def test_it_starts_with_the_engines_first_use_and_ends_with_stop(expanded: Database) -> None:
    engine = new_engine(expanded.url)
    with heartbeat(engine, name="web 1") as beating:
        assert not beating.node_id
        assert nodes(expanded) == []
        with engine.connect():
            pass
        until(lambda: nodes(expanded))
        (node,) = nodes(expanded)
        assert (node.name, node.release, node.side, node.alive) == ("web 1", "r0", "old", True)
        assert node.id == str(beating.node_id)
        assert node.pid == os.getpid()
        until(lambda: nodes(expanded)[0].seen > node.seen)
    until(lambda: nodes(expanded) == [])  # within an interval, or a little later on a busy machine
    with engine.connect():
        pass
    assert nodes(expanded) == []  # stopped is stopped
    engine.dispose()


def test_before_the_journal_stands_it_waits(database: Database) -> None:
    service.make_tables(database.engine, tables=("users",))
    engine = new_engine(database.url)
    with heartbeat(engine, release="r3") as beating:
        beating.start()
        until(lambda: beating.node_id)
        assert nodes(database) == []
        with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
            runner.expand()
        until(lambda: nodes(database))
        assert nodes(database)[0].side == "new"
    engine.dispose()


def test_an_outage_is_waited_out_and_told_once(
    expanded: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A generated env.py, run by another test of this process, disables the loggers that it does not name.
    monkeypatch.setattr(logging.getLogger("contraflow.nodes"), "disabled", False)
    down = threading.Event()
    failed: list[int] = []
    engine = new_engine(expanded.url, poolclass=sa.pool.NullPool)

    @sa.event.listens_for(engine, "do_connect")
    def refuse(*_arguments: object) -> None:
        if down.is_set():
            failed.append(1)
            raise OSError("the network is down")

    with caplog.at_level(logging.WARNING, "contraflow.nodes"), heartbeat(engine) as beating:
        beating.start()
        until(lambda: nodes(expanded))
        down.set()
        until(lambda: len(failed) > 3)
        down.clear()
        (before,) = nodes(expanded)
        until(lambda: nodes(expanded)[0].seen > before.seen)
        assert [record.message for record in caplog.records] == ["no heartbeat: the network is down"]
    engine.dispose()


def test_a_row_that_was_forgotten_comes_back(expanded: Database) -> None:
    engine = new_engine(expanded.url)
    with heartbeat(engine) as beating:
        beating.start()
        until(lambda: nodes(expanded))
        with service.runner(expanded.url) as runner:
            runner.forget_node(nodes(expanded)[0].id)
        until(lambda: nodes(expanded))
    engine.dispose()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_worker_is_a_node_of_its_own(expanded: Database) -> None:
    engine = new_engine(expanded.url, poolclass=sa.pool.NullPool)
    with heartbeat(engine) as beating:
        beating.start()
        until(lambda: nodes(expanded))
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                with engine.connect():
                    pass
                until(lambda: len({node.pid for node in nodes(expanded)}) == 2)
                beating.stop()
                until(lambda: len(nodes(expanded)) == 1)
                code = 0
            finally:
                os.write(send, b"x")
                os._exit(code)
        os.read(receive, 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [node.pid for node in nodes(expanded)] == [os.getpid()]
    engine.dispose()


@pytest.mark.only_on("sqlite", "postgresql", "postgresql15")
def test_the_node_of_an_asynchronous_engine(expanded: Database) -> None:
    backend = expanded.url.get_backend_name()
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}[backend]
    engine = create_async_engine(expanded.url.set(drivername=f"{backend}+{driver}"))
    with heartbeat(engine) as beating:
        beating.start()
        until(lambda: nodes(expanded))
    until(lambda: nodes(expanded) == [])
