"""PostgreSQL 13 and later.

DDL is transactional: a hold is one transaction that takes the strongest lock it needs first, with ``lock_timeout``, so
that no lock is upgraded on the way. The lock of each statement is the one its manual page names
(https://www.postgresql.org/docs/current/explicit-locking.html, ``ALTER TABLE``, ``CREATE TRIGGER``).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import ClassVar

import sqlalchemy as sa

from contraflow.constraints import Exclusion, ForeignKey
from contraflow.copies import Copy
from contraflow.dialects import data, postgresql_held, postgresql_keys, postgresql_widening
from contraflow.dialects.base import (
    BackfillText,
    Found,
    LockTimeout,
    NotUnique,
    ProbeText,
    Statement,
    Violated,
)
from contraflow.dialects.collations import copy_collations
from contraflow.dialects.comments import comment_on, postgresql_comments
from contraflow.dialects.compiler import plain_literal
from contraflow.dialects.constraint_text import clause
from contraflow.dialects.imposed import Imposition, deadlocks, incomplete_inserts, stale_plans
from contraflow.dialects.kinds import Kind, kind_of
from contraflow.dialects.labels import postgresql_labels
from contraflow.dialects.postgresql_lookups import lookup_problems
from contraflow.dialects.postgresql_server import PostgreSQLServer
from contraflow.dialects.postgresql_synced import inherited_columns, later_triggers
from contraflow.dialects.remaining import Remaining, remaining, require, still_nullable
from contraflow.dialects.sync import TriggerText
from contraflow.dialects.tables import PostgreSQLTables
from contraflow.dialects.triggers import triggers_of
from contraflow.dialects.widening import Widened, differ, fill_text, rebuild_problems
from contraflow.installed import Index, Installed, Widening
from contraflow.problems import Problem, ProblemError
from contraflow.steps import (
    AllowNull,
    Backfill,
    BuildConstraint,
    BuildIndex,
    ChangeKey,
    EnforceNotNull,
    ExtendEnums,
    Hold,
    Linked,
    NumberColumn,
    Online,
    Probe,
    ProveReferences,
    SetComments,
    Step,
    WidenColumns,
)
from contraflow.syncs import Sync, Synced

__all__ = ["PostgreSQLAdapter"]


class PostgreSQLAdapter(PostgreSQLServer):
    """PostgreSQL, through any driver whose errors carry a SQLSTATE."""

    product = "postgresql"
    floor: ClassVar[tuple[int, ...]] = (13,)
    transactional_ddl: ClassVar[bool] = True
    # NAMEDATALEN - 1: a longer name is cut, and only a NOTICE tells (manual, Identifiers and Key Words).
    longest_name = (63, "bytes")
    rebuilds: ClassVar[bool] = True
    excludes: ClassVar[bool] = True
    index_methods: ClassVar[bool] = True
    exclusive: ClassVar[str] = "ACCESS EXCLUSIVE"
    row_exclusive: ClassVar[str] = "SHARE ROW EXCLUSIVE"
    imposes: ClassVar[tuple[Imposition, ...]] = (stale_plans, incomplete_inserts, deadlocks)

    # -- steps to statements -----------------------------------------------------------------------

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`."""
        if not hold.locked:
            return PostgreSQLTables(self.compiler, self.profile.version).statements(hold, found)
        work = remaining(hold, found, self._texts)
        functions = None if found is None else found.details.get("functions", frozenset())
        constraints = None if found is None else found.details.get("constraints", {})
        table = self.compiler.table(work.table, work.schema)
        quote = self.compiler.quote
        sent = [
            *self._make_constraints(work, table),
            *self._drop_constraints(work, table),
            *self._drop_indexes(work, table, found),
            *(
                statement
                for step in work.widening
                for statement in postgresql_widening.hold(self._widened(step, found), _check_name, work.gone)
            ),
            *self._set_defaults(work, table),
            *self._fill_defaults(work, table),
            *self._final_shape(work, table, constraints),
            *self._change_key(work, table, found),
            *(postgresql_keys.number(work.number, found, self.compiler) if work.number else ()),
            *(
                Statement(sql=f"DROP TRIGGER {quote(name)} ON {table}", lock=self.exclusive)
                for name in work.drop_triggers
            ),
        ]
        creating = work.create[0] if work.create and not _has_function(work, found) else None
        stem = work.drop_function or (creating.name[:-2] if creating and found is not None else None)
        if stem:
            sent += [
                Statement(sql=f"DROP FUNCTION {self.compiler.table(name, work.schema)}()")
                for name in self._functions_of(stem, functions)
            ]
        if work.reset_marker:
            sent.append(self._alter(table, f"DROP COLUMN {quote(work.reset_marker)}"))
        if found is not None:
            self._require_enums(work, found)
        sent += self._add(work, table)
        if creating and creating.function:
            sent.append(Statement(sql=creating.function))
        sent += [Statement(sql=text.create, lock=self.row_exclusive) for text in work.create]
        sent += postgresql_held.bequeath(work, found, self.compiler)
        return [*sent, *self._alter_all(table, [f"DROP COLUMN {quote(name)}" for name in work.drop])]

    def _widened(self, step: WidenColumns, found: Found | None) -> Widened:
        rule = self.widens_in_place
        return Widened(step=step, found=found, compiler=self.compiler, product=self.product, rule=rule)

    def widens_in_place(self, column: str, old: Kind, new: Kind, found: Found | None) -> bool:  # noqa: ARG002
        """See :meth:`Adapter.widens_in_place`."""
        return postgresql_widening.in_place(old, new)

    def widening_problems(self, connection: sa.Connection, step: WidenColumns) -> Iterator[Problem]:
        """See :meth:`Adapter.widening_problems`."""
        yield from super().widening_problems(connection, step)
        widened = self._widened(step, self.find(connection, step.table, step.schema))
        yield from postgresql_widening.problems(connection, widened)
        if self.rebuilds:
            yield from rebuild_problems(widened)

    def _widens_under_keys(self, one: Widening, found: Found) -> bool:
        old, new = kind_of(one.old, self.product), kind_of(one.new, self.product)
        return self.rebuilds and not self.widens_in_place(one.column, old, new, found)

    def sync_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:
        """See :meth:`Adapter.sync_problems`."""
        return list(inherited_columns(connection, sync, self.compiler))

    def contrary_triggers(self, connection: sa.Connection, synced: Synced) -> list[Problem]:
        """See :meth:`Adapter.contrary_triggers`."""
        return list(later_triggers(connection, synced, self.compiler))

    def lookup_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:
        """See :meth:`Adapter.lookup_problems`."""
        return super().lookup_problems(connection, sync) or list(lookup_problems(connection, sync, self.compiler))

    def copy_problems(self, connection: sa.Connection, copy: Copy) -> list[Problem]:
        """See :meth:`Adapter.copy_problems`."""
        if not self.follows_tables:
            return super().copy_problems(connection, copy)
        return list(copy_collations(connection, copy, "current_schema()"))

    def fill_shadows(self, step: WidenColumns, found: Found | None) -> BackfillText | None:
        """See :meth:`Adapter.fill_shadows`."""
        return fill_text(self._widened(step, found), self._estimate(step.table, step.schema))

    def misfits(self, widening: Widening, found: Found) -> str | None:
        """See :meth:`Adapter.misfits`."""
        if widening.shadow in found.columns:
            return differ(widening, self.compiler, self.product)
        return super().misfits(widening, found)

    def _texts(self, target: Sync | Linked) -> list[TriggerText]:
        schema = self.profile.settings.get("default_schema")
        return triggers_of(target, self.product, self.compiler, default_schema=schema)

    def _require_enums(self, work: Remaining, found: Found) -> None:
        """Raise CF116 for a column of an enumerated type that does not exist: a rollback could not tell whose it is."""
        for column in work.add:
            type_ = column.type
            if isinstance(type_, sa.types.Enum) and type_.native_enum and type_.name not in found.details["enums"]:
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"{work.table}.{column.name} is of the type {type_.name}, which does not exist.",
                        why="an upgrade adds columns, not types.",
                        instead="create the type in an earlier revision, or write Enum(..., native_enum=False).",
                    )
                )

    def _functions_of(self, stem: str, functions: Collection[str] | None) -> list[str]:
        """The names of the sync's functions among ``functions``; the one it has if None."""
        return [stem] if functions is None or stem in functions else []

    def _alter(self, table: str, what: str) -> Statement:
        return Statement(sql=f"ALTER TABLE {table} {what}", lock=self.exclusive)

    def _alter_all(self, table: str, parts: list[str]) -> list[Statement]:
        return [self._alter(table, ", ".join(parts))] if parts else []

    def _add(self, work: Remaining, table: str) -> list[Statement]:
        quote = self.compiler.quote
        # What is computed may read another new column.
        parts = [
            f"ADD COLUMN {quote(column.name)} {self.compiler.type_text(column.type)}{self.compiler.generated(column)}"
            for column in sorted(work.add, key=lambda column: column.computed is not None)
        ]
        if marker := work.add_marker or work.reset_marker:
            parts.append(f"ADD COLUMN {quote(marker)} {self.marker_type}")
        sent = self._alter_all(table, parts)
        for column in work.add:
            if column.comment:
                sent.append(comment_on("COLUMN", f"{table}.{quote(column.name)}", column.comment))
        return sent

    def _set_defaults(self, work: Remaining, table: str) -> list[Statement]:
        quote = self.compiler.quote
        return self._alter_all(
            table,
            [
                f"ALTER COLUMN {quote(name)} {'DROP DEFAULT' if text is None else f'SET DEFAULT {text}'}"
                for name, text in work.set_defaults.items()
            ],
        )

    def _fill_defaults(self, work: Remaining, table: str) -> list[Statement]:  # noqa: ARG002 - for subclasses
        """Nothing: no writer sees the table between two statements of a transaction."""
        return []

    def _final_shape(self, work: Remaining, table: str, constraints: dict[str, bool] | None) -> list[Statement]:
        quote = self.compiler.quote
        parts = [f"ALTER COLUMN {quote(name)} SET DEFAULT {default}" for name, default in work.defaults.items()]
        parts += [f"ALTER COLUMN {quote(name)} SET NOT NULL" for name in work.not_null]
        if not parts:
            return []
        # A valid CHECK (x IS NOT NULL) spares SET NOT NULL its scan (PostgreSQL 12); so it is dropped afterwards.
        checks = [_check_name(work.table, name) for name in work.not_null]
        proven = constraints is None or all(constraints.get(check) for check in checks)
        lock = self.exclusive if proven else f"{self.exclusive}, for as long as reading the whole table takes"
        sent = [Statement(sql=f"ALTER TABLE {table} {', '.join(parts)}", lock=lock)]
        drops = [f"DROP CONSTRAINT {quote(check)}" for check in checks if constraints is None or check in constraints]
        return [*sent, *self._alter_all(table, drops)]

    def _change_key(self, work: Remaining, table: str, found: Found | None) -> list[Statement]:
        if work.key is None:
            return []
        # What is proven already: with the key the columns would become NOT NULL, and the proof stay behind.
        proven = [] if found is None else [name for name in work.key.key.new if found.columns.get(name)]
        constraints = None if found is None else found.details["constraints"]
        return [
            *self._final_shape(Remaining(table=work.table, not_null=proven), table, constraints),
            *postgresql_keys.change(work.key, found, self.compiler),
        ]

    def key_problems(self, connection: sa.Connection, item: Installed) -> Iterable[Problem]:
        """See :meth:`Adapter.key_problems`."""
        if not self.changes_keys:
            return super().key_problems(connection, item)
        found = self.find(connection, item.table, item.schema)
        return postgresql_keys.problems(connection, item, found, self.compiler.table(item.table, item.schema))

    def in_hold(self, step: Step) -> bool:
        """See :meth:`Adapter.in_hold`: the key is built by then."""
        return isinstance(step, (ChangeKey, NumberColumn))

    def fill_numbers(self, step: NumberColumn) -> BackfillText | None:
        """See :meth:`Adapter.fill_numbers`."""
        return postgresql_keys.fill_numbers(step, self.compiler, self._estimate(step.table, step.schema))

    def _make_constraints(self, work: Remaining, table: str) -> list[Statement]:
        quote = self.compiler.quote
        return [
            self._alter(table, f"ADD CONSTRAINT {quote(name)} UNIQUE USING INDEX {quote(name)}")
            for name in (str(index.name) for index in work.make_constraints)
        ]

    def _drop_constraints(self, work: Remaining, table: str) -> list[Statement]:
        parts = [f"DROP CONSTRAINT {self.compiler.quote(str(gone.name))}" for gone in work.drop_constraints]
        statements = self._alter_all(table, parts)
        targets = {gone.target for gone in work.drop_constraints if isinstance(gone, ForeignKey)}
        # The triggers that PostgreSQL checks a key by stand on the other table, too.
        also = f"; also on {', '.join(sorted(targets))}" if targets else ""
        return [Statement(sql=statement.sql, lock=f"{statement.lock}{also}") for statement in statements]

    def _allow_null(self, step: AllowNull, found: Found | None) -> list[Statement]:
        if found is not None:
            require(found, step.table, step.names)
        quote = self.compiler.quote
        parts = [
            f"ALTER COLUMN {quote(name)} DROP NOT NULL"
            for name in step.names
            if found is None or not found.columns[name]
        ]
        standing = {} if found is None else found.details["constraints"]
        proofs = [proof for name in step.names if (proof := _check_name(step.table, name)) in standing]
        parts += [f"DROP CONSTRAINT {quote(proof)}" for proof in proofs]
        return self._alter_all(self.compiler.table(step.table, step.schema), parts)

    def _build_constraint(self, step: BuildConstraint, found: Found | None) -> list[Statement]:
        """In two steps: the first checks new rows from now on, the second reads those that are there, beside writers.

        (https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES)
        """
        constraint = step.constraint
        if found is not None:
            require(found, step.table, constraint.columns)
        valid = None if found is None else found.details["constraints"].get(str(constraint.name))
        if isinstance(constraint, Exclusion):
            table = self.compiler.table(step.table, step.schema)
            lock = f"{self.exclusive}, for as long as building its index takes"
            sql = f"ALTER TABLE {table} ADD {clause(constraint, self.compiler)}"
            return [] if valid else [Statement(sql=sql, lock=lock)]
        table = self.compiler.table(step.table, step.schema)
        lock = (
            f"SHARE ROW EXCLUSIVE, also on {constraint.target}"
            if isinstance(constraint, ForeignKey)
            else self.exclusive
        )
        add = Statement(sql=f"ALTER TABLE {table} ADD {clause(constraint, self.compiler)} NOT VALID", lock=lock)
        validate = Statement(
            sql=f"ALTER TABLE {table} VALIDATE CONSTRAINT {self.compiler.quote(str(constraint.name))}",
            lock="SHARE UPDATE EXCLUSIVE (writers go on)",
        )
        return [*([] if valid is not None else [add]), *([] if valid else [validate])]

    def _drop_indexes(self, work: Remaining, table: str, found: Found | None) -> list[Statement]:
        """In a hold, so not CONCURRENTLY: the lock is there already, and dropping takes no time."""
        sent = []
        for index in work.drop_indexes:
            name = str(index.name)
            if index.constraint if found is None else found.indexes[name] == "constraint":
                sent.append(self._alter(table, f"DROP CONSTRAINT {self.compiler.quote(name)}"))
            else:
                sql = f"DROP INDEX {self.compiler.table(name, work.schema)}"
                sent.append(Statement(sql=sql, lock=self.exclusive))
        return sent

    def _build(self, step: BuildIndex, found: Found | None) -> list[Statement]:
        if found is not None:
            require(found, step.table, step.index.columns)
            if found.indexes.get(str(step.index.name)) in ("index", "constraint"):
                return []
        lock = "SHARE UPDATE EXCLUSIVE (writers go on); waits for open transactions"
        return [
            *([] if found is None else self.discard(step, found)),
            Statement(sql=self._create_index(step.index, self.compiler.table(step.table, step.schema)), lock=lock),
        ]

    def _create_index(self, index: Index, table: str) -> str:
        unique = "UNIQUE " if index.unique else ""
        name = self.compiler.quote(str(index.name))
        return f"CREATE {unique}INDEX CONCURRENTLY {name} ON {table} {self._key_of(index)}"

    def discard(self, step: Step, found: Found) -> list[Statement]:
        """See :meth:`Adapter.discard`: an INVALID index costs every writer, and a unique one may refuse their rows, as
        does a CHECK that is not valid.

        (https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY)
        """
        if isinstance(step, EnforceNotNull):
            checks = [_check_name(step.table, name) for name in (*step.names, *step.passing)]
            left = [name for name in checks if found.details["constraints"].get(name) is False]
            table = self.compiler.table(step.table, step.schema)
            return self._alter_all(table, [f"DROP CONSTRAINT {self.compiler.quote(name)}" for name in left])
        if not isinstance(step, BuildIndex):
            return []
        name = str(step.index.name)
        if found.indexes.get(name) != "invalid":
            return []
        lock = "SHARE UPDATE EXCLUSIVE (writers go on); waits for open transactions"
        return [Statement(sql=f"DROP INDEX CONCURRENTLY {self.compiler.table(name, step.schema)}", lock=lock)]

    def waits_beside_writers(self, step: Step) -> bool:
        """See :meth:`Adapter.waits_beside_writers`: CONCURRENTLY waits for whole transactions, under a weak lock."""
        return isinstance(step, BuildIndex) or (isinstance(step, WidenColumns) and step.stage in ("index", "reindex"))

    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.online`."""
        step = online.step
        if isinstance(step, BuildIndex):
            return self._build(step, found)
        if isinstance(step, BuildConstraint):
            return self._build_constraint(step, found)
        if isinstance(step, ExtendEnums):
            return postgresql_labels(step, found, self.compiler)
        if isinstance(step, SetComments):
            return postgresql_comments(step, found, self.compiler)
        if isinstance(step, WidenColumns):
            return postgresql_widening.online(self._widened(step, found), _check_name)
        if isinstance(step, AllowNull):
            return self._allow_null(step, found)
        if isinstance(step, ProveReferences):
            return postgresql_keys.prove(step, found, self.compiler)
        if not isinstance(step, EnforceNotNull):
            raise TypeError(f"{type(step).__name__} is not sent as statements")
        table = self.compiler.table(step.table, step.schema)
        quote = self.compiler.quote
        constraints = {} if found is None else found.details.get("constraints", {})
        names = still_nullable(step, found)
        missing = [name for name in names if _check_name(step.table, name) not in constraints]
        unproven = [name for name in names if not constraints.get(_check_name(step.table, name))]
        added = ", ".join(
            f"ADD CONSTRAINT {quote(_check_name(step.table, name))} CHECK ({quote(name)} IS NOT NULL) NOT VALID"
            for name in missing
        )
        return [
            *([self._alter(table, added)] if added else []),
            *(
                Statement(
                    sql=f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote(_check_name(step.table, name))}",
                    lock="SHARE UPDATE EXCLUSIVE (writers go on)",
                )
                for name in unproven
            ),
        ]

    def backfill(self, step: Backfill, found: Found | None = None) -> BackfillText:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.backfill`."""
        return data.backfill_text(
            step.sync,
            self.compiler,
            # A row that moved between the two parts is left for the next batch.
            limited="ctid IN (SELECT ctid FROM {table} WHERE {unsynced} LIMIT :limit) AND {unsynced}",
            estimate=self._estimate(step.sync.table, step.sync.schema),
        )

    def _estimate(self, table: str, schema: str | None) -> str:
        name = data.escape(plain_literal(self.compiler.table(table, schema)))
        return f"SELECT greatest(CAST(reltuples AS bigint), 0) FROM pg_class WHERE oid = to_regclass({name})"

    def probe(self, step: Probe) -> ProbeText:
        """See :meth:`Adapter.probe`."""
        return data.probe_text(step, self.compiler)

    # -- execution ---------------------------------------------------------------------------------

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:
        """See :meth:`Adapter.opening`."""
        if not hold.locked:
            return _begin(timeout)
        table = self.compiler.table(hold.table, hold.schema)
        return [
            *_begin(timeout),
            Statement(sql=f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", lock=self.exclusive),
        ]

    def closing(self, hold: Hold) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.closing`."""
        return [Statement(sql="COMMIT")]

    @contextlib.contextmanager
    def holding(self, connection: sa.Connection, hold: Hold, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.holding`."""
        with self.unit(connection, self.opening(hold, timeout), self.closing(hold)):
            yield

    @contextlib.contextmanager
    def running_online(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.running_online`."""
        self.send(connection, Statement(sql=f"SET lock_timeout = '{_milliseconds(timeout)}ms'"))
        try:
            yield
        except sa.exc.DBAPIError as error:
            if _state(error) == "23505":
                raise NotUnique(str(error.orig)) from error
            if _state(error) in ("23503", "23514", "23P01"):
                raise Violated(str(error.orig)) from error
            raise
        finally:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.exec_driver_sql("RESET lock_timeout")

    @contextlib.contextmanager
    def transaction(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.transaction`."""
        with self.unit(connection, _begin(timeout), [Statement(sql="COMMIT")]):
            yield

    def is_lock_timeout(self, error: BaseException) -> bool:
        """See :meth:`Adapter.is_lock_timeout`: lock_not_available, deadlock_detected, serialization_failure."""
        if isinstance(error, LockTimeout):
            return True
        return _state(error) in ("55P03", "40P01", "40001")


def _has_function(work: Remaining, found: Found | None) -> bool:
    """Whether another trigger of the same sync stays in place, and with it their function."""
    stem = work.create[0].name[:-1]
    standing = () if found is None else found.triggers
    return any(name.startswith(stem) and len(name) == len(stem) + 1 for name in {*standing} - {*work.drop_triggers})


def _state(error: BaseException) -> str | None:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def _begin(timeout: float) -> list[Statement]:
    return [
        Statement(sql="BEGIN ISOLATION LEVEL READ COMMITTED"),
        Statement(sql=f"SET LOCAL lock_timeout = '{_milliseconds(timeout)}ms'"),
    ]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # 0 would mean: wait for ever


def _check_name(table: str, column: str) -> str:
    digest = hashlib.sha256(f"{table}\0{column}".encode()).hexdigest()[:16]
    return f"contraflow_{digest}"
