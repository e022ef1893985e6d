"""Goodput and latency under contention: `contraflow.retry` beside oslo.db's and sqlalchemy-cockroachdb's.

N workers read and write one row as fast as they can, under SERIALIZABLE, through the CockroachDB double of the tests
(in a process of its own) before a real PostgreSQL: the only place where all three can run, for
sqlalchemy-cockroachdb restarts by a savepoint that PostgreSQL has not. oslo.db runs with
`contraflow.integrations.oslo_db`, without which it retries no serialization failure at all.

    python bench/retry_contention.py [SECONDS] [ROUNDS]
"""

from __future__ import annotations

import logging
import multiprocessing
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent.parent))

from oslo_db import api
from oslo_db.exception import DBError
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy.exc import DBAPIError

from contraflow import faults
from contraflow.integrations import oslo_db
from contraflow.rehearsal import servers
from contraflow.retry import run_transaction
from tests.faults.cockroachdb_double import CockroachDouble


class Sleeper:
    """In place of the module `time` in oslo.db, whose retries sleep up to 10 s: the end of a measurement ends them."""

    stop = threading.Event()

    @classmethod
    def sleep(cls, seconds: float) -> None:
        """Sleep, or raise at the end."""
        if cls.stop.wait(seconds):
            raise InterruptedError


LEVELS = (2, 4, 8, 16, 32, 64)


def work(tx: sa.Connection) -> None:
    n = tx.exec_driver_sql("SELECT n FROM a WHERE id = 1").scalar_one()
    tx.exec_driver_sql(f"UPDATE a SET n = {n + 1} WHERE id = 1")


def engine_of(url: sa.URL, workers: int) -> sa.Engine:
    return sa.create_engine(
        url, isolation_level="SERIALIZABLE", pool_size=workers, connect_args={"prepare_threshold": None}
    )


def contraflow(url: sa.URL, workers: int) -> tuple[sa.Engine, Callable[[], None]]:
    engine = engine_of(url, workers)
    faults.install(engine)
    return engine, lambda: run_transaction(engine, work, attempts=None)


def with_oslo_db(url: sa.URL, workers: int, **options: float) -> tuple[sa.Engine, Callable[[], None]]:
    engine = engine_of(url, workers)
    exc_filters.register_engine(engine)

    @api.wrap_db_retry(retry_on_deadlock=True, **options)
    def once() -> None:
        with engine.begin() as tx:
            work(tx)

    return engine, once


def oslo_db_tuned(url: sa.URL, workers: int) -> tuple[sa.Engine, Callable[[], None]]:
    return with_oslo_db(url, workers, max_retries=1_000_000, retry_interval=0.004, max_retry_interval=0.5)


def cockroachdb(url: sa.URL, workers: int) -> tuple[sa.Engine, Callable[[], None]]:
    from sqlalchemy_cockroachdb import run_transaction as theirs

    engine = engine_of(url.set(drivername="cockroachdb+psycopg"), workers)
    return engine, lambda: theirs(engine, work)


CONTENDERS: dict[str, Callable[[sa.URL, int], tuple[sa.Engine, Callable[[], None]]]] = {
    "contraflow": contraflow,
    "oslo.db as it comes": with_oslo_db,
    "oslo.db tuned": oslo_db_tuned,
    "sqlalchemy-cockroachdb": cockroachdb,
}


def measure(contender: str, url: sa.URL, workers: int, seconds: float) -> tuple[float, list[float], int]:
    """Commits a second, latencies in ms of those that ended, and how many workers never committed."""
    engine, transact = CONTENDERS[contender](url, workers)
    with engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT n FROM a WHERE id = 1").scalar_one()
    latencies: list[float] = []
    lucky: set[int] = set()
    stop = Sleeper.stop = threading.Event()

    def worker() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            try:
                transact()
            except (DBAPIError, DBError, InterruptedError):
                continue
            else:
                lucky.add(threading.get_ident())
                latencies.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=worker) for _ in range(workers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    # What is committed by now counts; what a worker still sleeps on or retries does not.
    done = len(latencies)
    elapsed = time.perf_counter() - began
    unlucky = workers - len(lucky)
    stop.set()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        after = connection.exec_driver_sql("SELECT n FROM a WHERE id = 1").scalar_one()
    engine.dispose()
    if after - before != len(latencies):
        raise AssertionError(f"{contender}: {len(latencies)} acknowledged, {after - before} counted")
    return done / elapsed, latencies, unlucky


def serve(url: str, port: multiprocessing.Queue[int], stop: threading.Event) -> None:
    with CockroachDouble(sa.make_url(url)) as double:
        port.put(double.port)
        stop.wait()


def percentile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else float("nan")


def main() -> None:
    seconds, rounds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, int(sys.argv[2]) if len(sys.argv) > 2 else 3
    warnings.simplefilter("ignore")
    logging.disable()
    api.time = Sleeper
    oslo_db.install()
    spawn = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue[int] = spawn.Queue()
    stop = spawn.Event()
    with servers.start("postgresql") as server:
        url = server.create_database()
        setup = sa.create_engine(url)
        with setup.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
            connection.exec_driver_sql("INSERT INTO a VALUES (1, 0)")
        setup.dispose()
        double = spawn.Process(target=serve, args=(url.render_as_string(hide_password=False), port, stop))
        double.start()
        try:
            through = url.set(port=port.get(timeout=60))
            print("| workers | contender | commits/s, median (least - most) | p50 ms | p95 ms | p99 ms | no commit |")
            print("|---|---|---|---|---|---|---|")
            for workers in LEVELS:
                results: dict[str, list[tuple[float, list[float], int]]] = {name: [] for name in CONTENDERS}
                for _ in range(rounds):
                    for name in CONTENDERS:
                        results[name].append(measure(name, through, workers, seconds))
                for name, found in results.items():
                    rates = [rate for rate, _, _ in found]
                    latencies = [value for _, values, _ in found for value in values]
                    shown = " | ".join(f"{percentile(latencies, q):.1f}" for q in (0.5, 0.95, 0.99))
                    middle = statistics.median(rates)
                    unlucky = max(count for _, _, count in found)
                    spread = f"{min(rates):.0f} - {max(rates):.0f}"
                    print(f"| {workers} | {name} | {middle:.0f} ({spread}) | {shown} | {unlucky} |", flush=True)
        finally:
            stop.set()
            double.join(30)


if __name__ == "__main__":
    main()
