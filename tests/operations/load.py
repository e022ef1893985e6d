"""Writers of both releases that keep a life under load: each knows what it wrote, and reads it back."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from contraflow import AddColumn, DropColumn, Fault, RenameColumn, TightenNotNull, classify
from tests.operations.lives import TABLE, Life
from tests.servers.shared import Database, new_engine

WRITERS = 4
"""Of each release."""
READING = 0.4
"""How long a reader's transaction stays open at each phase boundary, in seconds: longer than the lock timeout."""
LISTED = frozenset({Fault.DEADLOCK, Fault.SERIALIZATION, Fault.SCHEMA_CHANGED})
"""What a server itself imposes, and an application runs again (``contraflow.retry``): concurrent INSERTs under a second
unique index deadlock on InnoDB, and PostgreSQL gives up prepared plans and InnoDB old snapshots when a type changes.
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
    """What became of one life on one server."""

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


class Load:
    """A life's table under the load of its two releases."""

    def __init__(self, database: Database, life: Life) -> None:
        self.life = life
        self.result = Result(life=life.name, server=database.kind)
        self.engine = new_engine(database.url, poolclass=sa.pool.NullPool)
        self.phase = "before"
        self.both_shapes = False
        """The new writers read the old shape, too."""
        names = {"old": _columns(life.old), "new": _columns(life.new)}
        self.shapes = names
        renamed = {operation.old: operation.new for operation in life.operations if isinstance(operation, RenameColumn)}
        self.renamed = {
            old: new
            for old in names["old"]
            # A NULL that the upgrade fills is not what its writer wrote.
            if (new := renamed.get(old, old)) in names["new"]
            and (names["new"][new].nullable or not names["old"][old].nullable)
        }
        """The old release's columns of which the new one has plain copies, or the same."""
        self.given = {
            operation.column
            for operation in life.operations
            if isinstance(operation, TightenNotNull) and operation.fill is None
        }
        """Columns that no release leaves NULL any more: nothing would fill them."""
        self.whole = any(
            isinstance(operation, (AddColumn, DropColumn)) and operation.keep == "track"
            for operation in life.operations
        )
        """A column follows another: an update writes all columns, so that the writer knows what it will read."""
        self.writers: list[Writer] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    # -- what the test does ---

    def begin(self, release: str) -> None:
        """Let writers of the release begin."""
        begun = [Writer(self, release, next(self._numbers)) for _ in range(WRITERS)]
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

    def until(self, requests: float) -> None:
        """Wait for so many requests in all."""
        self._wait(lambda: sum(writer.requests for writer in self.writers) >= requests)

    def read_new_shape_only(self) -> None:
        """From now on nobody reads the old shape."""
        self.both_shapes = False
        turns = [(writer, writer.requests) for writer in self.writers if writer.is_alive()]
        self._wait(lambda: all(writer.requests > turn + 1 or not writer.is_alive() for writer, turn in turns))

    def _wait(self, reached: Callable[[], bool]) -> None:
        done, since = -1, time.monotonic()
        while not reached() and not self.result.failed:
            if (now := sum(writer.requests for writer in self.writers)) != done:
                done, since = now, time.monotonic()
            elif time.monotonic() > since + _PATIENCE:
                self.fail("the writers stand still")
            time.sleep(0.005)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase, which begins behind a reader's open transaction."""
        opened = threading.Event()

        def read() -> None:
            with self.engine.connect() as connection:
                connection.exec_driver_sql(f"SELECT count(*) FROM {TABLE}").scalar()
                opened.set()
                time.sleep(READING)
                with contextlib.suppress(sa.exc.DBAPIError):  # 1412 on MySQL: listed
                    connection.exec_driver_sql(f"SELECT count(*) FROM {TABLE}").scalar()

        reader = threading.Thread(target=read)
        reader.start()
        opened.wait()
        self.phase = phase
        try:
            yield
        finally:
            self.phase = f"after {phase}"
            reader.join()

    def check(self, release: str, names: Mapping[str, str]) -> None:
        """Compare the rows that writers of the release know with what is stored under ``names`` (theirs to stored)."""
        with self.engine.connect() as connection:
            quoted = ", ".join(["id", *names.values()])
            found = connection.exec_driver_sql(f"SELECT {quoted} FROM {TABLE}")
            stored = {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}
        known = {key: row for writer in self.writers if writer.release == release for key, row in writer.rows.items()}
        for key, row in known.items():
            wanted = {name: row[name] for name in names}
            if stored.get(key) != wanted:
                self.lose(f"row {key} of the {release} release: {wanted} became {stored.get(key)}")
        mine = {writer.number for writer in self.writers if writer.release == release}
        for key in stored.keys() - known.keys():
            if key // _SPREAD in mine:
                self.lose(f"row {key} of the {release} release came back")

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


_SPREAD = 10_000_000
"""Keys of one writer."""


class Writer(threading.Thread):
    """Writes rows of its own in its release's shape, with plain statements of the driver."""

    def __init__(self, load: Load, release: str, number: int) -> None:
        super().__init__(name=f"{release} {number}")
        self.load = load
        self.release = release
        self.number = number
        self.columns = load.shapes[release]
        self.rows: dict[int, Row] = {}
        self.requests = 0
        self.ended = False
        self._next = number * _SPREAD
        self._error: type[Exception] = load.engine.dialect.loaded_dbapi.Error
        # SQLite lets its writers wait unfairly: without a rest some would starve.
        self._rest = 0.002 if load.engine.dialect.name == "sqlite" else 0.0
        self._is_postgresql = load.engine.dialect.name == "postgresql"
        self._mark = "?" if load.engine.dialect.name == "sqlite" else "%s"

    def run(self) -> None:
        """Until it is ended, or something failed."""
        with contextlib.closing(self._connected()) as connection:
            cursor = connection.cursor()
            steps = (self._add, self._change, self._read, self._add, self._read, self._change, self._remove)
            for step in itertools.cycle(steps):
                if self.ended or self.load.result.failed:
                    return
                step(cursor)
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

    def _send(self, cursor: Any, sql: str, values: Sequence[Any]) -> bool:
        """Whether the statement was carried out; what is listed is run again."""
        began = time.perf_counter()
        for tries in itertools.count(1):
            try:
                cursor.execute(sql, values)
                break
            except self._error as error:
                fault = classify(error)
                if fault in LISTED and tries < _TRIES:
                    self.load.result.retried += 1
                    if fault is Fault.SCHEMA_CHANGED and self._is_postgresql:
                        cursor.execute("DEALLOCATE ALL")  # psycopg would go on using the prepared plan
                    continue
                self.load.fail(f"{self.release}: {sql} {tuple(values)}: {error!r}")
                return False
        self.load.took(time.perf_counter() - began)
        self.requests += 1
        return True

    def _add(self, cursor: Any) -> None:
        if len(self.rows) >= _ROWS:
            return self._remove(cursor)
        self._next += 1
        row = self._values(self._next)
        marks = ", ".join([self._mark] * (len(row) + 1))
        sql = f"INSERT INTO {TABLE} ({', '.join(['id', *row])}) VALUES ({marks})"
        if self._send(cursor, sql, [self._next, *row.values()]):
            self.rows[self._next] = row
        return None

    def _change(self, cursor: Any) -> None:
        if not self.rows:
            return
        key = self._some()
        self._next += 1
        row = self._values(self._next)
        if not self.load.whole:
            name = list(row)[self.requests % len(row)]
            row = {name: row[name]}
        changes = ", ".join(f"{name} = {self._mark}" for name in row)
        if self._send(cursor, f"UPDATE {TABLE} SET {changes} WHERE id = {self._mark}", [*row.values(), key]):
            self.rows[key].update(row)

    def _remove(self, cursor: Any) -> None:
        if self.rows:
            key = self._some()
            if self._send(cursor, f"DELETE FROM {TABLE} WHERE id = {self._mark}", [key]):
                del self.rows[key]

    def _read(self, cursor: Any) -> None:
        if not self.rows:
            return
        key = self._some()
        wanted = [self.rows[key][name] for name in self.columns]
        names = list(self.columns)
        if self.release == "new" and self.load.both_shapes:
            names += self.load.renamed
            wanted += [self.rows[key][new] for new in self.load.renamed.values()]
        if self._send(cursor, f"SELECT {', '.join(names)} FROM {TABLE} WHERE id = {self._mark}", [key]):
            found = cursor.fetchone()
            if found is None or list(found) != wanted:
                known = dict(zip(names, wanted, strict=True))
                self.load.lose(f"{self.load.phase}: {self.release}: {known} gave {found}")

    def _some(self) -> int:
        keys = list(self.rows)
        return keys[self.requests * 7 % len(keys)]

    def _values(self, number: int) -> Row:
        """Values that no other row has, where that can matter, and that every constraint of a life allows."""
        row: Row = {}
        for name, column in self.columns.items():
            if column.nullable and name not in self.load.given and number % 3 == 0:
                row[name] = None
            elif isinstance(column.type, sa.types.Enum):
                # What only the new release knows may stand from contract on.
                old = self.load.shapes["old"].get(name, column).type
                known = [label for label in column.type.enums if label in getattr(old, "enums", column.type.enums)]
                row[name] = known[number % len(known)]
            elif isinstance(column.type, sa.types.String):
                row[name] = f"{number}@{self.release}"
            else:
                row[name] = number if column.info.get("unique") else number % 3 + 1
        return row


def _columns(items: Sequence[sa.schema.SchemaItem]) -> dict[str, sa.Column[Any]]:
    """The columns beside the key."""
    unique = {str(name) for item in items if isinstance(item, sa.UniqueConstraint) for name in item._pending_colargs}
    columns = [item for item in items if isinstance(item, sa.Column) and item.name != "id"]
    for column in columns:
        column.info["unique"] = column.name in unique
    return {column.name: column for column in columns}
