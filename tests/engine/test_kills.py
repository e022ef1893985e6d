"""A kill before any statement leaves a database that both releases can use, and from which the work goes on
to the same end.
"""

from __future__ import annotations

import itertools

import pytest

from contraflow.engine import State
from tests.engine import service
from tests.servers.shared import Database

FORWARD = ("expand", "migrate", "verify", "contract")


@pytest.fixture
def tables(database: Database) -> tuple[str, ...]:
    """One table; where DDL is cheap also one without a key. Several tables: test_lifecycle."""
    return ("users",) if database.kind.startswith(("mysql", "mariadb")) else ("users", "notes")


def test_killed_anywhere_both_releases_write_and_the_end_is_the_same(
    database: Database, tables: tuple[str, ...]
) -> None:
    upgrade = service.upgrade(tables=tables)
    service.make_tables(database.engine, tables=tables)
    service.run_killed(database.url, upgrade, FORWARD)
    schema = service.snapshot(database.engine)
    reached = set()
    for survive in itertools.count():
        service.start_over(database.engine)
        service.make_tables(database.engine, tables=tables)
        killer = service.run_killed(database.url, upgrade, FORWARD, survive=survive)
        if not killer.dead:
            break
        writers = service.Writers(engine=database.engine, items=False)
        with service.runner(database.url, upgrade) as resumed:
            status = resumed.status()
            reached.add((status.state, status.pending))
            if status.pending != "contract" and status.state is not State.CONTRACTED:
                writers.old()
            if status.state in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
                writers.new()
            resumed.run("contract")
            assert resumed.status().state is State.CONTRACTED
        assert service.snapshot(database.engine) == schema, f"killed after {killer.seen[-1:]}"
        writers.new()
        writers.check_new()
    assert reached >= {
        (State.PENDING, "expand"),
        (State.EXPANDED, None),
        (State.EXPANDED, "migrate"),
        (State.MIGRATED, None),
        (State.VERIFIED, None),
        (State.VERIFIED, "contract"),
    }


def test_killed_in_a_rollback_the_old_release_goes_on_and_the_old_schema_comes_back(
    database: Database, tables: tuple[str, ...]
) -> None:
    upgrade = service.upgrade(tables=tables)
    service.make_tables(database.engine, tables=tables)
    start = service.snapshot(database.engine)
    service.run_killed(database.url, upgrade, ("expand", "migrate"))
    service.run_killed(database.url, upgrade, ("rollback",))
    assert service.snapshot(database.engine) == start
    for survive in itertools.count():
        service.start_over(database.engine)
        service.make_tables(database.engine, tables=tables)
        service.run_killed(database.url, upgrade, ("expand", "migrate"))
        writers = service.Writers(engine=database.engine, items=False)
        writers.new()
        killer = service.run_killed(database.url, upgrade, ("rollback",), survive=survive)
        writers.old()
        with service.runner(database.url) as resumed:
            resumed.rollback()
            assert resumed.status().state is State.ROLLED_BACK
        assert service.snapshot(database.engine) == start, killer.seen[-1:]
        writers.old()
        writers.check_old()
        if not killer.dead:
            break


def test_rolled_back_from_every_place_of_an_expand(database: Database, tables: tuple[str, ...]) -> None:
    upgrade = service.upgrade(tables=tables)
    service.make_tables(database.engine, tables=tables)
    start = service.snapshot(database.engine)
    for survive in itertools.count():
        # The first statements are those that make the journal's tables.
        service.start_over(database.engine, journal=survive < 8)
        service.make_tables(database.engine, tables=tables)
        killer = service.run_killed(database.url, upgrade, ("expand",), survive=survive)
        with service.runner(database.url) as back:
            back.rollback()
        assert service.snapshot(database.engine) == start, killer.seen[-1:]
        writers = service.Writers(engine=database.engine, items=False)
        writers.old()
        writers.check_old()
        if not killer.dead:
            break
