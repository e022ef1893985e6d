"""CockroachDB 25.2.2 and later, by its documentation: this project's own tests did not run it so far.

What differs from PostgreSQL: a schema change is a job of its own, online, and should be alone in its transaction
(https://www.cockroachlabs.com/docs/stable/online-schema-changes); tables are not locked; transactions are serializable
and must be retried; triggers are a subset (https://www.cockroachlabs.com/docs/stable/triggers). Before 25.2.2, AFTER
triggers beside cascades could fail commits.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, ClassVar

import sqlalchemy as sa

from contraflow.dialects.base import BackfillText, Found, Profile, Statement
from contraflow.dialects.data import backfill_text, escape
from contraflow.dialects.postgresql import PostgreSQLAdapter
from contraflow.dialects.remaining import Remaining, still_nullable
from contraflow.installed import Index, Installed
from contraflow.problems import Problem
from contraflow.steps import (
    AllowNull,
    Backfill,
    BuildConstraint,
    BuildIndex,
    EnforceNotNull,
    ExtendEnums,
    Hold,
    Online,
    ProveReferences,
    SetComments,
    Step,
    WidenColumns,
)
from contraflow.syncs import Sync, Synced

__all__ = ["CockroachDBAdapter"]

_JOB = "none: an online schema change job"


class CockroachDBAdapter(PostgreSQLAdapter):
    """CockroachDB. Like Galera it has no hold: each statement stands alone, in an order harmless in every prefix."""

    product = "cockroachdb"
    excludes = False
    index_methods = False
    floor: ClassVar[tuple[int, ...]] = (25, 2, 2)
    transactional_ddl: ClassVar[bool] = False
    rebuilds: ClassVar[bool] = False
    exclusive: ClassVar[str] = _JOB
    row_exclusive: ClassVar[str] = _JOB
    has_virtual_columns = True
    follows_tables: ClassVar[bool] = False
    makes_companions: ClassVar[bool] = False
    changes_keys: ClassVar[bool] = False  # ALTER PRIMARY KEY, a statement of its own, was not tried
    writable_views: ClassVar[bool] = False  # https://www.cockroachlabs.com/docs/stable/views

    @classmethod
    def matches(cls, connection: sa.Connection) -> Profile | None:
        """See :meth:`Adapter.matches`."""
        if connection.dialect.name not in ("postgresql", "cockroachdb"):
            return None
        text = str(connection.exec_driver_sql("SELECT version()").scalar_one())
        match = re.search(r"CockroachDB.*? v(\d+)\.(\d+)\.(\d+)", text)
        if match is None:
            return None
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        return Profile(
            product=cls.product,
            version=tuple(int(part) for part in match.groups()),
            settings={"default_schema": str(schema or "")},
        )

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
        problems = []
        for schema, table in tables:
            cascades = connection.execute(
                sa.text(
                    "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:name) AND contype = 'f'"
                    " AND (confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('n', 'd'))"
                ),
                {"name": self.compiler.table(table, schema)},
            ).scalars()
            problems += [
                Problem(
                    code="CF205",
                    what=f"the foreign key {name} of {table} changes its rows by a cascade.",
                    why="CockroachDB fails a cascade whose row a BEFORE trigger changes.",
                    instead="make it NO ACTION or RESTRICT for the length of the upgrade,"
                    "\nor leave the sync to the application (strategy).",
                )
                for name in cascades
            ]
        return problems

    def dependents(self, connection: sa.Connection, installed: Installed) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        """See :meth:`Adapter.dependents`. None are looked for: its pg_depend does not hold them; contract may fail."""
        return ()

    def table_readers(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:  # noqa: ARG002
        """See :meth:`Adapter.table_readers`. The server itself refuses to drop a table that a view reads."""
        return ()

    def routines(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:  # noqa: ARG002
        """See :meth:`Adapter.routines`. Bodies are kept parsed: the server itself refuses."""
        return ()

    def sync_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:  # noqa: ARG002
        """See :meth:`Adapter.sync_problems`. It has no inheritance."""
        return []

    def contrary_triggers(self, connection: sa.Connection, synced: Synced) -> list[Problem]:  # noqa: ARG002
        """See :meth:`Adapter.contrary_triggers`. None are looked for: what its catalog tells of them was not tried."""
        return []

    def prepare(self, connection: sa.Connection) -> None:
        """See :meth:`Adapter.prepare`."""
        settings = {
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "client_min_messages": "warning",
            "timezone": "UTC",
            "sql_safe_updates": "off",  # refuses DROP COLUMN and an UPDATE without WHERE
        }
        for name, value in settings.items():
            connection.exec_driver_sql(f"SET {name} = '{value}'")

    def _keys(self, connection: sa.Connection, oid: int) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: no primary key is changed there."""
        return {}

    def _triggers(
        self,
        connection: sa.Connection,
        table: str,
        schema: str | None,
        oid: int,  # noqa: ARG002 - PostgreSQL's
        functions: list[str],
    ) -> dict[str, str]:
        """Names only: the fingerprint stands in the function's name instead."""
        name = self.compiler.table(table, schema)
        found = connection.exec_driver_sql(f"SHOW TRIGGERS FROM {name}", execution_options={"no_parameters": True})
        triggers = {}
        for row in found.mappings():
            trigger = str(row["trigger_name"])
            prints = [function[-16:] for function in self._functions_of(trigger[:-2], functions)]
            triggers[trigger] = f"/* contraflow {prints[0]} */" if len(prints) == 1 else ""
        return triggers

    def _functions_of(self, stem: str, functions: Collection[str] | None) -> list[str]:
        prefix = stem.encode()[:46].decode(errors="ignore")
        if functions is None:
            return [f"{prefix}_<fingerprint>"]
        pattern = re.compile(f"{re.escape(prefix)}_[0-9a-f]{{16}}")
        return sorted(name for name in functions if pattern.fullmatch(name))

    def _alter_all(self, table: str, parts: list[str]) -> list[Statement]:
        """One statement for each column: several changes of a table in one statement are only partly supported."""
        return [self._alter(table, part) for part in parts]

    def _fill_defaults(self, work: Remaining, table: str) -> list[Statement]:
        return self._alter_all(
            table, [f"ALTER COLUMN {self.compiler.quote(name)} DROP NOT NULL" for name in work.fill_defaults]
        )

    def _final_shape(
        self,
        work: Remaining,
        table: str,
        constraints: dict[str, bool] | None,  # noqa: ARG002 - PostgreSQL's detour is not needed
    ) -> list[Statement]:
        quote = self.compiler.quote
        parts = [f"ALTER COLUMN {quote(name)} SET DEFAULT {default}" for name, default in work.defaults.items()]
        return self._alter_all(table, [*parts, *(f"ALTER COLUMN {quote(name)} SET NOT NULL" for name in work.not_null)])

    def _make_constraints(self, work: Remaining, table: str) -> list[Statement]:  # noqa: ARG002
        """Nothing: a unique constraint is a unique index (https://www.cockroachlabs.com/docs/stable/unique)."""
        return []

    def _drop_indexes(self, work: Remaining, table: str, found: Found | None) -> list[Statement]:  # noqa: ARG002
        """A unique constraint goes with its index only (the same page; DROP CONSTRAINT is refused)."""
        return [
            Statement(
                sql=f"DROP INDEX {table}@{self.compiler.quote(str(index.name))}{' CASCADE' if index.unique else ''}",
                lock=_JOB,
            )
            for index in work.drop_indexes
        ]

    def _create_index(self, index: Index, table: str) -> str:
        return super()._create_index(index, table).replace("INDEX CONCURRENTLY", "INDEX", 1)

    def _build(self, step: BuildIndex, found: Found | None) -> list[Statement]:
        return [Statement(sql=statement.sql, lock=_JOB) for statement in super()._build(step, found)]

    def discard(self, step: Step, found: Found) -> list[Statement]:  # noqa: ARG002
        """See :meth:`Adapter.discard`: a job that fails takes back what it built."""
        return []

    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.online`: SET NOT NULL validates online by itself."""
        step = online.step
        if isinstance(step, BuildIndex):
            return self._build(step, found)
        if isinstance(step, AllowNull):
            return self._allow_null(step, found)
        if isinstance(step, BuildConstraint):
            return [Statement(sql=statement.sql, lock=_JOB) for statement in self._build_constraint(step, found)]
        if isinstance(step, (ExtendEnums, ProveReferences, SetComments, WidenColumns)):
            return [Statement(sql=statement.sql, lock=_JOB) for statement in super().online(online, found)]
        if not isinstance(step, EnforceNotNull):
            raise TypeError(f"{type(step).__name__} is not sent as statements")
        table = self.compiler.table(step.table, step.schema)
        return self._alter_all(
            table,
            [f"ALTER COLUMN {self.compiler.quote(name)} SET NOT NULL" for name in still_nullable(step, found)],
        )

    def backfill(self, step: Backfill, found: Found | None = None) -> BackfillText:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.backfill`."""
        name = self.compiler.table(step.sync.table, step.sync.schema).replace("'", "''")
        return backfill_text(
            step.sync,
            self.compiler,
            limited="{unsynced} LIMIT :limit",
            estimate=escape(
                f"SELECT coalesce(max(CAST(reltuples AS INT8)), 0) FROM pg_class WHERE oid = to_regclass('{name}')"
            ),
        )

    # -- execution ---------------------------------------------------------------------------------

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.opening`."""
        return [Statement(sql=f"SET lock_timeout = '{max(1, round(timeout * 1000))}ms'")]

    def closing(self, hold: Hold) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.closing`."""
        return [Statement(sql="RESET lock_timeout")]

    @contextlib.contextmanager
    def holding(self, connection: sa.Connection, hold: Hold, timeout: float) -> Iterator[None]:  # noqa: ARG002
        """See :meth:`Adapter.holding`."""
        with self.running_online(connection, timeout):
            yield

    @contextlib.contextmanager
    def transaction(self, connection: sa.Connection, timeout: float) -> Iterator[Any]:
        """See :meth:`Adapter.transaction`: serializable, to be retried on 40001."""
        opening = [
            Statement(sql="BEGIN"),
            Statement(sql=f"SET LOCAL lock_timeout = '{max(1, round(timeout * 1000))}ms'"),
        ]
        with self.unit(connection, opening, [Statement(sql="COMMIT")]):
            yield
