"""Writers of both releases that keep an upgrade under load: each knows what it wrote, and reads it back."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from contraflow import Fault, Runner, classify, retry
from tests.operations.courses import Course, Part
from tests.servers.shared import Database, new_engine

WRITERS = 4
"""Of each release."""
READING = 0.4
"""How long a reader's transaction stays open at each phase boundary, in seconds: longer than the lock timeout."""
LISTED = frozenset({Fault.DEADLOCK, Fault.SERIALIZATION, Fault.SCHEMA_CHANGED})
"""What a server itself imposes, and an application runs again (``contraflow.retry``): concurrent INSERTs under a second
unique index deadlock on InnoDB, writers of two tables that follow each other lock them in opposite orders, and
PostgreSQL gives up prepared plans and InnoDB old snapshots when a type changes.
"""
_PATIENCE = 300.0
"""So long without a single request, in seconds, is a standstill."""
_TRIES = 100
"""Of one statement."""
_ROWS = 24
"""How many rows a writer keeps at most."""

Row = dict[str, Any]


@dataclass(kw_only=True)
class Result:
    """What became of one upgrade on one server."""

    life: str
    server: str
    requests: int = 0
    retried: int = 0
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    worst: float = 0.0
    """The longest that one request took, in seconds."""
    phase: str = ""
    """What the upgrade was at then."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return vars(self)


def carry(
    database: Database,
    course: Course,
    requests: int,
    *,
    reading: float = READING,
) -> Result:
    """Carry the upgrade there, half-way back and through, under at least so many requests of both releases.

    Each phase begins behind a reader's transaction, which stays open for ``reading`` seconds.
    """
    course.create(database.engine)
    load = Load(database, course, reading=reading)
    began = time.monotonic()
    try:
        with Runner(database.url, course.upgrade) as run:
            load.begin("old")
            load.until(requests * 0.05)
            with load.during("expand"):
                run.expand()
            load.until(requests * 0.1)
            with load.during("migrate"):
                run.migrate()
            load.begin("new")
            load.until(requests * 0.2)
            load.end("new")  # its nodes are taken back
            load.check("new", "old")
            with load.during("rollback"):
                run.rollback()
            load.check("new", "old")
            load.forget("new")
            load.until(requests * 0.3)
            with load.during("the second expand"):
                run.expand()
            load.until(requests * 0.35)
            with load.during("the second migrate"):
                run.migrate()
            load.begin("new")
            load.until(requests * 0.5)
            if course.opaque is None:
                with load.during("verify"):
                    run.verify()
            load.until(requests * 0.7)
            load.end("old")
            load.check("old", "old")
            if course.opaque is not None:
                with load.during("the last migrate", of="new"):  # computes what the old nodes wrote last
                    run.migrate()
                run.verify()
            load.check("old", "new")
            load.read_new_shape_only()
            with load.during("contract", of="new"):
                run.contract()
            load.until(requests)
    finally:
        for release in ("old", "new"):
            load.end(release)
    load.check("old", "new")
    load.check("new", "new")
    load.result.requests = load.requests()
    load.result.seconds = time.monotonic() - began
    return load.result


class Load:
    """The tables of an upgrade under the load of its two releases."""

    def __init__(
        self,
        database: Database,
        course: Course,
        *,
        reading: float = READING,
    ) -> None:
        self.course = course
        self.result = Result(life=course.name, server=database.kind)
        self.engine = new_engine(database.url, poolclass=sa.pool.NullPool, patience=_PATIENCE)
        self._reading = reading
        self.phase = "before"
        self.both_shapes = True
        """The new writers read the old shape, too."""
        self.writers: list[Writer] = []
        self._ended = 0
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    # -- what the test does ---

    def begin(self, release: str) -> None:
        """Let writers of the release begin."""
        kind = OpaqueClient if release == "new" and self.course.opaque is not None else Writer
        begun = [kind(self, release, next(self._numbers)) for _ in range(WRITERS)]
        self.writers += begun
        for writer in begun:
            writer.start()

    def end(self, release: str) -> None:
        """Stop them."""
        for writer in self.writers:
            if writer.release == release:
                writer.ended = True
        for writer in self.writers:
            if writer.release == release:
                writer.join()

    def forget(self, release: str) -> None:
        """Delete the rows of the release's writers, which have ended: the old release alone is left."""

        @retry(self.engine)
        def delete(connection: sa.Connection, writer: Writer) -> None:
            first = writer.number * SPREAD
            for part in reversed(self.course.old):
                keys = f"{part.key} BETWEEN {first} AND {first + SPREAD - 1}"
                for table in part.tables:
                    connection.exec_driver_sql(f"DELETE FROM {table} WHERE {keys}")

        for writer in self._of(release):
            delete(writer)
            self._ended += writer.requests
            self.writers.remove(writer)

    def requests(self) -> int:
        """How many there were so far."""
        return self._ended + sum(writer.requests for writer in self.writers)

    def until(self, requests: float) -> None:
        """Wait for so many requests in all."""
        self._wait(lambda: self.requests() >= requests)

    def read_new_shape_only(self) -> None:
        """From now on nobody reads the old shape."""
        self.both_shapes = False
        turns = [(writer, writer.requests) for writer in self.writers if writer.is_alive()]
        self._wait(lambda: all(writer.requests > turn + 2 or not writer.is_alive() for writer, turn in turns))

    def _wait(self, reached: Callable[[], bool]) -> None:
        done, since = -1, time.monotonic()
        while not reached() and not self.result.failed:
            if (now := self.requests()) != done:
                done, since = now, time.monotonic()
            elif time.monotonic() > since + _PATIENCE:
                self.fail("the writers stand still")
            time.sleep(0.005)

    @contextlib.contextmanager
    def during(self, phase: str, *, of: str = "old") -> Iterator[None]:
        """A phase, which begins behind the open transaction of a reader of the release ``of``."""
        opened = threading.Event()

        def count(connection: sa.Connection) -> None:
            for table in (table for part in self.course.parts(of) for table in part.tables):
                connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()

        def read() -> None:
            # Suppressed: 1412 on MySQL, 1213 on Galera, which are listed.
            with contextlib.suppress(sa.exc.DBAPIError), self.engine.connect() as connection:
                try:
                    count(connection)
                finally:
                    opened.set()
                time.sleep(self._reading)
                count(connection)

        reader = threading.Thread(target=read)
        reader.start()
        opened.wait()
        self.phase = phase
        try:
            yield
        finally:
            self.phase = f"after {phase}"
            reader.join()

    def check(self, release: str, shape: str) -> None:
        """Compare the rows that writers of the release know with what is stored in the shape of ``shape``."""
        if self.result.failed:
            return
        names = self.course.names(release, shape)
        parts = self.course.parts(shape)
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql(_query(parts, [parts[0].key, *names.values()]))
            stored = {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}
        known = {key: row for writer in self._of(release) for key, row in writer.rows.items()}
        for key, row in known.items():
            wanted = {name: self._across(row[name], name, new, release != shape) for name, new in names.items()}
            if stored.get(key) != wanted:
                self.lose(f"row {key} of the {release} release: {wanted} became {stored.get(key)} in the {shape} shape")
        mine = {writer.number for writer in self._of(release)}
        for key in stored.keys() - known.keys():
            if key // SPREAD in mine:
                self.lose(f"row {key} of the {release} release came back")

    def _across(self, value: Any, name: str, other: str, crosses: bool) -> Any:
        image = self.course.images.get(name) or self.course.images.get(other)
        return image(value) if crosses and image is not None else value

    def _of(self, release: str) -> list[Writer]:
        return [writer for writer in self.writers if writer.release == release]

    # -- what the writers say ---

    def lose(self, what: str) -> None:
        """A writer found something else than it wrote."""
        with self._lock:
            self.result.lost.append(what)

    def fail(self, what: str) -> None:
        """A statement failed."""
        with self._lock:
            self.result.failed.append(f"{self.phase}: {what}")

    def took(self, seconds: float) -> None:
        """A request took so long."""
        if seconds > self.result.worst:
            with self._lock:
                self.result.worst, self.result.phase = seconds, self.phase


SPREAD = 10_000_000
"""Keys of one writer."""


def _query(parts: Sequence[Part], names: Sequence[str]) -> str:
    """The columns of all rows, which may stand in several tables. A row that is not there counts as NULLs."""
    first, *others = parts
    of = {name: part.table for part in reversed(parts) for name in part.columns}
    columns = ", ".join(f"{of.get(name, first.table)}.{name}" for name in names)
    joins = [f" LEFT JOIN {part.table} ON {part.table}.{part.key} = {first.table}.{first.key}" for part in others]
    found = [f"SELECT {', '.join([first.key, *first.columns])} FROM {table}" for table in first.tables]
    source = first.table if len(found) == 1 else f"({' UNION ALL '.join(found)}) AS {first.table}"
    return f"SELECT {columns} FROM {source}{''.join(joins)}"


class Writer(threading.Thread):
    """Writes rows of its own in its release's shape, with plain statements of the driver."""

    errors: type[Exception]

    def __init__(self, load: Load, release: str, number: int) -> None:
        super().__init__(name=f"{release} {number}")
        self.load = load
        self.release = release
        self.number = number
        self.parts = load.course.parts(release)
        self.columns = {name: column for part in self.parts for name, column in part.columns.items()}
        self.across = load.course.names("new", "old") if release == "new" else {}
        self.rows: dict[int, Row] = {}
        self.requests = 0
        self.ended = False
        self._next = number * SPREAD
        self.errors = load.engine.dialect.loaded_dbapi.Error
        # SQLite lets its writers wait unfairly: without a rest some would starve.
        self._rest = 0.002 if load.engine.dialect.name == "sqlite" else 0.0
        self._is_postgresql = load.engine.dialect.name == "postgresql"
        self._mark = "?" if load.engine.dialect.name == "sqlite" else "%s"

    def run(self) -> None:
        """Until it is ended, or something failed."""
        with contextlib.closing(self._connected()) as connection:
            self.cursor = connection.cursor()
            steps = (self._add, self._change, self._read, self._add, self._read, self._change, self._remove)
            for step in itertools.cycle(steps):
                if self.ended or self.load.result.failed:
                    return
                step()
                time.sleep(self._rest)

    def _connected(self) -> Any:
        connection = self.load.engine.raw_connection()
        driver: Any = connection.driver_connection
        connection.detach()
        name = self.load.engine.dialect.name
        if name == "sqlite":
            driver.isolation_level = None
        elif name == "postgresql":
            driver.autocommit = True
        else:
            driver.autocommit(True)
        return driver

    # -- requests ---

    def _sent(self, what: str, call: Callable[[], object]) -> bool:
        """Whether the call got through; what is listed is run again."""
        began = time.perf_counter()
        for tries in itertools.count(1):
            try:
                call()
                break
            except self.errors as error:
                fault = classify(error)
                if fault in LISTED and tries < _TRIES:
                    self.load.result.retried += 1
                    if fault is Fault.SCHEMA_CHANGED and self._is_postgresql:
                        self.cursor.execute("DEALLOCATE ALL")  # psycopg would go on using the prepared plan
                    continue
                self.load.fail(f"{self.release}: {what}: {error!r}")
                return False
        self.load.took(time.perf_counter() - began)
        self.requests += 1
        return True

    def _send(self, sql: str, values: Sequence[Any]) -> bool:
        return self._sent(f"{sql} {tuple(values)}", lambda: self.cursor.execute(sql, values))

    def _add(self) -> None:
        if len(self.rows) >= _ROWS:
            return self._remove()
        self._next += 1
        row = self._values(self._next)
        if self._insert(self._next, row):
            self.rows[self._next] = row
        return None

    def _insert(self, key: int, row: Row) -> bool:
        for part in self.parts:
            marks = ", ".join([self._mark] * (len(part.columns) + 1))
            sql = f"INSERT INTO {part.of(key)} ({', '.join([part.key, *part.columns])}) VALUES ({marks})"
            if not self._send(sql, [key, *(row[name] for name in part.columns)]):
                return False
        return True

    def _change(self) -> None:
        if not self.rows:
            return
        key = self._some()
        self._next += 1
        row = self._values(self._next)
        if not self.load.course.whole:
            name = list(row)[self.requests % len(row)]
            row = {name: row[name]}
        if self._update(key, row):
            self.rows[key].update(row)

    def _update(self, key: int, row: Row) -> bool:
        for part in self.parts:
            if given := {name: row[name] for name in part.columns if name in row}:
                changes = ", ".join(f"{name} = {self._mark}" for name in given)
                sql = f"UPDATE {part.of(key)} SET {changes} WHERE {part.key} = {self._mark}"
                if not self._send(sql, [*given.values(), key]):
                    return False
        return True

    def _remove(self) -> None:
        if self.rows:
            key = self._some()
            for part in reversed(self.parts):
                if not self._send(f"DELETE FROM {part.of(key)} WHERE {part.key} = {self._mark}", [key]):
                    return
            del self.rows[key]

    def _read(self) -> None:
        if not self.rows:
            return
        key = self._some()
        self._look(key, self.rows[key])
        if self.across and self.load.both_shapes:
            across = self.load.course.images
            row = self.rows[key]
            wanted = {old: across.get(name, _same)(row[name]) for name, old in self.across.items()}
            self._compare(self.load.course.old, key, wanted)

    def _look(self, key: int, row: Row) -> None:
        """Read the row in the release's own shape."""
        self._compare(self.parts, key, row)

    def _compare(self, parts: Sequence[Part], key: int, wanted: Row) -> None:
        sql = f"{_query(parts, list(wanted))} WHERE {parts[0].table}.{parts[0].key} = {self._mark}"
        if self._send(sql, [key]):
            found = self.cursor.fetchone()
            if found is None or list(found) != list(wanted.values()):
                self.load.lose(f"{self.load.phase}: {self.release}: {wanted} gave {found} ({sql})")

    def _some(self) -> int:
        keys = list(self.rows)
        return keys[self.requests * 7 % len(keys)]

    def _values(self, number: int) -> Row:
        """Values that no other row has, where that can matter, and that every constraint of a life allows."""
        row: Row = {}
        for name, column in self.columns.items():
            if name in self.load.course.draws:
                row[name] = self.load.course.draws[name](number)
            elif column.nullable and name not in self.load.course.given and number % 3 == 0:
                row[name] = None
            elif isinstance(column.type, sa.types.Enum):
                labels = self.load.course.labels or column.type.enums
                row[name] = labels[number % len(labels)]
            elif isinstance(column.type, sa.types.String):
                row[name] = f"{number}@{self.release}"
            else:
                row[name] = number if column.info.get("unique") else number % 3 + 1
        return row


def _same(value: Any) -> Any:
    return value


class OpaqueClient(Writer):
    """A writer of the new release of an opaque lens: it writes both sides through an ``OpaqueWriter``."""

    def __init__(self, load: Load, release: str, number: int) -> None:
        super().__init__(load, release, number)
        self.errors = sa.exc.DBAPIError
        opaque = load.course.opaque
        assert opaque is not None
        self.writer = opaque()
        self.session = load.engine.connect()

    def run(self) -> None:
        """See :meth:`Writer.run`."""
        with self.session:
            super().run()

    def _through(self, what: str, call: Callable[[], object]) -> bool:
        def transaction() -> None:
            with self.session.begin():
                call()

        return self._sent(what, transaction)

    def _insert(self, key: int, row: Row) -> bool:
        return self._through(f"insert {key} {row}", lambda: self.writer.insert(self.session, {"id": key, **row}))

    def _update(self, key: int, row: Row) -> bool:
        return self._through(f"update {key} {row}", lambda: self.writer.update(self.session, {"id": key}, row))

    def _look(self, key: int, row: Row) -> None:
        found: list[Row] = []

        def read() -> None:
            found[:] = self.writer.read(self.session, {"id": key}, list(row))

        if self._through(f"read {key}", read) and found != [row]:
            self.load.lose(f"{self.load.phase}: {self.release}: {row} gave {found}")
