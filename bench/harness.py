"""What all measures share: servers, sessions, the CPU clock, medians."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import sqlalchemy as sa

from contraflow.rehearsal import servers

__all__ = ["Plan", "Session", "Spread", "cpu_clock", "database", "product_of", "quiet", "started"]

SETTINGS = {
    "postgresql": {"shared_buffers": "1GB", "max_wal_size": "8GB"},
    "mariadb": {"innodb_buffer_pool_size": "1G", "innodb_log_file_size": "1G"},
    "mysql": {"innodb_buffer_pool_size": "1G", "innodb_redo_log_capacity": "2G"},
}
"""Room for the tables in memory: caches and logs of the scratch servers' own size would be what is measured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure."""

    rows: tuple[int, ...]
    repetitions: int
    window: float
    """CPU seconds that one window of a workload should take."""
    hold: float
    """Seconds that a long reader keeps its transaction open."""
    say: Callable[[str], None]
    """Called with what is being done."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Repeated measures of one thing."""

    values: tuple[float, ...]
    form: str = ".2f"

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def text(self) -> str:
        """``median (least-most)``."""
        return f"{self.median:{self.form}} ({min(self.values):{self.form}}-{max(self.values):{self.form}})"


def product_of(kind: str) -> str:
    """The product of a kind of server: ``postgresql15`` is a ``postgresql``."""
    return kind.rstrip("0123456789")


@contextlib.contextmanager
def started(kind: str, say: Callable[[str], None], **more: str) -> Iterator[servers.Server]:
    """A scratch server with room, gone at the end; ``more`` are further settings of it."""
    with servers.start(kind, settings={**SETTINGS.get(product_of(kind), {}), **more}, progress=say) as server:
        yield server


@contextlib.contextmanager
def database(server: servers.Server) -> Iterator[sa.URL]:
    """An empty database, dropped at the end. On SQLite with a write-ahead log, as services have it."""
    url = server.create_database()
    try:
        if server.kind == "sqlite":
            with contextlib.closing(Session(url)) as session:
                session.run("PRAGMA journal_mode = WAL")
        yield url
    finally:
        server.drop_database(url)


class Session:
    """A connection in autocommit, without SQLAlchemy's work for each statement. Statements have ``?`` parameters."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
        self.connection = self._engine.connect()
        dbapi: Any = self.connection.connection.dbapi_connection
        self._cursor = dbapi.cursor()
        self.error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        """What the driver raises."""
        self._mark = "?" if url.get_backend_name() == "sqlite" else "%s"

    def text(self, sql: str) -> str:
        """``sql`` in the driver's own style of parameters."""
        return sql if self._mark == "?" else sql.replace("%", "%%").replace("?", self._mark)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement."""
        self.send(self.text(sql) if parameters else sql, parameters)

    def send(self, text: str, parameters: Sequence[Any]) -> None:
        """Run one statement that :meth:`text` has been through."""
        if parameters:
            self._cursor.execute(text, parameters)
        else:
            self._cursor.execute(text)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        self._cursor.execute(sql)
        return [tuple(row) for row in self._cursor.fetchall()]

    def close(self) -> None:
        """Close the connection."""
        self._cursor.close()
        self.connection.close()


def cpu_clock(server: servers.Server) -> Callable[[], float]:
    """CPU seconds used so far: by the server with all its processes, or for SQLite by the calling thread."""
    if server.process is None:
        return time.thread_time
    pid = server.process.pid
    assert pid is not None, "the server has ended"
    root = psutil.Process(pid)

    def used() -> float:
        total = 0.0
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                # Processes that ended (PostgreSQL's workers) are counted where they were waited for.
                total += times.user + times.system + times.children_user + times.children_system
        return total

    return used


def quiet(clock: Callable[[], float], *, rest: float = 0.05, patience: int = 40) -> None:
    """Wait until the server has done what statements left to its background threads (InnoDB's purge)."""
    if clock is time.thread_time:
        return
    for _ in range(patience):
        before = clock()
        time.sleep(rest)
        if clock() - before <= 0.01:  # one tick of the kernel's accounting
            return
