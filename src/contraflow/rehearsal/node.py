"""A node of a rehearsal: a process that carries out one release's transactions, as the service's nodes would.

Run by its path, in the interpreter of the release, which needs SQLAlchemy and the driver and nothing else::

    python .../contraflow/rehearsal/node.py < configuration

The configuration is one line of JSON on standard input, which then stays open: when it closes, the node ends, so
that no node outlives the rehearsal. The node opens one connection to the rehearsal for each of its workers; over it
come requests, one at a time, and go answers. What a request and an answer hold is said in
`contraflow.rehearsal.nodes`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import random
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa

__all__: list[str] = []

ATTEMPTS = 30
"""How often a transaction is run at most: enough for a server that takes some seconds to come back."""


def _library() -> tuple[Any, Any]:
    """This library's ``retry`` and ``faults``, from beside this file: the release may have none or another version.

    The package's own ``__init__`` is left out: it imports what only an operator needs.
    """
    if "contraflow" not in sys.modules:
        package = types.ModuleType("contraflow")
        package.__path__ = [str(Path(__file__).resolve().parents[1])]
        sys.modules["contraflow"] = package
    return importlib.import_module("contraflow.retry"), importlib.import_module("contraflow.faults")


class _Node:
    """The engine, and the release's tables as it knows them."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        if configuration["upgrade"]:
            importlib.import_module("contraflow")  # all of it: the release writes through it
        self.retry, self.faults = _library()
        self.engine = _engine(configuration["url"], configuration["workers"], configuration["timeout"])
        self.tables: dict[str, sa.Table] = {}
        self.keys: dict[str, sa.Table] = {}
        self._statements: dict[tuple[object, ...], Any] = {}
        with self.engine.connect() as connection:
            for told in configuration["tables"]:
                schema, name = told["schema"], told["name"]
                title = f"{schema}.{name}" if schema else name
                self.tables[title] = _table(connection, told)
                if told["former"]:
                    self.keys[title] = _table(connection, {**told, "columns": [*told["key"], *told["former"]]})
        self.writers: dict[str, Any] = {}
        if configuration["upgrade"]:
            self.writers = _writers(configuration["upgrade"], self.tables)
        self.workload: Callable[[sa.Engine, random.Random], None] | None = None
        if configuration.get("workload"):
            sys.path.insert(0, configuration["folder"])
            module, _, function = configuration["workload"].partition(":")
            self.workload = getattr(importlib.import_module(module), function)

    def serve(self, connection: Connection) -> None:
        """Carry out requests until the rehearsal closes the connection."""
        try:
            while True:
                connection.send(self._answer(connection.recv()))
        except (EOFError, OSError):
            return

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        faults: list[str] = []
        began = time.perf_counter()
        try:
            if "seed" in request:
                assert self.workload is not None  # noqa: S101 - the rehearsal sends it to nodes that have one
                result: Any = self.workload(self.engine, random.Random(request["seed"]))  # noqa: S311 - repeatable
                result = None
            elif "sql" in request:
                result = self.retry.run_transaction(
                    self.engine,
                    lambda connection: [_sent(connection, statement) for statement in request["sql"]],
                    attempts=ATTEMPTS,
                    on_retry=lambda attempt: faults.append(attempt.fault.value),
                )
            else:
                result = self.retry.run_transaction(
                    self.engine,
                    lambda connection: [self._execute(connection, statement) for statement in request["statements"]],
                    attempts=ATTEMPTS,
                    # A COMMIT after nothing but reads may be lost: there is nothing to be done twice.
                    idempotent=all(statement[0] in ("select", "all", "keys") for statement in request["statements"]),
                    on_retry=lambda attempt: faults.append(attempt.fault.value),
                )
            answer: dict[str, Any] = {"result": result}
        except Exception as error:  # noqa: BLE001 - whatever happens to a request is its answer
            answer = {
                "fault": self.faults.diagnose(error).fault.value,
                "error": f"{type(error).__name__}: {error}".partition("\n(Background on this error")[0],
            }
        # A failed transaction's last fault was handed to on_retry, too.
        return {
            **answer,
            "seconds": time.perf_counter() - began,
            "retried": faults if "result" in answer else faults[:-1],
        }

    def _execute(self, connection: sa.Connection, statement: Sequence[Any]) -> Any:
        verb, name, *rest = statement
        if verb == "keys":
            return _keys(connection, self.keys[name], *rest)
        table = self.tables[name]
        if name in self.writers and verb != "delete":
            return _written(connection, self.writers[name], table, verb, *rest)
        if verb == "insert":
            (rows,) = rest
            if len(rows) > 1:
                connection.execute(table.insert().values(rows))
                return None
            result = connection.execute(self._prepared("insert", name), rows[0])
            made = result.inserted_primary_key
            return None if made is None else dict(zip(table.primary_key.columns.keys(), made, strict=True))
        if verb == "upsert":
            row, assigned = rest
            connection.execute(_upsert(connection, table, row, assigned))
            return None
        if verb == "all":
            return [dict(row) for row in connection.execute(sa.select(table)).mappings()]
        (keys, *values) = rest
        given = dict(values[0]) if values else {}
        parameters = {
            f"key_{number}_{column}": value for number, key in enumerate(keys) for column, value in key.items()
        }
        parameters.update({f"new_{column}": value for column, value in given.items()})
        result = connection.execute(self._prepared(verb, name, tuple(keys[0]), len(keys), tuple(given)), parameters)
        if verb == "select":
            row = result.mappings().one_or_none()
            return None if row is None else dict(row)
        return result.rowcount

    def _prepared(
        self, verb: str, name: str, key: tuple[str, ...] = (), rows: int = 0, given: tuple[str, ...] = ()
    ) -> Any:
        """The statement of this form, made once: to make one costs more than to send it."""
        form = verb, name, key, rows, given
        if form not in self._statements:
            self._statements[form] = _statement(self.tables[name], verb, key, rows, given)
        return self._statements[form]


def _keys(connection: sa.Connection, table: sa.Table, keys: Sequence[Mapping[str, Any]] = ()) -> Any:
    """By which values each release knows the row with this key, None if there is none; of every row without a key."""
    if not keys:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    condition = sa.and_(*(table.c[name] == value for name, value in keys[0].items()))
    row = connection.execute(sa.select(table).where(condition).with_for_update()).mappings().one_or_none()
    return None if row is None else dict(row)


def _writers(upgrade: Mapping[str, Any], tables: Mapping[str, sa.Table]) -> dict[str, Any]:
    """What the release's own code writes tables with an opaque lens by, until contract and after."""
    library = importlib.import_module("contraflow")  # the public API, as the release's own code has it
    from contraflow.rehearsal.project import Project

    project = Project(**{**upgrade, "arguments": tuple(upgrade["arguments"])})
    made: dict[str, Any] = {}
    for operation in (each for change in project.upgrade.changes for each in change.operations):
        if isinstance(operation, library.OpaqueColumns):
            name = f"{operation.schema}.{operation.table}" if operation.schema else operation.table
            if name in tables:
                made[name] = library.OpaqueWriter(operation, table=tables[name])
    return made


def _written(connection: sa.Connection, writer: Any, table: sa.Table, verb: str, *rest: Any) -> Any:
    """One statement by way of an `OpaqueWriter`."""
    columns = table.columns.keys()
    if verb == "insert":
        for row in rest[0]:
            writer.insert(connection, row)
        (first, *more) = rest[0]
        key = {name: first.get(name) for name in table.primary_key.columns.keys()}  # noqa: SIM118 - not a mapping
        if not more and None in key.values():
            key = dict.fromkeys(key, connection.exec_driver_sql(_NUMBERED[connection.dialect.name]).scalar_one())
        return None if more else key
    if verb == "update":
        keys, values = rest
        return sum(writer.update(connection, key, values) for key in keys)
    if verb == "all":
        return writer.read(connection, {}, columns)
    (key,) = rest[0]
    condition = sa.and_(*(table.c[name] == value for name, value in key.items()))
    # As any other read here, it waits for whoever writes the row.
    connection.execute(sa.select(sa.literal(1)).select_from(table).where(condition).with_for_update())
    return next(iter(writer.read(connection, key, columns)), None)


_NUMBERED = {
    "postgresql": "SELECT lastval()",
    "cockroachdb": "SELECT lastval()",
    "mysql": "SELECT LAST_INSERT_ID()",
    "mariadb": "SELECT LAST_INSERT_ID()",
    "sqlite": "SELECT last_insert_rowid()",
}
"""The key that the server gave the connection's last row."""


def _sent(connection: sa.Connection, statement: str) -> int:
    """Carry a recorded statement out as it stands; the number of rows."""
    result = connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return len(result.all()) if result.returns_rows else result.rowcount


def _statement(table: sa.Table, verb: str, key: Sequence[str], rows: int, given: Sequence[str]) -> Any:
    """A statement whose values are parameters: those of the keys ``key_0_id``, those to be written ``new_name``."""
    if verb == "insert":
        return table.insert()

    def parameter(name: str, column: str) -> sa.BindParameter[Any]:
        return sa.bindparam(name, type_=table.c[column].type)

    condition = sa.or_(
        *(
            sa.and_(*(table.c[column] == parameter(f"key_{number}_{column}", column) for column in key))
            for number in range(rows)
        )
    )
    if verb == "select":
        # With the lock of a writer, a read waits until a commit that nobody heard of is done or undone.
        return sa.select(table).where(condition).with_for_update()
    if verb == "update":
        return table.update().where(condition).values({column: parameter(f"new_{column}", column) for column in given})
    return table.delete().where(condition)


def _table(connection: sa.Connection, told: Mapping[str, Any]) -> sa.Table:
    """A table as the release's own model declares it: its types are looked up, its key is told.

    A view, by which an upgrade gives a table a second name, has none of its own.
    """
    found = sa.inspect(connection).get_columns(told["name"], schema=told["schema"])
    types = {column["name"]: column["type"] for column in found}
    types.update(dict.fromkeys(told["documents"], sa.JSON()))
    return sa.Table(
        told["name"],
        sa.MetaData(),
        *(
            sa.Column(name, types[name], primary_key=name in told["key"], autoincrement=name == told["automatic"])
            for name in told["columns"]
        ),
        schema=told["schema"],
    )


def _upsert(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], assigned: Sequence[str]) -> Any:
    dialect = connection.dialect.name
    if dialect in ("mysql", "mariadb"):
        from sqlalchemy.dialects.mysql import insert as mysql_insert

        statement = mysql_insert(table).values(row)
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in assigned})
    key = table.primary_key.columns.keys()
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        lite = sqlite_insert(table).values(row)
        return lite.on_conflict_do_update(index_elements=key, set_={name: lite.excluded[name] for name in assigned})
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    full = postgresql_insert(table).values(row)
    return full.on_conflict_do_update(index_elements=key, set_={name: full.excluded[name] for name in assigned})


def _engine(text: str, workers: int, timeout: float) -> sa.Engine:
    """An engine as services have it: pooled, and every wait is bounded."""
    url = sa.make_url(text)
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if backend == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": timeout})
        sa.event.listen(engine, "connect", _write_ahead)
        return engine
    arguments: dict[str, Any] = {}
    if driver == "pymysql":
        arguments = {"connect_timeout": int(timeout), "read_timeout": int(timeout), "write_timeout": int(timeout)}
    elif driver in ("psycopg", "psycopg2"):
        # Keepalives find a connection that went silent; an answer that never comes is found by the same.
        milliseconds = int(timeout * 1000)
        arguments = {"connect_timeout": int(timeout), "tcp_user_timeout": milliseconds, "keepalives_idle": 1}
    return sa.create_engine(url, pool_size=workers, max_overflow=2, connect_args=arguments)


def _write_ahead(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # As on the other scratch servers: what only a power failure would need is not waited for.
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()


def _versions(engine: sa.Engine) -> dict[str, str]:
    """What this interpreter works with."""
    found = {"Python": platform.python_version(), "SQLAlchemy": sa.__version__}
    driver = engine.dialect.driver
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found[driver] = importlib.metadata.version(driver)
    return found


def _main() -> None:
    configuration = json.loads(sys.stdin.readline())
    secret = bytes.fromhex(configuration["secret"])
    try:
        node = _Node(configuration)
    except Exception as error:  # noqa: BLE001 - the rehearsal is told why
        with Client(configuration["address"], authkey=secret) as connection:
            connection.send({"complaint": f"{type(error).__name__}: {error}"})
        return
    for _ in range(configuration["workers"]):
        connection = Client(configuration["address"], authkey=secret)
        connection.send({"versions": _versions(node.engine)})
        threading.Thread(target=node.serve, args=(connection,), daemon=True).start()
    sys.stdin.read()
    # Threads may be in the middle of a transaction: a node that is shut down does not wait for them.
    os._exit(0)


if __name__ == "__main__":
    _main()
