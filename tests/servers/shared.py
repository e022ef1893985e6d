"""The servers that one test run shares: started once, by the controlling process, in parallel."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import sqlalchemy as sa

from contraflow.problems import ProblemError
from contraflow.rehearsal import servers

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXCLUSIONS = Path(__file__).with_name("exclusions.toml")
ALL = ("sqlite", "postgresql", "postgresql15", "mariadb", "mysql")


@dataclass(frozen=True, kw_only=True)
class Database:
    """A fresh database for one test; ``engine`` is disposed of and the database dropped when it ends."""

    server: servers.Server
    url: sa.URL
    engine: sa.Engine

    @property
    def kind(self) -> str:
        """The server's kind, for example ``postgresql15``."""
        return self.server.kind

    def hasten_deadlocks(self) -> None:
        """Let later sessions look for deadlocks at once: PostgreSQL does so after a second only."""
        if self.kind.startswith("postgresql"):
            with self.engine.begin() as connection:
                connection.exec_driver_sql(f"ALTER DATABASE {self.url.database} SET deadlock_timeout = '20ms'")


def new_engine(url: sa.URL, *, patience: float = 30.0, **options: object) -> sa.Engine:
    """An engine as services have it: on SQLite with a write-ahead log and a busy timeout of ``patience`` seconds."""
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, **options)
    engine = sa.create_engine(url, connect_args={"timeout": patience}, **options)

    @sa.event.listens_for(engine, "connect")
    def write_ahead(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()

    return engine


@contextlib.contextmanager
def fresh_database(server: servers.Server) -> Iterator[Database]:
    """A new database there, which goes with the block."""
    url = server.create_database()
    engine = new_engine(url)
    try:
        yield Database(server=server, url=url, engine=engine)
    finally:
        engine.dispose()
        server.drop_database(url)


def read_exclusions(path: Path = EXCLUSIONS) -> dict[str, str]:
    """Server and reason, for each server that is left out."""
    excluded = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("exclusion", []):
        server, reason = entry["server"], entry["reason"].strip()
        if server not in ALL or not reason:
            raise ValueError(f"{path}: an exclusion needs a server out of {ALL} and a reason, not {entry}")
        excluded[server] = reason
    return excluded


def choose(named: Sequence[str], urls: Sequence[str], excluded: Mapping[str, str]) -> dict[str, str | None]:
    """What the options ask for: the name of each server, with its URL if it is one that runs anyway."""
    chosen: dict[str, str | None] = {}
    for name in named or ([] if urls else ["sqlite"]):
        kinds = [kind for kind in ALL if kind not in excluded] if name == "all" else [name]
        for kind in kinds:
            if kind not in servers.KINDS:
                raise ValueError(f"unknown server {kind!r}; known are all, {', '.join(servers.KINDS)}")
            chosen[kind] = None
    for url in urls:
        name = f"{sa.make_url(url).get_backend_name()}-url"
        while name in chosen:
            name += "+"
        chosen[name] = url
    return chosen


class ServerMissing(Exception):
    """A server that was asked for does not run; every test that needs it fails with this."""


class SharedServers:
    """The servers of one run, by name; each is started when it is first wanted, and stopped with the run."""

    def __init__(self, chosen: Mapping[str, str | None], progress: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._progress = progress
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(max_workers=len(chosen) or 1)
        self._started: dict[str, Future[servers.Server]] = {}

    def addresses(self) -> dict[str, dict[str, str]]:
        """Start all; for each its ``url`` and ``kind``, or the ``error``: plain data for the workers."""
        for name in self._chosen:
            self._begin(name)
        return {name: self.address(name) for name in self._chosen}

    def address(self, name: str) -> dict[str, str]:
        """The same of one server."""
        try:
            server = self._begin(name).result()
        except (ProblemError, OSError) as error:
            return {"error": f"{name}: {error}"}
        url = server.address
        if url.get_driver_name() == "pymysql":
            # Else PyMySQL reads all certificates of the system for each connection: 20 ms of a processor.
            url = url.update_query_dict({"ssl_disabled": "true"})
        return {"url": url.render_as_string(hide_password=False), "kind": server.kind}

    def stop(self) -> None:
        """Stop every server that was started."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future in self._started.values():
            if not future.cancelled() and future.exception() is None:
                future.result().stop()

    def _begin(self, name: str) -> Future[servers.Server]:
        with self._lock:
            if name not in self._started:
                self._started[name] = self._pool.submit(self._start, name)
            return self._started[name]

    def _start(self, name: str) -> servers.Server:
        url = self._chosen[name]
        if url is not None:
            return servers.attach(url)
        return servers.start(name, progress=lambda line: self._progress(f"{name}: {line}"))


def reach(address: Mapping[str, str]) -> servers.Server:
    """The server at an address of `SharedServers`, for one test process to use.

    It cannot be killed through this, since other tests use it too.
    """
    if "error" in address:
        raise ServerMissing(address["error"])
    return servers.attach(address["url"], kind=address["kind"])
