"""A small upgrade on one table, put together by hand, and what the tests of the adapters do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

from contraflow import dialects
from contraflow.dialects.base import Adapter, Found
from contraflow.lens import Lens, combine
from contraflow.steps import (
    AddColumns,
    Backfill,
    DropColumns,
    EnforceNotNull,
    Hold,
    InstallSync,
    Online,
    Probe,
    RelaxNotNull,
    RemoveSync,
    RestoreNotNull,
    SetNotNull,
)
from contraflow.syncs import Sync, SyncColumn
from tests.servers.shared import Database

MARKER = "contraflow_marker"
TIMEOUT = 0.2


def attached(database: Database) -> tuple[sa.Connection, Adapter]:
    """A prepared connection that commits by itself, and its adapter. On SQLite no commit waits for the disk."""
    connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    adapter = dialects.choose(connection)
    adapter.prepare(connection)
    if adapter.product == "sqlite":
        connection.exec_driver_sql("PRAGMA synchronous = OFF")
    return connection, adapter


@dataclass(frozen=True, kw_only=True)
class Case:
    """One table, one lens from the old columns to the new ones; all of text, all NOT NULL."""

    lens: Lens
    table: str = "users"
    schema: str | None = None
    key: tuple[str, ...] = ("id",)
    name: str = "cf_users"
    types: Mapping[str, sa.types.TypeEngine[Any]] = field(default_factory=dict)
    not_null: bool = True
    defaults: Mapping[str, str] = field(default_factory=dict)

    def type_of(self, name: str) -> sa.types.TypeEngine[Any]:
        return self.types.get(name, sa.String(60))

    @property
    def where(self) -> dict[str, Any]:
        return {"table": self.table, "schema": self.schema}

    @property
    def sync(self) -> Sync:
        old = {name: self.type_of(name) for name in self.lens.old}
        new = {name: self.type_of(name) for name in self.lens.new}
        return Sync(
            **self.where,
            key=self.key,
            columns={
                name: SyncColumn(name=name, type=type_, nullable=not self.not_null)
                for name, type_ in {**old, **new}.items()
            },
            groups=combine([(self.lens, frozenset())], old_types=old, new_types=new),
            marker=MARKER,
            name=self.name,
        )

    @property
    def expand(self) -> Hold:
        columns = tuple(
            ops.AddColumnOp(self.table, sa.Column(name, self.type_of(name), nullable=False), schema=self.schema)
            for name in self.lens.new
        )
        relaxed = tuple(self.lens.old) if self.not_null else ()
        return Hold(
            title="expand",
            **self.where,
            steps=(
                AddColumns(**self.where, columns=columns),
                RelaxNotNull(**self.where, names=relaxed),
                InstallSync(sync=self.sync),
            ),
        )

    @property
    def rollback(self) -> Hold:
        relaxed = tuple(self.lens.old) if self.not_null else ()
        return Hold(
            title="rollback",
            **self.where,
            steps=(
                RemoveSync(**self.where, name=self.name, marker=MARKER),
                RestoreNotNull(**self.where, names=relaxed),
                DropColumns(**self.where, names=tuple(self.lens.new)),
            ),
        )

    @property
    def enforce(self) -> Online:
        names = tuple(self.lens.new) if self.not_null else ()
        step = EnforceNotNull(**self.where, names=names, defaults=self.defaults)
        return Online(title="prove", **self.where, step=step)

    @property
    def contract(self) -> Hold:
        names = tuple(self.lens.new)
        old = tuple(self.lens.old)
        return Hold(
            title="contract",
            **self.where,
            steps=(
                SetNotNull(**self.where, not_null=names if self.not_null else (), defaults=self.defaults, names=names),
                RemoveSync(**self.where, name=self.name, marker=MARKER, fill_defaults=old if self.not_null else ()),
                DropColumns(**self.where, names=old),
            ),
        )


RENAME = Lens(
    old=["fullname"],
    new=["display_name"],
    forward=lambda row: {"display_name": row.fullname},
    backward=lambda row: {"fullname": row.display_name},
)


@contextlib.contextmanager
def connected(engine: sa.Engine) -> Iterator[tuple[sa.Connection, Adapter]]:
    """A connection as the engine of an upgrade has it, and its adapter."""
    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        adapter = dialects.choose(connection)
        adapter.prepare(connection)
        yield connection, adapter


def send(connection: sa.Connection, *statements: str) -> None:
    """Send each statement as it is."""
    for statement in statements:
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def run(connection: sa.Connection, adapter: Adapter, hold: Hold) -> None:
    """Carry out what is left of the hold."""
    with adapter.holding(connection, hold, TIMEOUT):
        found = adapter.find(connection, hold.table, hold.schema)
        adapter.execute(connection, adapter.hold(hold, found))


def run_online(connection: sa.Connection, adapter: Adapter, online: Online) -> None:
    """Carry out what is left of the online step."""
    found = adapter.find(connection, online.table, online.schema)
    with adapter.running_online(connection, TIMEOUT):
        adapter.execute(connection, adapter.online(online, found))


def fill(connection: sa.Connection, adapter: Adapter, case: Case, limit: int = 3) -> list[int]:
    """The whole backfill, in batches of at most ``limit`` rows; the number of rows written by each."""
    found = adapter.find(connection, case.table, case.schema)
    text = adapter.backfill(Backfill(sync=case.sync), found)
    written: list[int] = []
    if text.bound is None:
        while not written or written[-1]:
            with adapter.transaction(connection, TIMEOUT):
                written.append(connection.execute(sa.text(text.fill), {"limit": limit}).rowcount)
        return written
    assert text.first_bound is not None
    upto = connection.execute(sa.text(text.first_bound), {"limit": limit}).first()
    after: dict[str, Any] = {}
    while upto is not None:
        last = {f"u{place}": value for place, value in enumerate(upto)}
        with adapter.transaction(connection, TIMEOUT):
            sql = text.fill if after else text.first_fill
            written.append(connection.execute(sa.text(sql), {**after, **last}).rowcount)
        after = {f"k{place}": value for place, value in enumerate(upto)}
        upto = connection.execute(sa.text(text.bound), {**after, "limit": limit}).first()
    return written


def probe(connection: sa.Connection, adapter: Adapter, case: Case) -> dict[str, int]:
    """The counts of a verification."""
    text = adapter.probe(Probe(sync=case.sync, not_null=tuple(case.lens.new)))
    queries = {"unsynced": text.unsynced, **dict(text.differing), **text.nulls}
    return {name: int(connection.execute(sa.text(query)).scalar_one()) for name, query in queries.items()}


def shape(connection: sa.Connection, adapter: Adapter, case: Case) -> dict[str, Any]:
    """Everything about the table that a rollback must give back, as the server tells it."""
    found = adapter.find(connection, case.table, case.schema)
    details = dict(found.details)
    details.pop("schema_version", None)  # grows with every change, back and forth
    inspector = sa.inspect(connection)
    return {
        "found": Found(exists=found.exists, columns=found.columns, triggers=found.triggers, details=details),
        "indexes": sorted(inspector.get_indexes(case.table, schema=case.schema), key=lambda index: str(index["name"])),
        "checks": inspector.get_check_constraints(case.table, schema=case.schema),
        "views": sorted(inspector.get_view_names(schema=case.schema)),
    }


def rows(connection: sa.Connection, adapter: Adapter, case: Case, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of the table, these columns, in their order."""
    listed = ", ".join(adapter.compiler.quote(name) for name in names)
    table = adapter.compiler.table(case.table, case.schema)
    found = connection.exec_driver_sql(f"SELECT {listed} FROM {table}", execution_options={"no_parameters": True})
    return sorted(tuple(row) for row in found)
