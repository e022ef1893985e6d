"""The one database that all nodes talk to: engine, sessions, and transactions that are tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

T = TypeVar("T")

BUSY_SECONDS = 20
ATTEMPTS = 8
_CONFLICTS: frozenset[object] = frozenset({"40001", "40P01", 1205, 1213, 1412})
"""PostgreSQL's serialization failure and deadlock; MariaDB's and MySQL's lock wait timeout, deadlock, and a table that
was rebuilt since the transaction's snapshot was taken."""


class Database:
    """Transactions on the database at ``url``."""

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, pool_size=10, max_overflow=30)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._reading = self.engine.execution_options(identity_writes=False)
        self._writing = self.engine.execution_options(identity_writes=True)

    def read(self, work: Callable[[Session], T]) -> T:
        """The answer of ``work`` in a transaction that only reads."""
        return self._run(self._reading, work)

    def write(self, work: Callable[[Session], T]) -> T:
        """The answer of ``work`` in a committed transaction.

        ``work`` may be called several times: a transaction that lost a conflict is tried again as a whole.
        """
        return self._run(self._writing, work)

    def close(self) -> None:
        self.engine.dispose()

    @staticmethod
    def _run(engine: sa.Engine, work: Callable[[Session], T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    return work(session)
            except sa.exc.DBAPIError as error:
                if attempt == ATTEMPTS or not _is_conflict(error):
                    raise
            time.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")


def _is_conflict(error: sa.exc.DBAPIError) -> bool:
    driver: Any = error.orig
    return bool(_CONFLICTS & {getattr(driver, "sqlstate", None), *driver.args[:1]})


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the "begin" event below says how each transaction begins
    for pragma in (
        f"busy_timeout = {BUSY_SECONDS * 1000}",
        "journal_mode = wal",
        "synchronous = normal",
        "foreign_keys = on",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that begins by reading cannot wait for the write lock later on: SQLite fails it at once.
    writes = connection.get_execution_options().get("identity_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
