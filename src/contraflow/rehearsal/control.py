"""What happens without the upgrade: databases in each release's own schema, to compare with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from contraflow.engine.runner import Runner
from contraflow.operations.base import TableName
from contraflow.rehearsal.nodes import Statement
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.shapes import TableShape, reflect

__all__ = ["Control", "differences"]

_WITHOUT_KEYS = {
    "postgresql": "SET LOCAL session_replication_role = replica",
    "mysql": "SET foreign_key_checks = 0",
    "mariadb": "SET foreign_key_checks = 0",
}


class Control:
    """A database of each release, without data and without an upgrade.

    :param urls: a database in the release's schema.
    :ivar shapes: each release's tables, as reflected there.
    """

    def __init__(self, urls: Mapping[Side, sa.URL]) -> None:
        self._lock = threading.Lock()
        self._engines = {release: sa.create_engine(url, poolclass=sa.pool.NullPool) for release, url in urls.items()}
        self.shapes: dict[Side, dict[TableName, TableShape]] = {}
        for release, engine in self._engines.items():
            with engine.connect() as connection:
                self.shapes[release] = reflect(connection)

    def engine(self, release: Side) -> sa.Engine:
        """An engine for the release's database."""
        return self._engines[release]

    def fails(self, release: Side, statement: Statement, row: Mapping[str, Any] | None) -> bool:
        """Whether a statement fails here, too, with only ``row`` in its table. Foreign keys are not looked at."""
        verb, title, *rest = statement
        tables = {shape.title: shape for shape in self.shapes[release].values()}
        if title not in tables or verb not in ("insert", "upsert", "update"):
            return False
        columns = tables[title].columns
        table = next(iter(columns.values())).table
        with self._lock, self._engines[release].connect() as connection:
            if setting := _WITHOUT_KEYS.get(connection.dialect.name):
                connection.exec_driver_sql(setting)
            if row is not None and verb == "update":
                try:
                    connection.execute(table.insert().values({k: row[k] for k in row if columns[k].computed is None}))
                except sa.exc.DBAPIError:
                    return False  # what is known of the row does not make one: nothing can be told
            try:
                if verb == "update":
                    keys, values = rest
                    where = sa.and_(*(table.c[name] == value for name, value in keys[0].items()))
                    connection.execute(table.update().where(where).values(values))
                else:
                    for values in [rest[0]] if verb == "upsert" else rest[0]:
                        connection.execute(table.insert().values(values))
            except sa.exc.DBAPIError:
                return True
            finally:
                connection.rollback()
        return False


def differences(live: sa.Engine, control: sa.Engine) -> Iterator[str]:
    """In which ways the schema of one database is not that of the other, in words."""
    with live.connect() as one, control.connect() as other:
        found, expected = reflect(one), reflect(other)
        for name in sorted(found.keys() | expected.keys(), key=str):
            title = (found.get(name) or expected[name]).title
            if name not in found:
                yield f"table {title} is missing"
            elif name not in expected:
                yield f"table {title} is left behind"
            else:
                yield from _table(title, _facts(one, found[name]), _facts(other, expected[name]))


def _table(title: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for fact in sorted(found.keys() | expected.keys()):
        if found.get(fact) != expected.get(fact):
            yield f"{title}: {fact} is {found.get(fact, 'left out')}, and must be {expected.get(fact, 'left out')}"


def _default(found: object) -> str:
    if isinstance(found, sa.Computed):
        return f"AS {found.sqltext}, persisted={found.persisted}"
    return str(getattr(found, "arg", found))


def _facts(connection: sa.Connection, shape: TableShape) -> dict[str, Any]:
    """Everything about a table that can be compared, by name."""
    facts: dict[str, Any] = {
        "its primary key": shape.key,
        "what is unique": shape.unique,
        "its foreign keys": sorted(map(repr, shape.links)),
    }
    for name, column in shape.columns.items():
        words = [column.type.compile(connection.dialect), "NULL" if column.nullable else "NOT NULL"]
        if column.server_default is not None:
            words.append(f"DEFAULT {_default(column.server_default)}")
        facts[f"column {name}"] = " ".join(words)
    inspector = sa.inspect(connection)
    schema, name = shape.name
    facts["its indexes"] = sorted(
        (str(index["name"]), tuple(index["column_names"]), bool(index["unique"]))
        for index in inspector.get_indexes(name, schema=schema)
    )
    with Runner(connection.engine) as runner:
        facts["its triggers"] = sorted(runner.adapter.find(connection, name, schema).triggers)
    return facts
