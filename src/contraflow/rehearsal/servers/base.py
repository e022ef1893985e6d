"""What a scratch server is: its interface, and how databases are made on it."""

from __future__ import annotations

import abc
import random
import re
import socket
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.servers.process import Home, ServerProcess

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Databases",
    "MySQLDatabases",
    "PostgreSQLDatabases",
    "Progress",
    "SQLiteDatabases",
    "Server",
    "free_port",
    "version_number",
]

Progress = Callable[[str], None]
"""Called with one line of text now and then while something long goes on."""


_creating = threading.Lock()
"""SQLAlchemy loads its dialects in a way that fails in two threads at once (2.1.9: "circular import")."""


class Server:
    """A database server for tests and rehearsals; a context manager that stops it.

    `contraflow.rehearsal.servers.start` makes one that runs here, `contraflow.rehearsal.servers.attach`
    one that runs anyway. Safe to use from several threads.

    :ivar kind: one of `contraflow.rehearsal.servers.KINDS`, or, for an attached one, what it says it is
        (``postgresql``, ``cockroachdb``, ``mariadb``, ``mysql``, ``sqlite``).
    :ivar version: as the server tells it, numbers only, for example ``10.11.19``.
    :ivar process: the process that was started here, None if there is none.
    :ivar nodes: of a cluster that was started here, its servers; else empty.

    ``home`` is the folder that is removed when it stops, None for a server that was not started here.
    """

    def __init__(
        self,
        *,
        kind: str,
        version: str,
        databases: Databases,
        process: ServerProcess | None = None,
        home: Home | None = None,
    ) -> None:
        self.kind = kind
        self.version = version
        self.process = process
        self.nodes: Sequence[Server] = ()
        self._databases = databases
        self._home = home

    @classmethod
    def started(cls, kind: str, databases: Databases, process: ServerProcess) -> Self:
        """The server of ``process``, which is started; what it leaves is removed if it does not start.

        :raises ProblemError: CF207 if it does not start.
        """
        try:
            process.start()
            return cls(
                kind=kind,
                version=version_number(databases.version()),
                databases=databases,
                process=process,
                home=process.home,
            )
        except BaseException:
            process.home.close()
            raise

    def __repr__(self) -> str:
        return f"<Server {self.kind} {self.version} at {self._databases.admin!r}>"

    def url(self, database: str) -> sa.URL:
        """The URL of ``database`` on this server, existing or not; the account may do everything."""
        return self._databases.url(database)

    @property
    def address(self) -> sa.URL:
        """A URL for `contraflow.rehearsal.servers.attach`, by which another process can use this server."""
        return self._databases.address

    def create_database(self) -> sa.URL:
        """Create an empty database of a new, unique name and return its URL.

        :raises ProblemError: CF201 if the server does not answer.
        """
        return self._databases.create()

    def drop_database(self, url: sa.URL) -> None:
        """Drop what `create_database` returned, also while connections to it are open (they break)."""
        self._databases.drop(url)

    def stop(self) -> None:
        """Shut down in good order and remove every trace; nothing happens to an attached server."""
        if self.process is not None:
            self.process.stop()
        if self._home is not None:
            self._home.close()

    def kill(self) -> None:
        """SIGKILL the server, as a crash would; its data stays for `restart`. SQLite has no process to kill.

        :raises ProblemError: CF208 if the server was not started here.
        """
        self._must_be_ours("killed")
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """Start again, on the same port and data, after `kill` or instead of a running one.

        :raises ProblemError: CF208 if the server was not started here, CF207 if it does not start.
        """
        self._must_be_ours("restarted")
        if self.process is not None:
            self.process.stop()
            self.process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _must_be_ours(self, verb: str) -> None:
        if self._home is None:
            raise ProblemError(
                Problem(
                    code="CF208",
                    what=f"the {self.kind} server at {self._databases.admin!r} cannot be {verb} from here.",
                    why="it was not started by this process, and others may be using it.",
                    instead=f'start one for this purpose: contraflow.rehearsal.servers.start("{self.kind}").',
                )
            )


class Databases(abc.ABC):
    """The databases of one server, made and dropped through ``admin``, a URL of an account that may."""

    def __init__(self, admin: sa.URL) -> None:
        self.admin = admin
        self._made: sa.Engine | None = None

    @property
    def address(self) -> sa.URL:
        """What the same server can be reached by from elsewhere."""
        return self.admin

    def url(self, database: str) -> sa.URL:
        """The URL of ``database``."""
        return self.admin.set(database=database)

    def create(self) -> sa.URL:
        """Create an empty database of a new name."""
        name = f"cf_{uuid.uuid4().hex[:16]}"
        self.execute(self._create_sql(name))
        return self.url(name)

    @abc.abstractmethod
    def drop(self, url: sa.URL) -> None:
        """Drop the database of ``url``, whoever is connected to it."""

    @abc.abstractmethod
    def version(self) -> str:
        """The server's own words about itself."""

    def ready(self) -> bool:
        """Whether the server answers a query now."""
        try:
            self.version()
        except DBAPIError:
            return False
        return True

    def check_driver(self) -> None:
        """See that the driver is there, before something is started for it.

        :raises ProblemError: CF204 if it is not.
        """
        self._engine()

    def execute(self, statement: str) -> None:
        """Run one administrative ``statement``.

        :raises ProblemError: CF201 if the server does not answer.
        """
        with self.connection() as connection:
            connection.exec_driver_sql(statement)

    def scalar(self, statement: str) -> object:
        """The first value that ``statement`` yields."""
        with self._engine().connect() as connection:
            value: object = connection.exec_driver_sql(statement).scalar()
            return value

    @contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """A connection that commits each statement.

        :raises ProblemError: CF201 if the server does not answer, CF204 if there is no driver.
        """
        try:
            connection = self._engine().connect()
        except DBAPIError as error:
            raise ProblemError(
                Problem(
                    code="CF201",
                    what=f"no connection to {self.admin!r}: {error.orig}",
                    instead="start the server, or correct the URL.",
                )
            ) from error
        with connection:
            yield connection

    def _engine(self) -> sa.Engine:
        try:
            with _creating:
                if self._made is None:
                    self._made = sa.create_engine(self.admin, isolation_level="AUTOCOMMIT", poolclass=NullPool)
                return self._made
        except (ImportError, NoSuchModuleError) as error:
            raise ProblemError(
                Problem(
                    code="CF204",
                    what=f"the driver for {self.admin.drivername} is not installed ({error}).",
                    instead=f'pip install "contraflow[{_extra(self.admin)}]"',
                )
            ) from error

    def _create_sql(self, name: str) -> str:
        return f"CREATE DATABASE {name}"


class PostgreSQLDatabases(Databases):
    """Databases of PostgreSQL, or of CockroachDB."""

    def drop(self, url: sa.URL) -> None:
        """Drop the database of ``url``; PostgreSQL 13 and later end its sessions first, CockroachDB lets them be."""
        how = "CASCADE" if "CockroachDB" in self.version() else "WITH (FORCE)"
        self.execute(f"DROP DATABASE IF EXISTS {url.database} {how}")

    def version(self) -> str:
        """For example ``PostgreSQL 18.6 on x86_64 ...``, ``10.11.18-MariaDB-deb12-log``, ``9.7.4``."""
        return str(self.scalar("SELECT version()"))


class MySQLDatabases(Databases):
    """Databases of MySQL or MariaDB, in the widest character set both have."""

    def drop(self, url: sa.URL) -> None:
        """Drop the database of ``url``, after ending its sessions."""
        with self.connection() as connection:
            # An open transaction's metadata lock would keep DROP DATABASE waiting for ever.
            sessions = connection.exec_driver_sql(
                "SELECT id FROM information_schema.processlist WHERE db = %s", (url.database,)
            ).scalars()
            for session in sessions.all():
                _kill_session(connection, session)
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {url.database}")

    def version(self) -> str:
        """For example ``PostgreSQL 18.6 on x86_64 ...``, ``10.11.18-MariaDB-deb12-log``, ``9.7.4``."""
        return str(self.scalar("SELECT version()"))

    def _create_sql(self, name: str) -> str:
        return f"CREATE DATABASE {name} CHARACTER SET utf8mb4"


def _kill_session(connection: sa.Connection, session: int) -> None:
    try:
        connection.exec_driver_sql(f"KILL {session}")
    except DBAPIError as error:
        if getattr(error.orig, "args", (0,))[0] != 1094:  # unknown thread: it has ended already
            raise


class SQLiteDatabases(Databases):
    """SQLite's databases: files in ``folder``, which is theirs alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(sa.URL.create("sqlite"))
        self._folder = folder

    @property
    def address(self) -> sa.URL:
        """The folder, as if it were a database."""
        return self.admin.set(database=str(self._folder))

    def url(self, database: str) -> sa.URL:
        """The URL of the file of ``database``."""
        return sa.URL.create("sqlite", database=str(self._folder / f"{database}.db"))

    def create(self) -> sa.URL:
        """The URL of a new file; SQLite makes it at the first connection."""
        return self.url(f"cf_{uuid.uuid4().hex[:16]}")

    def drop(self, url: sa.URL) -> None:
        """Remove the file of ``url`` and those beside it."""
        if url.database:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(url.database + suffix).unlink(missing_ok=True)

    def version(self) -> str:
        """For example ``3.40.1``."""
        return str(self.scalar("SELECT sqlite_version()"))


def version_number(text: str) -> str:
    """The first thing in ``text`` that looks like a version: digits and dots."""
    match = re.search(r"\d+(\.\d+)+", text)
    return match.group() if match else text


_reserved: deque[socket.socket] = deque(maxlen=100)
"""What keeps the ports of this process from being given out by another one: see `_reserve`."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, below the range from which clients get theirs.

    Linux hands out 32768 to 60999 to clients; a server's port from there could be taken while it restarts. No other
    process gets the port from here meanwhile, until this one has had a hundred more or ends.
    """
    for _ in range(1000):
        port = random.randrange(15000, 32000)  # noqa: S311 - a port is no secret
        if not _reserve(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free TCP port between 15000 and 32000 on 127.0.0.1")


def _reserve(port: int) -> bool:
    """Whether nobody else has reserved the port: a server binds it a second later, and leaves it while it restarts.

    Linux's abstract Unix sockets (unix(7)) are names that belong to a network namespace, as ports do, and that end
    with their process. Elsewhere nothing is reserved.
    """
    if sys.platform != "linux":
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0contraflow-port-{port}")
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True


def _extra(url: sa.URL) -> str:
    backend = url.get_backend_name()
    return "mysql" if backend == "mariadb" else backend
