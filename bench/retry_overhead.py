"""What `classify` costs, and that `install` costs a statement that succeeds nothing: ratios in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import psycopg.errors
import pymysql
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from contraflow import faults
from contraflow.retry import run_transaction

ROUNDS = 15


def timed(work: Callable[[], object], times: int) -> float:
    """Microseconds a call."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times * 1e6


def main() -> None:
    errors = {
        "psycopg 40001": OperationalError("", {}, psycopg.errors.SerializationFailure("x")),
        "psycopg 23505": OperationalError("", {}, psycopg.errors.UniqueViolation("x")),
        "PyMySQL 1213": OperationalError("", {}, pymysql.err.OperationalError(1213, "Deadlock found")),
        "PyMySQL 1062": OperationalError("", {}, pymysql.err.IntegrityError(1062, "Duplicate entry 'a' for key 't.u'")),
    }
    print("| what | median |\n|---|---|")
    for name, error in errors.items():
        cost = statistics.median(timed(lambda error=error: faults.classify(error), 5000) for _ in range(ROUNDS))
        print(f"| classify, {name} | {cost:.1f} us |")
    plain, installed = sa.create_engine("sqlite://"), sa.create_engine("sqlite://")
    faults.install(installed)
    with plain.connect() as a, installed.connect() as b:
        ratios = []
        for _ in range(ROUNDS):
            bare = timed(lambda: a.exec_driver_sql("SELECT 1").scalar(), 5000)
            ratios.append(timed(lambda: b.exec_driver_sql("SELECT 1").scalar(), 5000) / bare)
    spread = f"{min(ratios):.3f} - {max(ratios):.3f}"
    print(f"| a statement with install / without | {statistics.median(ratios):.3f} ({spread}) |")

    def by_hand() -> None:
        with plain.begin() as tx:
            tx.exec_driver_sql("BEGIN IMMEDIATE")
            tx.exec_driver_sql("SELECT 1").scalar()

    def with_retry() -> None:
        run_transaction(plain, lambda tx: tx.exec_driver_sql("SELECT 1").scalar())

    ratios = [timed(with_retry, 2000) / timed(by_hand, 2000) for _ in range(ROUNDS)]
    spread = f"{min(ratios):.2f} - {max(ratios):.2f}"
    print(f"| a transaction of one SELECT, run_transaction / by hand | {statistics.median(ratios):.2f} ({spread}) |")


if __name__ == "__main__":
    main()
