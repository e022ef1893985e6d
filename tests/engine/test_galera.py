"""An upgrade of a real three-node Galera cluster, both releases on nodes of their own. Runs where MariaDB is chosen."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from contraflow.engine import State
from contraflow.faults import Fault, classify
from contraflow.rehearsal.servers.galera import GaleraCluster
from tests.engine.service import contents, make_tables, run_killed, runner, snapshot, upgrade

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]
TABLES = ("users", "items", "hollow")  # Galera wants a primary key
UPGRADE = upgrade(tables=TABLES)
ROWS = 40
OWN = 10_000
"""The first key of the rows that writers insert."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[GaleraCluster]:
    """A cluster that every test leaves whole."""
    with GaleraCluster.start() as started:
        yield started


@pytest.fixture
def nodes(cluster: GaleraCluster) -> Iterator[list[sa.Engine]]:
    """A new database with the service's tables, as each node has it. A read waits for what other nodes committed."""
    database = str(cluster.create_database().database)
    engines = [sa.create_engine(node.url(database)) for node in cluster.nodes]
    for engine in engines:
        sa.event.listen(engine, "connect", _wait_for_writes)
    try:
        make_tables(engines[0], tables=TABLES, rows=ROWS)
        yield engines
    finally:
        for engine in engines:
            engine.dispose()


def _wait_for_writes(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 15")


@dataclass(kw_only=True)
class Service:
    """One node of one release: writes rows of its own, and reads each of them back in its own shape."""

    engine: sa.Engine
    insert: str
    update: str
    read: str
    first: int
    """Its keys are this one and those after it by twos."""
    names: dict[int, str] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    aborted: int = 0
    """Transactions that a schema change, or the backfill on another node, made to run again: errors 1213 and 1205."""

    def work(self, done: threading.Event) -> None:
        key = self.first
        try:
            while not done.is_set():
                self._settle(self.insert, key, f"In{key}")
                self._settle(self.update, key, f"Up{key}")
                self._settle(self.update, self.first % 2, f"Hot{key}")
                key += 2
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.errors.append(error)

    def _settle(self, statement: str, key: int, last: str) -> None:
        while True:
            try:
                with self.engine.begin() as connection:
                    connection.execute(sa.text(statement), {"key": key, "whole": f"A {last}", "last": last})
                    found = connection.execute(sa.text(self.read), {"key": key}).scalar_one()
                    assert found == last or found == f"A {last}"
            except sa.exc.DBAPIError as error:
                if classify(error) not in (Fault.DEADLOCK, Fault.LOCK_TIMEOUT):
                    raise
                self.aborted += 1
            else:
                self.names[key] = f"A {last}"
                return


def old_service(engine: sa.Engine, first: int) -> Service:
    return Service(
        engine=engine,
        insert="INSERT INTO users (id, full_name) VALUES (:key, :whole)",
        update="UPDATE users SET full_name = :whole WHERE id = :key",
        read="SELECT full_name FROM users WHERE id = :key",
        first=first,
    )


def new_service(engine: sa.Engine, first: int) -> Service:
    return Service(
        engine=engine,
        insert="INSERT INTO users (id, first_name, last_name) VALUES (:key, 'A', :last)",
        update="UPDATE users SET first_name = 'A', last_name = :last WHERE id = :key",
        read="SELECT last_name FROM users WHERE id = :key",
        first=first,
    )


@contextlib.contextmanager
def serving(*services: Service) -> Iterator[None]:
    """The services at work beside the block; it fails if one of them met an error that is not to be retried."""
    done = threading.Event()
    threads = [threading.Thread(target=service.work, args=(done,)) for service in services]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for service in services:
        assert service.errors == []
        assert len(service.names) > 2, "it has written nothing"


def names(engine: sa.Engine, *columns: str) -> dict[int, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT id, {', '.join(columns)} FROM users")
        return {row[0]: " ".join(row[1:]) for row in rows}


def test_a_table_that_others_refer_to_is_refused_once_they_have_rows(nodes: list[sa.Engine]) -> None:
    with nodes[0].begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE visits (id INT PRIMARY KEY, boss INT, visitor INT,"
            " FOREIGN KEY (visitor) REFERENCES users (id), FOREIGN KEY (boss) REFERENCES visits (id))"
        )
    with runner(nodes[0].url, UPGRADE) as run:
        assert run.check() == []
        with nodes[0].begin() as connection:
            connection.exec_driver_sql("INSERT INTO visits (id) VALUES (1)")
        (problem,) = run.check()
    assert problem.code == "CF205"
    assert problem.what.startswith("users cannot be changed live in a Galera cluster while visits refers to it")


def test_an_upgrade_of_a_cluster_under_both_releases(nodes: list[sa.Engine]) -> None:
    first, second, third = nodes
    start = snapshot(first)
    with serving(old := old_service(second, OWN)), runner(first.url, UPGRADE) as run:
        assert run.check() == []
        run.expand()
        run.rollback()
    assert snapshot(first) == snapshot(second) == snapshot(third) == start
    expected = {key: f"First{key} Last{key}" for key in range(ROWS)} | old.names
    assert names(third, "full_name") == expected

    with serving(old := old_service(second, OWN + 20_000)):
        killed = run_killed(first.url, UPGRADE, ["expand", "migrate"], survive=9)
        assert killed.dead
        with runner(third.url, UPGRADE) as run:  # another runner goes on, on another node
            run.upgrade()
    expected |= old.names
    with (
        serving(old := old_service(second, OWN + 40_000), new := new_service(third, OWN + 60_001)),
        runner(first.url, UPGRADE) as run,
    ):
        run.verify()
    expected |= old.names | new.names
    for node in nodes:
        assert names(node, "full_name") == names(node, "first_name", "last_name") == expected

    with serving(new := new_service(third, OWN + 80_001)), runner(first.url, UPGRADE) as run:
        run.contract()
        assert run.status().state is State.CONTRACTED
    expected |= new.names
    for node in nodes:
        assert names(node, "first_name", "last_name") == expected
        assert contents(node)["items"] == sorted(((n, f"s{n % 3}", f"label {n}") for n in range(ROWS)), key=repr)
    assert snapshot(first) == snapshot(second) == snapshot(third)
