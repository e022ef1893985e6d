"""SQLite 3.35 and later.

One writer at a time, transactional DDL: a hold is one ``BEGIN IMMEDIATE`` transaction. What SQLite cannot alter
(NOT NULL, DEFAULT) is changed in the table's own text in ``sqlite_schema``, as part 7 of
https://www.sqlite.org/lang_altertable.html describes; other connections notice by the schema version.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import sqlalchemy as sa

from contraflow.constraints import Constraint
from contraflow.dialects import data, sqlite_keys, sqlite_text
from contraflow.dialects.base import (
    BackfillText,
    Found,
    LockTimeout,
    NotUnique,
    ProbeText,
    Statement,
)
from contraflow.dialects.compiler import plain_literal
from contraflow.dialects.constraint_text import clause
from contraflow.dialects.imposed import Imposition, positional_inserts
from contraflow.dialects.pair import PREFIX
from contraflow.dialects.remaining import Remaining, fingerprint, index_name, remaining, require
from contraflow.dialects.sqlite_server import SQLiteServer, is_made
from contraflow.dialects.sqlite_twin import SQLiteTables, twin_probe, twin_repairs, twin_triggers
from contraflow.dialects.sync import TriggerText
from contraflow.dialects.triggers import triggers_of
from contraflow.installed import Index
from contraflow.lens import Side
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
    ProbeAlias,
    ProveReferences,
    SetComments,
    Step,
    WidenColumns,
)
from contraflow.syncs import Sync

__all__ = ["SQLiteAdapter"]

_RESERVED = "RESERVED (one writer at a time; readers go on in WAL mode)"
_REWRITE = f"{_RESERVED}, for as long as rewriting every row takes"
_BUILD = f"{_RESERVED}, for as long as reading and sorting every row takes"
_BUSY = (5, 6)
"""SQLITE_BUSY and SQLITE_LOCKED; Python names them from 3.11 on only."""


class SQLiteAdapter(SQLiteServer):
    """SQLite in a file, through Python's ``sqlite3``."""

    product = "sqlite"
    floor = (3, 35)
    transactional_ddl: ClassVar[bool] = True
    # Nobody queues: within the first 128 ms a busy writer sleeps at most 25 ms between two tries, later 50 and 100
    # (sqliteDefaultBusyCallback in SQLite's main.c, which sqlite3's timeout= sets).
    polling: ClassVar[float] = 0.03
    sync_after_store: ClassVar[bool] = True
    marker_type: ClassVar[str] = "INTEGER"  # STRICT tables know no SMALLINT
    proves_constraints: ClassVar[bool] = False
    imposes: ClassVar[tuple[Imposition, ...]] = (positional_inserts,)

    def in_hold(self, step: Step) -> bool:
        """See :meth:`Adapter.in_hold`: the table's text is changed in a transaction."""
        return isinstance(step, (AllowNull, BuildConstraint, ChangeKey, NumberColumn))

    def _is_apart(self, step: Step) -> bool:
        return isinstance(step, (AllowNull, BuildConstraint))

    # -- steps to statements ---------------------------------------------------------------------------

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`."""
        if not hold.locked:
            return SQLiteTables(self.compiler, self.profile.version).statements(hold, found)
        sql = None if found is None else found.details.get("sql")

        def triggers(target: Sync | Linked) -> list[TriggerText]:
            without_rowid = sql is not None and "WITHOUT" in sqlite_text.options(sql)
            return triggers_of(target, self.product, self.compiler, without_rowid=without_rowid)

        for step in hold.steps:
            if isinstance(step, ChangeKey):
                return sqlite_keys.change(step, found, self.compiler)
            if isinstance(step, NumberColumn) and step.stage != "end":
                return sqlite_keys.number(step, found, self.compiler)
        work = remaining(
            replace(hold, steps=tuple(step for step in hold.steps if not self._is_apart(step))), found, triggers
        )
        work.table, work.schema = hold.table, hold.schema
        made = [step.constraint for step in hold.steps if isinstance(step, BuildConstraint)]
        allowed = [name for step in hold.steps if isinstance(step, AllowNull) for name in step.names]
        work.relax += [name for name in allowed if found is None or not found.columns.get(name, True)]
        table = self.compiler.table(work.table, work.schema)
        quote = self.compiler.quote
        prefix = f"{quote(work.schema)}." if work.schema else ""
        sent = [
            *(Statement(sql=f"DROP TRIGGER {prefix}{quote(name)}", lock=_RESERVED) for name in work.drop_triggers),
            *self._edit(work, made, found),
            *(
                Statement(sql=f"DROP INDEX {prefix}{quote(_plain_name(index, found))}", lock=_RESERVED)
                for index in work.drop_indexes
                if not index.primary
            ),
        ]
        if work.reset_marker:
            sent.append(self._drop(table, work.reset_marker))
        strict = sql is not None and "STRICT" in sqlite_text.options(sql)
        for column in sorted(work.add, key=lambda column: column.computed is not None):
            type_ = _strict_type(column.type) if strict else self.compiler.type_text(column.type)
            definition = f"{type_}{self.compiler.generated(column)}"
            sent.append(
                Statement(sql=f"ALTER TABLE {table} ADD COLUMN {quote(column.name)} {definition}", lock=_RESERVED)
            )
        if marker := work.add_marker or work.reset_marker:
            sent.append(
                Statement(sql=f"ALTER TABLE {table} ADD COLUMN {quote(marker)} {self.marker_type}", lock=_RESERVED)
            )
        sent += [Statement(sql=text.create, lock=_RESERVED) for text in work.create]
        if any(text.name.startswith(PREFIX) for text in work.create):
            sent += self._renewed(work, found, prefix)
        return [*sent, *(self._drop(table, name) for name in work.drop)]

    def _renewed(self, work: Remaining, found: Found | None, prefix: str) -> Iterator[Statement]:
        """The triggers of the table's own sync, made anew: the newest fires first, and a pair wants its result."""
        for name, text in found.triggers.items() if found else ():
            if fingerprint(text) is not None and not name.startswith(PREFIX) and name not in work.drop_triggers:
                yield Statement(sql=f"DROP TRIGGER {prefix}{self.compiler.quote(name)}", lock=_RESERVED)
                # SQLite keeps the text without the schema's name.
                yield Statement(sql=text.replace("CREATE TRIGGER ", f"CREATE TRIGGER {prefix}", 1), lock=_RESERVED)

    def _drop(self, table: str, name: str) -> Statement:
        return Statement(sql=f"ALTER TABLE {table} DROP COLUMN {self.compiler.quote(name)}", lock=_REWRITE)

    def _edit(self, work: Remaining, constraints: Sequence[Constraint], found: Found | None) -> list[Statement]:
        """One change of the table's text for all that ALTER TABLE cannot do.

        It comes before any ALTER TABLE of the hold: those take the places of columns from the schema in memory.
        """
        made = [index for index in work.drop_indexes if is_made(index, found)]
        types = self._types(work, found)
        named = [*made, *constraints, *work.drop_constraints, *types, *([work.number] if work.number else [])]
        if not (
            work.relax or work.restore or work.forget or work.set_defaults or work.not_null or work.defaults or named
        ):
            return []
        quote = self.compiler.quote
        prefix = f"{quote(work.schema)}." if work.schema else ""
        if found is None:
            new, version = f"<the text of {quote(work.table)}, changed>", "<one more>"
        else:
            text = str(found.details["sql"])
            for name, type_ in types.items():
                text = _retyped(text, name, type_, key=name in found.details["key"])
            text = sqlite_text.relax(text, work.relax)
            text = sqlite_text.restore(text, work.restore)
            text = sqlite_text.forget(text, work.forget)
            for name, default in work.set_defaults.items():
                text = sqlite_text.set_default(text, name, default)
            text = sqlite_text.set_final(text, not_null=work.not_null, defaults=work.defaults)
            for index in made:
                text = sqlite_text.drop_unique(text, index.columns)
            if work.number:
                text = sqlite_text.without_former(text)
            for gone in work.drop_constraints:
                text = sqlite_text.drop_constraint(text, gone)
            for constraint in constraints:
                require(found, work.table, constraint.columns)
                text = sqlite_text.add_constraint(text, str(constraint.name), clause(constraint, self.compiler))
            if text == found.details["sql"]:
                return []
            new, version = (
                plain_literal(text),
                str((found.details["schema_version"] + len(work.drop_triggers) + 1) % 2**31),
            )
        where = f"type = 'table' AND lower(name) = lower({plain_literal(work.table)})"
        table = self.compiler.table(work.table, work.schema)
        return [
            Statement(sql="PRAGMA writable_schema = ON"),
            Statement(sql=f"UPDATE {prefix}sqlite_schema SET sql = {new} WHERE {where}", lock=_RESERVED),
            *(
                Statement(sql=f"UPDATE {prefix}sqlite_schema SET {change}", lock=_RESERVED)
                for change in ([] if found is None else self._unmade(work, found, made))
            ),
            Statement(sql=f"PRAGMA {prefix}schema_version = {version}", lock=_RESERVED),
            # RESET also reads the schema again, so that the following statements see the new text.
            Statement(sql="PRAGMA writable_schema = RESET"),
            # Fails if there is a NULL after all: the changed text by itself is not checked against the rows. IS NULL
            # would not do, which SQLite takes for impossible in a NOT NULL column.
            *(
                Statement(
                    sql=f"UPDATE {table} SET {quote(name)} = {quote(name)} WHERE typeof({quote(name)}) = 'null'",
                    lock=_RESERVED,
                )
                for name in work.not_null
            ),
        ]

    def _types(self, work: Remaining, found: Found | None) -> dict[str, str]:
        """The types that columns have still to get."""
        types = {
            one.column: self.compiler.type_text(step.types[one.column]) if step.stage == "begin" else one.old
            for step in work.widening
            for one in step.widenings
            if step.stage in ("begin", "undo")
            and (found is None or (found.details["types"][one.column] == one.old) is (step.stage == "begin"))
        }
        if found is not None:
            require(found, work.table, types)
        return types

    def _unmade(self, work: Remaining, found: Found, made: list[Index]) -> Iterator[str]:
        """Make plain indexes, which can be dropped, of those that UNIQUE in the table's text has made.

        SQLite knows its own by their numbers, in the order of the constraints in the text: the following ones move up.
        """
        quote = self.compiler.quote
        gone = {index_name(index, found): index for index in made}
        own = [name for name in found.indexes if name.startswith("sqlite_autoindex_")]
        moved = 0
        for name in sorted(own, key=lambda name: int(name.rpartition("_")[2])):
            stem, _, number = name.rpartition("_")
            where = f"WHERE type = 'index' AND name = {plain_literal(name)}"
            if name in gone:
                plain = _plain_name(gone[name], found)
                create = f"CREATE UNIQUE INDEX {quote(plain)} ON {quote(work.table)} {self._key_of(gone[name])}"
                yield f"name = {plain_literal(plain)}, sql = {plain_literal(create)} {where}"
                moved += 1
            elif moved:
                yield f"name = {plain_literal(f'{stem}_{int(number) - moved}')} {where}"

    def _build(self, step: BuildIndex, found: Found | None) -> list[Statement]:
        index = step.index
        if index.primary:
            return []  # it is built when it takes the place of the other
        if found is not None:
            require(found, step.table, index.columns)
            if index.name in found.indexes:
                return []
        unique = "UNIQUE " if index.unique else ""
        name = self.compiler.table(str(index.name), step.schema)
        on = f"{self.compiler.quote(step.table)} {self._key_of(index)}"
        return [Statement(sql=f"CREATE {unique}INDEX {name} ON {on}", lock=_BUILD)]

    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.online`. Nothing to prove beforehand: the hold checks, and it alone can."""
        step = online.step
        if isinstance(step, BuildIndex):
            return self._build(step, found)
        if isinstance(step, (ExtendEnums, ProveReferences, SetComments, WidenColumns)):
            return []
        if not isinstance(step, EnforceNotNull):
            raise TypeError(f"{type(step).__name__} is not sent as statements")
        if found is not None:
            require(found, step.table, step.names)
        return []

    def alias_probe(self, step: ProbeAlias) -> ProbeText | None:
        """See :meth:`Adapter.alias_probe`."""
        return twin_probe(step, self.compiler)

    def alias_repairs(self, step: ProbeAlias, side: Side) -> Sequence[BackfillText]:
        """See :meth:`Adapter.alias_repairs`."""
        return twin_repairs(step, side, self.compiler)

    def alias_triggers(self, stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See :meth:`Adapter.alias_triggers`."""
        return twin_triggers(stem)

    def backfill(self, step: Backfill, found: Found | None = None) -> BackfillText:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.backfill`."""
        table = data.escape(self.compiler.table(step.sync.table, step.sync.schema))
        return data.backfill_text(
            step.sync,
            self.compiler,
            limited="_rowid_ IN (SELECT _rowid_ FROM {table} WHERE {unsynced} LIMIT :limit)",
            # Exact, but cheap: SQLite counts the entries of the smallest index.
            estimate=f"SELECT count(*) FROM {table}",
        )

    def probe(self, step: Probe) -> ProbeText:
        """See :meth:`Adapter.probe`."""
        return data.probe_text(step, self.compiler)

    # -- execution -------------------------------------------------------------------------------------

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.opening`."""
        return [_busy_timeout(timeout), Statement(sql="BEGIN IMMEDIATE", lock=_RESERVED)]

    def closing(self, hold: Hold) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.closing`."""
        return [Statement(sql="COMMIT")]

    @contextlib.contextmanager
    def holding(self, connection: sa.Connection, hold: Hold, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.holding`."""
        rebuilds = any(isinstance(step, (ChangeKey, NumberColumn)) for step in hold.steps)
        try:
            with (
                self._without_foreign_keys(connection) if rebuilds else contextlib.nullcontext(),
                self.unit(connection, self.opening(hold, timeout), self.closing(hold)),
            ):
                yield
        except BaseException:
            # The switches belong to the connection, not to the transaction.
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.exec_driver_sql("PRAGMA writable_schema = RESET")
                connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
            raise

    @contextlib.contextmanager
    def _without_foreign_keys(self, connection: sa.Connection) -> Iterator[None]:
        """Not within a transaction, where the switch does nothing (https://www.sqlite.org/pragma.html#pragma_foreign_keys)."""
        enforced = connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            if enforced:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def running_online(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.running_online`."""
        self.send(connection, _busy_timeout(timeout))
        try:
            yield
        except sa.exc.IntegrityError as error:
            raise NotUnique(str(error.orig)) from error

    @contextlib.contextmanager
    def transaction(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.transaction`."""
        opening = [_busy_timeout(timeout), Statement(sql="BEGIN IMMEDIATE", lock=_RESERVED)]
        with self.unit(connection, opening, [Statement(sql="COMMIT")]):
            yield

    def is_lock_timeout(self, error: BaseException) -> bool:
        """See :meth:`Adapter.is_lock_timeout`."""
        if isinstance(error, LockTimeout):
            return True
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if not isinstance(cause, sqlite3.OperationalError):
            return False
        code = getattr(cause, "sqlite_errorcode", None)  # Python 3.11
        if code is not None:
            return (code & 0xFF) in _BUSY
        return str(cause) in ("database is locked", "database table is locked", "database schema is locked: main")


def _strict_type(type_: sa.types.TypeEngine[Any]) -> str:
    """The type's name in a STRICT table, which knows five (https://www.sqlite.org/stricttables.html)."""
    if isinstance(type_, (sa.types.Integer, sa.types.Boolean)):
        return "INTEGER"
    if isinstance(type_, sa.types.Numeric):
        return "REAL"
    if isinstance(type_, sa.types.LargeBinary):
        return "BLOB"
    collation = getattr(type_, "collation", None)
    return f'TEXT COLLATE "{collation}"' if collation else "TEXT"


def _retyped(sql: str, name: str, type_: str, *, key: bool) -> str:
    """The table's text with another type of the column, where that means anything.

    A STRICT table holds any number or text in a type of its own; an INTEGER PRIMARY KEY has 64 bits by another name
    than BIGINT, which would make another thing of it (https://www.sqlite.org/lang_createtable.html#rowid).
    """
    if "STRICT" in sqlite_text.options(sql) or (key and sqlite_text.type_of(sql, name).upper() == "INTEGER"):
        return sql
    return sqlite_text.retype(sql, name, type_)


def _plain_name(index: Index, found: Found | None) -> str:
    """The name by which the index can be dropped; :meth:`SQLiteAdapter._unmade` gives it one."""
    if not is_made(index, found):
        return str(index.name)
    return f"contraflow_dropped_{'<number>' if found is None else str(index_name(index, found)).rpartition('_')[2]}"


def _busy_timeout(seconds: float) -> Statement:
    return Statement(sql=f"PRAGMA busy_timeout = {max(1, round(seconds * 1000))}")
