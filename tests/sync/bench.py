"""One scenario's table on a server: expanded, written to by both releases, backfilled, and read."""

# ruff: noqa: E501, ARG002
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from contraflow import dialects
from contraflow.dialects import Statement
from contraflow.operations.planning import MARKER, Declared, Upgrade, plan
from contraflow.steps import AddColumns, Backfill, Hold, InstallSync, Phases, Probe
from contraflow.syncs import Sync
from tests.servers.shared import Database
from tests.sync.scenarios import KEY, NOTE, Scenario

__all__ = ["Bench", "Refused", "expand", "planned"]

Mutation = Callable[[str], str]


class Refused(Exception):
    """The server refused a statement."""


def scenario_upgrade(scenario: Scenario) -> Upgrade:
    """The scenario's changes as one upgrade, a revision each."""
    declared = tuple(
        Declared(revision=f"r{place}", operations=tuple(operations))
        for place, operations in enumerate(scenario.changes(), start=1)
    )
    return Upgrade(old="r0", new=declared[-1].revision, changes=declared)


def create(connection: sa.Connection, scenario: Scenario, product: str) -> None:
    """Make the table in its old shape."""
    for statement in scenario.setup.get(product, ()):
        connection.exec_driver_sql(statement)
    columns = [
        sa.Column(KEY, sa.Integer(), primary_key=scenario.keyed, nullable=False, autoincrement=False),
        *scenario.more_key(),
        sa.Column(NOTE, sa.String(20), server_default="-"),
        *scenario.columns(product),
    ]
    options = {"sqlite_with_rowid": scenario.rowid}
    sa.Table(scenario.table, sa.MetaData(), *columns, **cast("dict[str, Any]", options)).create(connection)


def planned(connection: sa.Connection, scenario: Scenario) -> Phases:
    """The phases, planned from the table as the server describes it."""
    table = sa.Table(scenario.table, sa.MetaData(), autoload_with=connection)
    return plan(scenario_upgrade(scenario), {(None, scenario.table): table})


def expand(connection: sa.Connection, phases: Phases, mutate: Mutation | None = None) -> dialects.Adapter:
    """Run the expand phase through the server's adapter; ``mutate`` changes the text of triggers and functions."""
    adapter = dialects.choose(connection)
    adapter.prepare(connection)
    for block in phases.expand:
        assert isinstance(block, Hold)
        found = adapter.find(connection, block.table, block.schema)
        statements = adapter.hold(block, found)
        if mutate is not None:
            statements = [Statement(sql=_mutated(found.sql, mutate), lock=found.lock) for found in statements]
        with adapter.holding(connection, block, 10.0):
            adapter.execute(connection, statements)
    return adapter


def _mutated(sql: str, mutate: Mutation) -> str:
    return mutate(sql) if "TRIGGER" in sql or "FUNCTION" in sql else sql


@dataclass(kw_only=True)
class Bench:
    """The table of one scenario after expand, on one connection that commits each statement."""

    connection: sa.Connection
    adapter: dialects.Adapter
    scenario: Scenario
    product: str
    phases: Phases
    table: sa.Table
    sync: Sync
    _decode: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    @classmethod
    def expanded(cls, database: Database, scenario: Scenario, mutate: Mutation | None = None) -> Bench:
        """Create the scenario's table in a fresh database, and expand it."""
        connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        dialect = connection.dialect
        product = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
        if product == "sqlite":
            # SQLite's own clock of sleeping would make waiting for a lock part of every commit.
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
        create(connection, scenario, product)
        phases = planned(connection, scenario)
        adapter = expand(connection, phases, mutate)
        steps = [step for block in phases.expand if isinstance(block, Hold) for step in block.steps]
        sync = next(step.sync for step in steps if isinstance(step, InstallSync))
        added = [op.column for step in steps if isinstance(step, AddColumns) for op in step.columns]
        table = sa.Table(
            scenario.table,
            sa.MetaData(),
            sa.Column(KEY, sa.Integer(), primary_key=True),
            *scenario.more_key(),
            sa.Column(NOTE, sa.String(20)),
            *(_readable(column, product, scenario) for column in (*scenario.columns(product), *added)),
            sa.Column(MARKER, sa.SmallInteger()),
        )
        if product in ("mysql", "mariadb"):
            sa.event.listen(connection, "before_cursor_execute", _say_replace, retval=True)
        return cls(
            connection=connection,
            adapter=adapter,
            scenario=scenario,
            product=product,
            phases=phases,
            table=table,
            sync=sync,
        )

    @property
    def names(self) -> list[str]:
        """All columns beside the key and the marker."""
        skipped = {KEY, MARKER, *(column.name for column in self.scenario.more_key())}
        return [column.name for column in self.table.columns if column.name not in skipped]

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self) -> dict[int, tuple[dict[str, Any], bool]]:
        """Every row by its key: the values, and whether the row counts as synced."""
        names = self.names
        columns = [self.table.c[name] for name in (KEY, MARKER, *names)]
        found = {}
        for key, marker, *values in self.connection.execute(sa.select(*columns)):
            assert key not in found, f"two rows with key {key}"
            found[key] = (
                {name: _plain(value) for name, value in zip(names, values, strict=True)},
                marker is not None,
            )
        return found

    # -- writing ------------------------------------------------------------------------------------------------------

    def run(self, statement: Any, parameters: Any = None, **options: Any) -> int:
        """One statement, committed; raises :class:`Refused` if the server refuses the values."""
        try:
            result = self.connection.execute(statement, parameters, execution_options=options)
        except (sa.exc.IntegrityError, sa.exc.OperationalError, sa.exc.DataError) as error:
            raise Refused(str(error.orig)) from error
        return result.rowcount

    def rows(self, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Rows as parameters of an INSERT."""
        extra = self.scenario.more_key_values()
        return [
            {KEY: key, **extra, **{name: self.parameter(name, value) for name, value in values.items()}}
            for key, values in rows
        ]

    def parameter(self, name: str, value: Any) -> Any:
        """A value as the driver takes it."""
        return float(value) if isinstance(value, Decimal) and self.product == "sqlite" else value

    @property
    def key_columns(self) -> list[str]:
        """The columns of the primary key."""
        return [KEY, *(column.name for column in self.scenario.more_key())]

    def insert(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """INSERT, several rows in one statement."""
        self.run(sa.insert(self.table).values(self.rows(rows)))

    def insert_select(self, names: Sequence[str], shift: int, keys: Sequence[int]) -> None:
        """INSERT ... SELECT of copies of rows, under other keys, giving only the named columns."""
        copied = [*(column.name for column in self.scenario.more_key()), *names]
        source = sa.select(self.table.c[KEY] + shift, *(self.table.c[name] for name in copied)).where(
            self.table.c[KEY].in_(list(keys))
        )
        self.run(sa.insert(self.table).from_select([KEY, *copied], source))

    def insert_or_ignore(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """The server's INSERT that leaves out rows whose key exists."""
        values = self.rows(rows)
        if self.product == "postgresql":
            self.run(postgresql.insert(self.table).values(values).on_conflict_do_nothing())
        elif self.product == "sqlite":
            self.run(sa.insert(self.table).values(values).prefix_with("OR IGNORE"))
        else:
            self.run(sa.insert(self.table).values(values).prefix_with("IGNORE"))

    def do_nothing(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """ON CONFLICT DO NOTHING, or what comes nearest."""
        if self.product == "sqlite":
            self.run(sqlite.insert(self.table).values(self.rows(rows)).on_conflict_do_nothing())
        else:
            self.insert_or_ignore(rows)

    def upsert(self, rows: Sequence[tuple[int, Mapping[str, Any]]], assigned: Sequence[str]) -> None:
        """ON CONFLICT DO UPDATE, or ON DUPLICATE KEY UPDATE, from the proposed row."""
        values = self.rows(rows)
        if self.product in ("mysql", "mariadb"):
            duplicate = mysql.insert(self.table).values(values)
            self.run(duplicate.on_duplicate_key_update({name: duplicate.inserted[name] for name in assigned}))
            return
        module = postgresql if self.product == "postgresql" else sqlite
        conflict = module.insert(self.table).values(values)
        self.run(
            conflict.on_conflict_do_update(
                index_elements=self.key_columns, set_={name: conflict.excluded[name] for name in assigned}
            )
        )

    def replace(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """REPLACE, or INSERT OR REPLACE."""
        statement = sa.insert(self.table).values(self.rows(rows))
        if self.product == "sqlite":
            self.run(statement.prefix_with("OR REPLACE"))
        else:
            self.run(statement, contraflow_replace=True)

    def update(self, keys: Sequence[int], values: Mapping[str, Any]) -> None:
        """UPDATE of several rows to the same values."""
        assigned = {name: self.parameter(name, value) for name, value in values.items()}
        self.run(sa.update(self.table).where(self.table.c[KEY].in_(list(keys))).values(assigned))

    def repeat(self, keys: Sequence[int], names: Sequence[str]) -> None:
        """UPDATE that assigns columns to themselves."""
        same = {name: self.table.c[name] for name in names}
        self.run(sa.update(self.table).where(self.table.c[KEY].in_(list(keys))).values(same))

    def delete(self, keys: Sequence[int]) -> None:
        """DELETE of several rows."""
        self.run(sa.delete(self.table).where(self.table.c[KEY].in_(list(keys))))

    def forget(self, key: int, values: Mapping[str, Any]) -> None:
        """Make a row what it would be had it been there before expand: its values, and never synced."""
        assigned = {name: self.parameter(name, value) for name, value in values.items()}
        self.run(sa.update(self.table).where(self.table.c[KEY] == key).values({**assigned, MARKER: sa.null()}))

    def clear(self) -> None:
        """Empty the table."""
        self.run(sa.delete(self.table))

    # -- data steps of the library ----------------------------------------------------------------------------------------

    def backfill(self, *, limit: int, batches: int) -> int:
        """Run batches of the adapter's backfill from the start, as a runner that is killed after some; rows written."""
        found = self.adapter.find(self.connection, self.sync.table, self.sync.schema)
        text = self.adapter.backfill(Backfill(sync=self.sync), found)
        written = 0
        after: dict[str, Any] = {}
        for batch in range(batches):
            if text.bound is None:
                rows = self.connection.execute(sa.text(text.fill), {"limit": limit}).rowcount
                written += rows
                if not rows:
                    break
                continue
            bound = text.bound if batch else text.first_bound
            assert bound is not None
            last = self.connection.execute(sa.text(bound), {**after, "limit": limit}).first()
            if last is None:
                break
            upto = {f"u{place}": value for place, value in enumerate(last)}
            fill = text.fill if batch else text.first_fill
            written += self.connection.execute(sa.text(fill), {**after, **upto}).rowcount
            after = {f"k{place}": value for place, value in enumerate(last)}
        return written

    def probe(self) -> tuple[int, list[int], list[list[Any]]]:
        """What the adapter's verification says: rows never synced, and for each group how many differ, and which."""
        text = self.adapter.probe(Probe(sync=self.sync))
        unsynced = self.connection.execute(sa.text(text.unsynced)).scalar_one()
        counts = [self.connection.execute(sa.text(sql)).scalar_one() for _, sql in text.differing]
        shown = [[row[0] for row in self.connection.execute(sa.text(sql), {"limit": 100})] for _, sql in text.show]
        return unsynced, counts, shown


def _readable(column: sa.Column[Any], product: str, scenario: Scenario) -> sa.Column[Any]:
    """The column for reading and writing; SQLite keeps decimals as floats, and MariaDB reflects JSON as text."""
    type_: Any = column.type
    if isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float) and product == "sqlite":
        type_ = sa.Float()
    if any(isinstance(value, (dict, list)) for value in scenario.pools.get(column.name, ())):
        type_ = sa.JSON(none_as_null=True)
    return sa.Column(column.name, type_)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _say_replace(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    """SQLAlchemy has no REPLACE."""
    if context is not None and context.execution_options.get("contraflow_replace"):
        statement = "REPLACE" + statement.removeprefix("INSERT")
    return statement, parameters
