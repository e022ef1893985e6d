"""Faults and `retry` on a real three-node Galera cluster. Runs where MariaDB is among the chosen servers."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest
import sqlalchemy as sa

from contraflow import faults
from contraflow.faults import Fault
from contraflow.rehearsal.servers import Server
from contraflow.rehearsal.servers.galera import GaleraCluster
from contraflow.retry import Attempt, run_transaction
from tests.faults.drivers import MYSQL, Driver
from tests.faults.test_provoked import check, sql

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]
WORKERS = 6
ROUNDS = 15


@pytest.fixture(scope="module")
def cluster() -> Iterator[GaleraCluster]:
    """A cluster for tests that leave it whole."""
    with GaleraCluster.start() as started:
        yield started


@pytest.fixture
def doomed() -> Iterator[GaleraCluster]:
    """A cluster of this test's own, to be broken."""
    with GaleraCluster.start() as started:
        yield started


def accounts(cluster: GaleraCluster) -> list[sa.URL]:
    """A new database with two accounts and a log, on every node."""
    database = str(cluster.create_database().database)
    urls = [node.url(database) for node in cluster.nodes]
    engine = sa.create_engine(urls[0])
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE a (id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL)")
        connection.exec_driver_sql("CREATE TABLE log (id VARCHAR(40) NOT NULL PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO a VALUES (1, 100), (2, 100)")
    engine.dispose()
    for url in urls:
        caught_up(url)
    return urls


def caught_up(url: sa.URL) -> None:
    """Return when the node of ``url`` has applied what the others had committed."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION wsrep_sync_wait = 15")
        connection.exec_driver_sql("SELECT 1 FROM information_schema.tables LIMIT 1")
        connection.exec_driver_sql("SELECT count(*) FROM a")
    engine.dispose()


@pytest.mark.parametrize("name", MYSQL)
def test_a_conflict_of_two_nodes_shows_at_commit_or_after(cluster: GaleraCluster, name: str) -> None:
    urls = accounts(cluster)

    def loser(connection: sa.Connection) -> None:
        connection.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 1")
        engine = sa.create_engine(urls[1])
        with engine.begin() as winner:
            winner.exec_driver_sql("UPDATE a SET n = n + 10 WHERE id = 1")
        engine.dispose()
        connection.commit()

    error = check(Driver.of(name, urls[0]).fails(loser), Fault.DEADLOCK)
    assert error.diagnosis.errno == 1213


def test_nothing_is_lost_or_doubled_on_three_nodes(cluster: GaleraCluster) -> None:
    urls = accounts(cluster)
    engines = [sa.create_engine(url, pool_size=WORKERS) for url in urls]
    seen: Counter[Fault] = Counter()

    def note(attempt: Attempt) -> None:
        seen[attempt.fault] += 1

    def worker(number: int) -> None:
        for _ in range(ROUNDS):
            run_transaction(engines[number % 3], transfer, attempts=None, on_retry=note)

    def transfer(tx: sa.Connection) -> None:
        source, target = random.sample((1, 2), 2)
        # A lock of this node's own; what another node commits meanwhile makes this one fail, not overwrite.
        n = tx.exec_driver_sql(f"SELECT n FROM a WHERE id = {source} FOR UPDATE").scalar_one()
        tx.exec_driver_sql(f"UPDATE a SET n = {n - 1} WHERE id = {source}")
        tx.exec_driver_sql(f"UPDATE a SET n = n + 1 WHERE id = {target}")

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(worker, range(WORKERS)))
    assert seen[Fault.DEADLOCK] > 0
    for url, engine in zip(urls, engines, strict=True):
        caught_up(url)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT sum(n) FROM a").scalar() == 200
        engine.dispose()


def failing_over(nodes: Sequence[Server], database: str) -> sa.Engine:
    """An engine as behind a proxy for several nodes: each new connection goes to the next one that answers."""
    order = itertools.cycle([node.url(database).port for node in nodes])

    def connect() -> pymysql.Connection:
        for _ in range(2):
            try:
                return pymysql.connect(host="127.0.0.1", port=next(order), user="root", database=database)
            except pymysql.err.OperationalError as error:
                if error.args[0] != 2003:
                    raise
        return pymysql.connect(host="127.0.0.1", port=next(order), user="root", database=database)

    return sa.create_engine("mysql+pymysql://", creator=connect, pool_size=WORKERS)


def test_a_node_is_killed_under_load(doomed: GaleraCluster) -> None:
    """Each operation is logged under its name in its own transaction, so one that is run again does not count twice."""
    urls = accounts(doomed)
    engine = failing_over(doomed.nodes, str(urls[0].database))
    faults.install(engine)
    seen: Counter[Fault] = Counter()
    half_way = threading.Event()
    done: list[str] = []

    def note(attempt: Attempt) -> None:
        seen[attempt.fault] += 1

    def worker(number: int) -> None:
        for step in range(ROUNDS):
            name = f"{number}-{step}"

            def deposit(tx: sa.Connection, name: str = name) -> None:
                if tx.exec_driver_sql(f"SELECT 1 FROM log WHERE id = '{name}' FOR UPDATE").scalar() is None:
                    tx.exec_driver_sql(f"INSERT INTO log VALUES ('{name}')")
                    tx.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 1")

            run_transaction(engine, deposit, attempts=None, deadline=60, idempotent=True, on_retry=note)
            done.append(name)
            if len(done) == WORKERS * ROUNDS // 2:
                half_way.set()

    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(worker, number) for number in range(WORKERS)]
        assert half_way.wait(60)
        doomed.nodes[2].kill()
        for future in running:
            future.result(120)
    engine.dispose()
    assert seen.keys() & {Fault.DISCONNECT, Fault.UNAVAILABLE, Fault.COMMIT_UNKNOWN}, seen
    for url in urls[:2]:
        caught_up(url)
        check_engine = sa.create_engine(url)
        with check_engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT n FROM a WHERE id = 1").scalar() == 100 + WORKERS * ROUNDS
            assert connection.exec_driver_sql("SELECT count(*) FROM log").scalar() == WORKERS * ROUNDS
        check_engine.dispose()


def test_a_node_without_its_cluster(doomed: GaleraCluster) -> None:
    """It answers SELECT 1, so a pool's ping passes; every driver must be told by 1047 that it is no good."""
    urls = accounts(doomed)
    opened = sa.create_engine(urls[0], pool_pre_ping=True)
    faults.install(opened)
    with opened.connect() as connection:
        connection.exec_driver_sql("UPDATE a SET n = 0 WHERE id = 1")
        doomed.nodes[1].kill()
        doomed.nodes[2].kill()
        while connection.exec_driver_sql("SHOW STATUS LIKE 'wsrep_ready'").one()[1] == "ON":
            pass
        with pytest.raises(faults.DatabaseFault) as caught:
            connection.commit()
        assert caught.value.transient, caught.value  # 1047, or 1213 where the loss has aborted it already
    with opened.connect() as connection:
        first = connection.connection.dbapi_connection
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        with pytest.raises(faults.Unavailable) as unavailable:
            connection.exec_driver_sql("SELECT * FROM a")
        assert unavailable.value.diagnosis.errno == 1047
        assert connection.invalidated
    with opened.connect() as connection:
        assert connection.connection.dbapi_connection is not first
    opened.dispose()
    for name in MYSQL:
        check(Driver.of(name, urls[0]).fails(sql("UPDATE a SET n = 1")), Fault.UNAVAILABLE)
    attempts: list[Attempt] = []
    engine = sa.create_engine(urls[0])
    with pytest.raises(sa.exc.OperationalError):
        run_transaction(
            engine, sql("UPDATE a SET n = 1"), attempts=3, backoff=lambda _n, _f: 0.0, on_retry=attempts.append
        )
    engine.dispose()
    assert [attempt.fault for attempt in attempts] == [Fault.UNAVAILABLE] * 3
