"""The engine's own connections: the right synchronous driver, no pool, autocommit, a known session state."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from contraflow import dialects
from contraflow.dialects.base import Adapter
from contraflow.engine.asynchronous import Arguments
from contraflow.problems import Problem, ProblemError

__all__ = [
    "Database",
    "is_memory",
    "locked",
    "own_url",
    "refuse_missing_file",
    "refuse_missing_name",
    "refused",
    "unreachable",
]

# Drivers in the order of preference: module to import, SQLAlchemy's name for it, what to install.
_DRIVERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "postgresql": (("psycopg", "psycopg", "psycopg[binary]"), ("psycopg2", "psycopg2", "psycopg2-binary")),
    "cockroachdb": (("psycopg", "psycopg", "psycopg[binary]"), ("psycopg2", "psycopg2", "psycopg2-binary")),
    "mysql": (("pymysql", "pymysql", "PyMySQL"), ("MySQLdb", "mysqldb", "mysqlclient")),
    "mariadb": (("pymysql", "pymysql", "PyMySQL"), ("MySQLdb", "mysqldb", "mysqlclient")),
    "sqlite": (("sqlite3", "pysqlite", "Python's sqlite3"),),
}

# libpq's connection parameters that asyncpg's URLs share with it, and those that only asyncpg or SQLAlchemy's
# dialect knows.
_ASYNCPG_RENAMED = {"ssl": "sslmode"}
_ASYNCPG_ONLY = frozenset(
    {
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "statement_cache_size",
        "max_cached_statement_lifetime",
        "max_cacheable_statement_size",
        "command_timeout",
        "timeout",
        "async_fallback",
        "direct_tls",
        "record_class",
        "connection_class",
        "loop",
        "server_settings",
    }
)
_AIOSQLITE_ONLY = frozenset({"async_fallback", "loop", "iter_chunk_size"})


def own_url(url: str | sa.URL) -> sa.URL:
    """The URL with which the engine reaches the same database: ``url`` with a synchronous, installed driver.

    Raises :class:`~contraflow.problems.ProblemError`: ``CF204`` if no driver for it is installed, ``CF201``
    if it is not a database URL.
    """
    try:
        url = make_url(url)
    except sa.exc.ArgumentError:
        # The text itself stays out of the message: it may hold a password.
        raise ProblemError(
            Problem(
                code="CF201",
                what="the database URL cannot be read.",
                instead="write dialect+driver://user:password@host:port/database, special characters percent-encoded.",
            )
        ) from None
    backend, _, driver = url.drivername.partition("+")
    if backend == "postgres":
        backend = "postgresql"
    if backend not in _DRIVERS:
        return url  # a third-party dialect: its own driver must be synchronous
    known = {name for _, name, _ in _DRIVERS[backend]}
    synchronous = driver if driver not in ("", *_ASYNCHRONOUS) else ""
    if synchronous and synchronous not in known:
        return url  # mysqlconnector, pg8000 ...: the user's choice, as it is
    for module, name, _ in _DRIVERS[backend]:
        if synchronous in ("", name) and _installed(module):
            return _translate(url.set(drivername=f"{backend}+{name}"), driver)
    packages = [package for _, name, package in _DRIVERS[backend] if synchronous in ("", name)]
    raise _no_driver(url, packages[0])


_ASYNCHRONOUS = frozenset({"asyncpg", "psycopg_async", "aiosqlite", "aiomysql", "asyncmy"})


def _installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _translate(url: sa.URL, driver: str) -> sa.URL:
    """Query arguments of an asynchronous driver in the words of the synchronous one."""
    if driver == "asyncpg":
        query = {_ASYNCPG_RENAMED.get(k, k): v for k, v in url.query.items() if k not in _ASYNCPG_ONLY}
        return url.set(query=query)
    if driver == "aiosqlite":
        return url.set(query={k: v for k, v in url.query.items() if k not in _AIOSQLITE_ONLY})
    return url


def _no_driver(url: sa.URL, package: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF204",
            what=f"no synchronous driver for {url.drivername} is installed.",
            why="the engine works through connections of its own, beside those of the application.",
            instead=f"pip install '{package}'",
        )
    )


def is_memory(url: sa.URL) -> bool:
    """Whether the URL names a SQLite database in memory, which no second connection can see."""
    if url.get_backend_name() != "sqlite":
        return False
    name = url.database or ""
    return (
        name in ("", ":memory:")
        or "mode=memory" in name
        or name.startswith("file::memory:")
        or url.query.get("mode") == "memory"
    )


def refuse_missing_file(url: sa.URL) -> None:
    """Raise ``CF201`` for an SQLite database that is not there: whoever connects makes an empty file, and would be told
    of that.
    """
    if url.get_backend_name() == "sqlite":
        refuse_missing_name(str(url.get_dialect()().create_connect_args(url)[0][0]))


def refuse_missing_name(database: str) -> None:
    """The same, of the name that is given to SQLite."""
    path, _, query = database.partition("?")
    if path.startswith("file:"):
        path = unquote(re.sub(r"^file:(//[^/]*)?", "", path))
        if re.search(r"(^|&)mode=(ro|rw|memory)(&|$)", query):  # SQLite makes no file then
            return
    else:
        path = database
    if path in ("", ":memory:") or os.path.exists(path):
        return
    raise ProblemError(
        Problem(
            code="CF201",
            what=f"there is no database {os.path.abspath(path)}.",
            why="SQLite would make an empty one, and nothing would stand in the way of an upgrade of that.",
            instead="correct the path (sqlalchemy.url, --url or $CONTRAFLOW_URL); contraflow upgrade makes a new one.",
        )
    )


def unreachable(url: sa.URL, error: BaseException) -> ProblemError:
    """``CF201`` for a connection that failed, the password hidden."""
    reason = str(getattr(error, "orig", error)).strip()
    if url.password:
        reason = reason.replace(str(url.password), "***")
    advice = "check that it runs, the address, the account and its password"
    if "client certificate" in reason or "certificate authentication failed" in reason:  # PostgreSQL 15, libpq 15
        advice = (
            "name the client's certificate and its key: PGSSLCERT and PGSSLKEY in the environment, or sslcert and"
            "\nsslkey in the URL of a synchronous driver (asyncpg's SSLContext shows them to nobody)"
        )
    return ProblemError(
        Problem(
            code="CF201",
            what=f"the database server at {url.render_as_string(hide_password=True)} cannot be reached.",
            why=reason.splitlines()[0] if reason else type(error).__name__,
            instead=f"{advice}, then run the same command again.",
        )
    )


def refused(error: BaseException) -> ProblemError:
    """``CF009`` for a statement that the server did not carry out."""
    reason = str(getattr(error, "orig", error)).strip()
    statement = getattr(error, "statement", None)
    return ProblemError(
        Problem(
            code="CF009",
            what=f"the server refused a statement: {reason.splitlines()[0] if reason else type(error).__name__}",
            why=f"it was: {statement}" if statement else "",
            instead="mend what it complains about, then run the same command again: the journal says where to go on.",
        )
    )


def locked(seconds: float) -> ProblemError:
    """``CF006`` for the journal's own tables."""
    return ProblemError(
        Problem(
            code="CF006",
            what=f"the tables of Contraflow's journal stayed locked for {seconds:g} seconds.",
            why="somebody else's transaction holds them; on SQLite, each one that writes holds the whole database.",
            instead="end that transaction, then run the same command again.",
        )
    )


class Database:
    """One database, reached by connections of the engine's own.

    ``url`` may be an :class:`sqlalchemy.Engine`: then its way of connecting (credentials, TLS, session
    settings) is used, but never its pool. Opens on first use. Raises
    :class:`~contraflow.problems.ProblemError`: ``CF201`` unreachable, ``CF203`` an unsupported server (or an
    in-memory SQLite), ``CF204`` no driver, ``CF301`` an asynchronous engine that connects in a way that a synchronous
    driver cannot.
    """

    def __init__(self, url: str | sa.URL | sa.Engine) -> None:
        if isinstance(url, sa.Engine):
            self.url = url.url
            self._refuse_memory()
            self._engine = _beside(url)
        else:
            self.url = own_url(url)
            self._refuse_memory()
            self._engine = _engine(self.url)
        self._adapter: Adapter | None = None

    def _refuse_memory(self) -> None:
        if is_memory(self.url):
            raise ProblemError(
                Problem(
                    code="CF203",
                    what="an in-memory SQLite database cannot be upgraded.",
                    why="it belongs to one connection: neither the engine nor a second release can see it.",
                    instead="use a file, for example sqlite:///service.db.",
                )
            )

    @property
    def adapter(self) -> Adapter:
        """The adapter for the live server; connects on first use."""
        if self._adapter is None:
            with self._open() as connection:
                self._adapter = dialects.choose(connection)
        return self._adapter

    @contextlib.contextmanager
    def connect(self, before_statement: Callable[[str], None] | None = None) -> Iterator[sa.Connection]:
        """A fresh connection in AUTOCOMMIT, prepared by the adapter, closed at the end.

        ``before_statement`` is called with the text of every statement before it is sent, also BEGIN and
        COMMIT.
        """
        adapter = self.adapter
        with self._open() as connection:
            if before_statement is not None:
                watch(connection, before_statement)
            adapter.prepare(connection)
            yield connection

    @contextlib.contextmanager
    def _open(self) -> Iterator[sa.Connection]:
        try:
            connection = self._engine.connect()
        except sa.exc.DBAPIError as error:
            raise unreachable(self.url, error) from error
        try:
            yield connection
        finally:
            # Without a pool, closing sends nothing but the driver's own rollback; a dead server must not hide
            # the real error.
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.close()

    def close(self) -> None:
        """Forget what was opened. Connections in use are their users' to close."""
        self._engine.dispose()


def watch(connection: sa.Connection, before_statement: Callable[[str], None]) -> None:
    """Call ``before_statement`` with every statement sent through ``connection``."""

    def before_cursor_execute(_connection: sa.Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        before_statement(statement)

    sa.event.listen(connection, "before_cursor_execute", before_cursor_execute)


def _engine(url: sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
    except sa.exc.NoSuchModuleError:
        raise _no_driver(url, f"the SQLAlchemy dialect for {url.drivername}") from None
    except ImportError as error:
        raise _no_driver(url, error.name or url.drivername) from error


def _beside(engine: sa.Engine) -> sa.Engine:
    """An engine of our own that connects as ``engine`` does."""
    if engine.dialect.is_async:
        own = _engine(own_url(engine.url))
        arguments = Arguments(engine, own.dialect.driver)
        sa.event.listen(own, "do_connect", lambda _dialect, _record, _given, named: named.update(arguments()))
        return own
    pool = engine.pool.recreate()

    def creator() -> Any:
        fairy = pool.connect()
        fairy.detach()
        return fairy.dbapi_connection

    return sa.create_engine(engine.url, creator=creator, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
