"""Every driver of every server, behind one way to run something on a connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from contraflow import faults

T = TypeVar("T")

POSTGRESQL = ("postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg", "postgresql+psycopg_async")
MYSQL = (
    "mysql+pymysql",
    "mysql+mysqldb",
    "mysql+mysqlconnector",
    "mysql+mariadbconnector",
    "mysql+aiomysql",
    "mysql+asyncmy",
)
SQLITE = ("sqlite+pysqlite", "sqlite+aiosqlite")

FAMILY = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgresql15": "postgresql",
    "mariadb": "mysql",
    "mysql": "mysql",
    "galera": "mysql",
}
DRIVERS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "mysql": MYSQL}


def drivers_of(kind: str) -> tuple[str, ...]:
    """The names, as they stand in URLs, of all drivers for a server of ``kind``."""
    return DRIVERS[FAMILY[kind]]


@dataclass(frozen=True)
class Driver:
    """One driver on one database; ``installed`` says whether engines raise typed exceptions."""

    url: sa.URL
    installed: bool = True

    @classmethod
    def of(cls, name: str, url: sa.URL, *, installed: bool = True) -> Driver:
        """``url`` with the driver called ``name``."""
        query = {key: value for key, value in url.query.items() if key not in ("charset", "ssl_disabled")}
        if name == "mysql+mysqlconnector":
            # Its default collation is MySQL's alone.
            query |= {"charset": "utf8mb4", "collation": "utf8mb4_general_ci"}
        return cls(url.set(drivername=name, query=query), installed)

    @property
    def name(self) -> str:
        return self.url.drivername

    @property
    def is_async(self) -> bool:
        return bool(self.url.get_dialect().is_async)

    @contextmanager
    def engine(self, **options: Any) -> Iterator[sa.Engine]:
        """A sync engine, or the sync side of an async one: use it inside `run` only."""
        made: sa.Engine | AsyncEngine
        options.setdefault("poolclass", NullPool)
        if self.is_async:
            made = create_async_engine(self.url, **options)
            engine = made.sync_engine
        else:
            made = engine = sa.create_engine(self.url, **options)
        if self.installed:
            faults.install(made)
        yield engine

    def run(self, work: Callable[[sa.Engine], T], **options: Any) -> T:
        """Call ``work`` where the engine can be used, for async drivers in a greenlet in an event loop."""
        with self.engine(**options) as engine:
            if not self.is_async:
                try:
                    return work(engine)
                finally:
                    engine.dispose()
            return asyncio.run(_in_greenlet(engine, work))

    def fails(self, work: Callable[[sa.Connection], object], **options: Any) -> Exception:
        """The database error that ``work`` ends with."""

        def connect(engine: sa.Engine) -> object:
            with engine.connect() as connection:
                return work(connection)

        try:
            result = self.run(connect, **options)
        except (sa.exc.DBAPIError, OSError, asyncpg.PostgresError) as error:
            return error  # SQLAlchemy 2.0 does not wrap what asyncpg says while connecting
        raise AssertionError(f"no error, but {result!r}")


async def _in_greenlet(engine: sa.Engine, work: Callable[[sa.Engine], T]) -> T:
    def both() -> T:
        try:
            return work(engine)
        finally:
            engine.dispose()

    try:
        return await sa.util.greenlet_spawn(both)
    finally:
        # aiosqlite's thread, when opening a file has failed, still wants to tell the event loop that it ends.
        while any(  # noqa: ASYNC110 - nothing signals it
            "_connection_worker_thread" in thread.name for thread in threading.enumerate()
        ):
            await asyncio.sleep(0)
