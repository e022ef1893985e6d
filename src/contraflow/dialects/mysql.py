"""MySQL 8.0.29 and later, and what MariaDB and the clusters on Galera share with it.

DDL commits by itself. So the statements of a hold run under ``LOCK TABLES ... WRITE``, where no writer sees the table
between two of them, and in an order of which every prefix is harmless to both releases, in case the runner is killed
there. New columns are INVISIBLE until contract, so that statements of the old release that name no columns still work.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from contraflow.copies import Copy
from contraflow.dialects import (
    comments,
    data,
    mysql_constraints,
    mysql_indexes,
    mysql_keys,
    mysql_pairs,
    mysql_widening,
)
from contraflow.dialects.base import (
    BackfillText,
    Found,
    LockTimeout,
    NotUnique,
    ProbeText,
    Statement,
    Violated,
)
from contraflow.dialects.compiler import Compiler, compiler_for
from contraflow.dialects.imposed import (
    Imposition,
    deadlocks,
    incomplete_inserts,
    old_snapshots,
    one_statement,
    second_unique,
)
from contraflow.dialects.kinds import Kind
from contraflow.dialects.labels import mysql_labels
from contraflow.dialects.mysql_server import MySQLServer
from contraflow.dialects.mysql_synced import later_triggers
from contraflow.dialects.mysql_text import checks_time, filler, literal, literal_default, redefined
from contraflow.dialects.mysql_watch import watching
from contraflow.dialects.remaining import Remaining, remaining, still_nullable
from contraflow.dialects.sync import TriggerText
from contraflow.dialects.tables import MySQLTables
from contraflow.dialects.triggers import triggers_of
from contraflow.dialects.widening import Widened, differ, fill_text, held_problems
from contraflow.installed import Installed, Widening
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
    Phases,
    Probe,
    ProveReferences,
    SetComments,
    WidenColumns,
)
from contraflow.syncs import Pair, Sync, Synced

__all__ = ["MySQLAdapter", "error_number", "lock_wait"]

_EXCLUSIVE = "EXCLUSIVE metadata lock"
_INTERRUPTED = 1317
_DUPLICATE = 1062
_VIOLATED = (1452, 3819, 4025)
"""A foreign key; a check on MySQL; a check on MariaDB."""
_NOT_INSTANT = (1845, 1846, 4092)


class MySQLAdapter(MySQLServer):
    """Oracle's MySQL and its builds (Percona Server)."""

    product = "mysql"
    floor: ClassVar[tuple[int, ...]] = (8, 0, 29)
    transactional_ddl: ClassVar[bool] = False
    foreign_keys_need_indexes: ClassVar[bool] = True
    plain_indexes_only: ClassVar[bool] = True
    longest_name = (64, "characters")  # error 1059 (manual, Identifier Length Limits)
    rebuilds: ClassVar[bool] = True
    _comments_table: ClassVar[str] = "ALGORITHM=INPLACE, LOCK=NONE"
    """How it gives a table another comment."""
    _growing: ClassVar[int] = 0
    """Up to so many bytes a VARCHAR may become one whose length is kept in two bytes."""
    proves_constraints: ClassVar[bool] = False
    cascades_fire_triggers: ClassVar[bool] = False
    imposes: ClassVar[tuple[Imposition, ...]] = (
        incomplete_inserts,
        one_statement,
        deadlocks,
        second_unique,
        old_snapshots,
    )

    # -- steps to statements -----------------------------------------------------------------------

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`."""
        if not hold.locked:
            return MySQLTables(self.compiler, self.profile.version).statements(hold, found)
        work = remaining(hold, found, lambda target: self._texts(target, found))
        quote = self.compiler.quote
        reset = [f"DROP COLUMN {quote(work.reset_marker)}"] if work.reset_marker else []
        generated = () if found is None else found.details.get("generated", ())
        virtual = self._dropped_apart(work, found)
        first = [f"DROP COLUMN {quote(name)}" for name in work.drop if name in generated and name not in virtual]
        dropped = [f"DROP COLUMN {quote(name)}" for name in work.drop if name not in generated]
        shapes = self._final_shape(work, found)
        computed = [shape for name, shape in shapes.items() if name in generated]
        plain = [shape for name, shape in shapes.items() if name not in generated]
        # MariaDB does not do both at once on a table with computed columns (error 1846).
        shown, last = (plain, dropped) if generated else ([], [*plain, *dropped])
        algorithm = "" if work.not_null else "INSTANT"
        if any(map(self._is_cut, work.drop)):
            algorithm = "INPLACE"
        return [
            *mysql_constraints.drop(work, found, self.compiler),
            *mysql_indexes.drop(work, self.compiler),
            *(statement for step in work.widening for statement in mysql_widening.hold(self._widened(step, found))),
            *self._alter(work, [self._default(name, text, found) for name, text in work.set_defaults.items()], found),
            *self._drop_triggers(work, found),
            *self._alter(work, reset, found),
            *self._alter(work, self._additions(work), found),
            # MariaDB adds, changes and drops them only apart from others (error 1846).
            *self._alter(work, self._generated(work), found),
            *(Statement(sql=text.create, lock=_EXCLUSIVE) for text in work.create),
            *self._alter(work, first, found),
            *self._drop_virtual(work, virtual),
            *self._alter(work, computed, found),
            *self._alter(work, shown, found, algorithm),
            # At once, so that no prefix shows a half of it; with a rebuild if NOT NULL was not enforced before.
            *self._alter(work, last, found, algorithm),
        ]

    def _widened(self, step: WidenColumns, found: Found | None) -> Widened:
        rule = self.widens_in_place
        return Widened(step=step, found=found, compiler=self.compiler, product=self.product, rule=rule)

    def widens_in_place(self, column: str, old: Kind, new: Kind, found: Found | None) -> bool:
        """See :meth:`Adapter.widens_in_place`."""
        widest = 1 if old.family == "binary" else 4
        width = widest if found is None else found.details["widths"].get(column, widest)
        return mysql_widening.in_place(old, new, width=width, growing=self._growing)

    def widening_problems(self, connection: sa.Connection, step: WidenColumns) -> Iterator[Problem]:
        """See :meth:`Adapter.widening_problems`."""
        yield from super().widening_problems(connection, step)
        widened = self._widened(step, self.find(connection, step.table, step.schema))
        if self.rebuilds:
            yield from held_problems(connection, widened)
            yield from mysql_widening.problems(connection, widened, self._database(step.schema))

    def fill_shadows(self, step: WidenColumns, found: Found | None) -> BackfillText | None:
        """See :meth:`Adapter.fill_shadows`."""
        keep = () if found is None else found.details.get("on_update", ())
        return fill_text(self._widened(step, found), self._estimate(step.table, step.schema), keep)

    def misfits(self, widening: Widening, found: Found) -> str | None:
        """See :meth:`Adapter.misfits`."""
        if widening.shadow in found.columns:
            return differ(widening, self.compiler, self.product)
        return super().misfits(widening, found)

    def _is_cut(self, column: str) -> bool:
        """Whether dropping the column instantly fails with error 3507 (MySQL 9.7).

        MySQL keeps such a column under a longer name, which it cuts at 64 bytes, also within a character.
        """
        return not column.isascii() and len(column.encode()) > 32

    def _texts(self, target: Sync | Linked, found: Found | None) -> list[TriggerText]:
        compiler = self._compiler_for(target, found) if isinstance(target, Sync) else self.compiler
        return triggers_of(target, self.product, compiler)

    def _compiler_for(self, sync: Sync, found: Found | None) -> Compiler:
        """A compiler that knows of utf8mb4 where all text is in it: a conversion of each value costs a trigger much."""
        if found is None or not found.details["utf8mb4"]:
            return self.compiler
        for column in sync.columns.values():
            said = getattr(column.type, "charset", None) or getattr(column.type, "collation", None) or "utf8mb4"
            if str(said).split("_")[0].lower() != "utf8mb4":
                return self.compiler
        return compiler_for(self.product, utf8mb4=True)

    def _alter(
        self, work: Remaining, parts: list[str], found: Found | None, algorithm: str = "INSTANT"
    ) -> list[Statement]:
        if not parts:
            return []
        if algorithm == "INSTANT" and found is not None and not found.details.get("instant", True):
            algorithm = ""  # the server's own choice
        table = self.compiler.table(work.table, work.schema)
        sql = ", ".join([f"ALTER TABLE {table} {parts[0]}", *parts[1:], *_clause(algorithm)])
        if algorithm == "INSTANT":
            return [Statement(sql=sql, lock=f"{_EXCLUSIVE}, ALGORITHM=INSTANT")]
        return [Statement(sql=sql, lock=f"{_EXCLUSIVE}, for as long as rebuilding the table takes")]

    def _dropped_apart(self, work: Remaining, found: Found | None) -> list[str]:
        """The columns computed when read that go while others of their kind stay: MySQL (9.7) does not drop them
        instantly (1845) where one of these stands behind.
        """
        virtual = frozenset() if found is None else found.details.get("virtual", frozenset())
        return [name for name in work.drop if name in virtual] if virtual - set(work.drop) else []

    def _drop_virtual(self, work: Remaining, names: Sequence[str]) -> list[Statement]:
        """In place, which for these alone stores no row anew (manual, Online DDL Operations, Generated Columns)."""
        if not names:
            return []
        drops = ", ".join(f"DROP COLUMN {self.compiler.quote(name)}" for name in names)
        sql = f"ALTER TABLE {self.compiler.table(work.table, work.schema)} {drops}, ALGORITHM=INPLACE"
        return [Statement(sql=sql, lock=f"{_EXCLUSIVE}, no row is stored anew")]

    def _additions(self, work: Remaining) -> list[str]:
        quote = self.compiler.quote
        parts = []
        for column in work.add:
            if column.computed is not None:
                continue
            comment = f" COMMENT {literal(column.comment)}" if column.comment else ""
            # NULL in words: a TIMESTAMP without it may become NOT NULL (explicit_defaults_for_timestamp).
            type_ = self.compiler.type_text(column.type)
            parts.append(f"ADD COLUMN {quote(column.name)} {type_} NULL INVISIBLE{comment}")
        if marker := work.add_marker or work.reset_marker:
            parts.append(f"ADD COLUMN {quote(marker)} {self.marker_type} NULL INVISIBLE")
        return parts

    def _generated(self, work: Remaining) -> list[str]:
        return [
            f"ADD COLUMN {self.compiler.quote(column.name)} {self.compiler.type_text(column.type)}"
            f"{self.compiler.generated(column)} INVISIBLE"
            + (f" COMMENT {literal(column.comment)}" if column.comment else "")
            for column in work.add
            if column.computed is not None
        ]

    def _drop_triggers(self, work: Remaining, found: Found | None) -> list[Statement]:
        """Drop the sync's triggers; old NOT NULL columns that they filled get a constant default on the way.

        Not before the triggers are gone: they would take the constant for a value of the old release. Until then
        a trigger of its own, behind them, gives the constant, and the marker by which they let the row be.
        """
        quote = self.compiler.quote
        prefix = f"{quote(work.schema)}." if work.schema else ""
        fillers = self._fillers(work, found)
        names = list(work.drop_triggers)
        sent: list[Statement] = []
        if fillers and work.marker and names and names[0].endswith("_i"):
            bridge = names[0].removesuffix("_i") + "_c"
            if bridge not in names:
                table = self.compiler.table(work.table, work.schema)
                values = ", ".join(
                    f"NEW.{quote(name)} = COALESCE(NEW.{quote(name)}, {constant})"
                    for name, constant in [*fillers, (work.marker, "1")]
                )
                create = f"CREATE TRIGGER {prefix}{quote(bridge)} BEFORE INSERT ON {table} FOR EACH ROW SET {values}"
                sent.append(Statement(sql=create, lock=_EXCLUSIVE))
                names.append(bridge)
        drops = {name: Statement(sql=f"DROP TRIGGER {prefix}{quote(name)}", lock=_EXCLUSIVE) for name in names}
        last = [drops.pop(name) for name in names if name.endswith("_c")]
        defaults = [f"ALTER COLUMN {quote(name)} SET DEFAULT {constant}" for name, constant in fillers]
        return [*sent, *drops.values(), *self._alter(work, defaults, found), *last]

    def _fillers(self, work: Remaining, found: Found | None) -> list[tuple[str, str]]:
        if found is None:
            return [(name, "<a constant of its type>") for name in work.fill_defaults]
        constants = [(name, filler(found.details["types"].get(name, ""))) for name in work.fill_defaults]
        # Lines and polygons have none: the lock hold alone protects them.
        return [(name, constant) for name, constant in constants if constant is not None]

    def _final_shape(self, work: Remaining, found: Found | None) -> dict[str, str]:
        names = dict.fromkeys([*work.not_null, *work.defaults, *work.show])
        return {
            name: self._modify(name, found, not_null=name in work.not_null, default=work.defaults.get(name))
            for name in names
            if name not in work.drop
        }

    def _default(self, name: str, text: str | None, found: Found | None) -> str:
        column = self.compiler.quote(name)
        nullable = found is None or found.columns[name]
        if text is None:
            # Dropped, the default of a nullable column would not be NULL but none (error 1364).
            return f"ALTER COLUMN {column} {'SET DEFAULT NULL' if nullable else 'DROP DEFAULT'}"
        type_ = "" if found is None else str(found.details["types"][name])
        literal = literal_default(text, type_.partition("(")[0].lower())
        if literal[0] in "'(-+0123456789" or found is None:
            return f"ALTER COLUMN {column} SET DEFAULT {literal}"
        # The present time may stand there only where the column is defined.
        return self._modify(name, found, not_null=not nullable, default=text)

    def _modify(self, name: str, found: Found | None, *, not_null: bool, default: str | None) -> str:
        if found is None:
            definition = f"<its definition, visible>{' NOT NULL' if not_null else ''}"
            if default is not None:
                definition += f" DEFAULT {default}"
        else:
            keeps = not found.columns.get(name, True)
            definition = redefined(found.details["create"], name, not_null=not_null or keeps, default=default)
        return f"MODIFY COLUMN {self.compiler.quote(name)} {definition}"

    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.online`: NOT NULL by an online rebuild; the columns become visible with it.

        MariaDB has no hidden NOT NULL column without a default, and the old release is gone by then.
        """
        step = online.step
        if isinstance(step, BuildIndex):
            return mysql_indexes.build(step, found, self.compiler)
        if isinstance(step, BuildConstraint):
            return mysql_constraints.build(step, found, self.compiler)
        if isinstance(step, ExtendEnums):
            return mysql_labels(step, found, self.compiler)
        if isinstance(step, SetComments):
            return comments.mysql_comments(step, found, self.compiler, table_way=self._comments_table)
        if isinstance(step, WidenColumns):
            return mysql_widening.prove(self._widened(step, found)) if step.stage == "prove" else []
        if isinstance(step, ChangeKey):
            return mysql_keys.change(step, found, self.compiler)
        if isinstance(step, NumberColumn):
            return mysql_keys.number(step, found, self.compiler)
        if isinstance(step, ProveReferences):
            return []
        if isinstance(step, AllowNull):
            copies = found is not None and self._rebuilt_by_copy(found)
            return mysql_constraints.allow_null(step, found, self.compiler, copies=copies)
        if not isinstance(step, EnforceNotNull):
            raise TypeError(f"{type(step).__name__} is not sent as statements")
        names = still_nullable(step, found)
        if not names:
            return []
        table = self.compiler.table(step.table, step.schema)
        parts = [self._modify(name, found, not_null=True, default=None) for name in names]
        sql = f"ALTER TABLE {table} {', '.join(parts)}"
        if found is not None and any(self._needs_copy(name, found) for name in names):
            lock = "SHARED_NO_WRITE metadata lock: writers wait while the table is copied"
            sent = [Statement(sql=sql, lock=lock)]
        else:
            lock = f"SHARED_UPGRADABLE metadata lock, {_EXCLUSIVE} for a moment at both ends"
            lock = (
                f"{lock}; ALGORITHM=INPLACE, LOCK=NONE (writers go on; if their duplicates end it again and again, they"
            )
            lock = f"{lock} wait for it: LOCK=SHARED)"
            sent = [Statement(sql=f"{sql}, ALGORITHM=INPLACE, LOCK=NONE", lock=lock)]
        # Apart: MariaDB rebuilds in place only without a computed default, but needs it for an INSERT ... SELECT.
        defaults = [
            self._modify(name, found, not_null=True, default=text)
            for name, text in step.defaults.items()
            if name in names
        ]
        if defaults:
            instant = f"ALTER TABLE {table} {', '.join(defaults)}, ALGORITHM=INSTANT"
            sent.append(Statement(sql=instant, lock=f"{_EXCLUSIVE}, ALGORITHM=INSTANT"))
        return sent

    def insisting(self, statements: Sequence[Statement]) -> list[Statement]:
        """See :meth:`Adapter.insisting`: with LOCK=SHARED, under which no INSERT is replayed (see running_online)."""
        lock = "SHARED_NO_WRITE metadata lock: writers wait; ALGORITHM=INPLACE, LOCK=SHARED"
        return [
            Statement(sql=statement.sql.replace("LOCK=NONE", "LOCK=SHARED"), lock=lock)
            if statement.sql.endswith("LOCK=NONE")
            else statement
            for statement in statements
        ]

    def _needs_copy(self, name: str, found: Found) -> bool:  # noqa: ARG002 - for MariaDB
        """Whether the column cannot become NOT NULL beside the writers."""
        return self._rebuilt_by_copy(found)

    def _rebuilt_by_copy(self, found: Found) -> bool:
        """Whether the server cannot rebuild the table beside its writers, because of an index (error 1846); on MySQL
        9.7 also of a check that reads a date or a time (error 1845).
        """
        return bool(found.details["obstacle"]) or checks_time(found.details["create"], found.details["types"])

    def waits(self, connection: sa.Connection, item: Installed) -> Iterator[Problem]:
        """See :meth:`Adapter.waits`."""
        found = self.find(connection, item.table, item.schema)
        names = (*item.not_null, *item.tightened, *item.loosened)
        if found.exists and any(self._needs_copy(name, found) for name in names):
            yield Problem(
                code="CF508",
                what=f"writers of {item.table} wait while it is copied, because {', '.join(names)} becomes NOT NULL, or"
                " may be NULL.",
                why=f"this server does not rebuild a table with {found.details['obstacle'] or 'its columns'} beside its"
                " writers (errors 1845, 1846).",
                instead="choose a quiet time for contract (LoosenNotNull: for migrate), or leave the columns nullable.",
            )

    def contrary_triggers(self, connection: sa.Connection, synced: Synced) -> list[Problem]:
        """See :meth:`Adapter.contrary_triggers`."""
        return list(later_triggers(connection, synced, self.compiler))

    def comment_problems(self, connection: sa.Connection, phases: Phases) -> list[Problem]:
        """See :meth:`Adapter.comment_problems`."""
        return [
            *comments.mysql_problems(phases, self.product),
            *(
                problem
                for item in phases.installed
                if item.commented
                for problem in comments.copied(item, self.find(connection, item.table, item.schema), self.product)
            ),
        ]

    def index_problems(
        self, connection: sa.Connection, item: Installed, types: Mapping[str, sa.types.TypeEngine[Any]]
    ) -> list[Problem]:
        """See :meth:`Adapter.index_problems`."""
        found = self.find(connection, item.table, item.schema)
        return list(mysql_indexes.problems(item, found, types, self.compiler))

    def key_problems(self, connection: sa.Connection, item: Installed) -> Iterable[Problem]:
        """See :meth:`Adapter.key_problems`."""
        if not self.changes_keys:
            return super().key_problems(connection, item)
        return mysql_keys.problems(connection, item, self.find(connection, item.table, item.schema))

    def constraint_problems(
        self, connection: sa.Connection, item: Installed, types: Mapping[str, sa.types.TypeEngine[Any]]
    ) -> list[Problem]:
        """See :meth:`Adapter.constraint_problems`."""
        return list(mysql_constraints.problems(connection, item, types, self.compiler))

    def pair_problems(self, connection: sa.Connection, pair: Pair) -> list[Problem]:
        """See :meth:`Adapter.pair_problems`."""
        return super().pair_problems(connection, pair) or list(mysql_pairs.problems(connection, pair))

    def copy_problems(self, connection: sa.Connection, copy: Copy) -> list[Problem]:
        """See :meth:`Adapter.copy_problems`."""
        return super().copy_problems(connection, copy) or list(mysql_pairs.copy_problems(connection, copy))

    def lookup_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:
        """See :meth:`Adapter.lookup_problems`."""
        return super().lookup_problems(connection, sync) or list(mysql_pairs.lookup_problems(connection, sync))

    def backfill(self, step: Backfill, found: Found | None = None) -> BackfillText:
        """See :meth:`Adapter.backfill`. Columns with ON UPDATE CURRENT_TIMESTAMP keep what the application wrote."""
        sync = step.sync
        written = {name for group in sync.groups for name in group.forward}
        keep = () if found is None else found.details.get("on_update", ())
        return data.backfill_text(
            sync,
            self._compiler_for(sync, found),
            limited="{unsynced} LIMIT :limit",
            estimate=self._estimate(sync.table, sync.schema),
            keep=[name for name in keep if name not in written],
        )

    def _estimate(self, table: str, schema: str | None) -> str:
        database = "database()" if schema is None else literal(schema)
        return data.escape(
            "SELECT coalesce(max(table_rows), 0) FROM information_schema.tables"
            f" WHERE table_schema = {database} AND table_name = {literal(table)}"
        )

    def probe(self, step: Probe) -> ProbeText:
        """See :meth:`Adapter.probe`."""
        return data.probe_text(step, self.compiler)

    # -- execution ---------------------------------------------------------------------------------

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:
        """See :meth:`Adapter.opening`. ``lock_wait_timeout`` counts whole seconds; it stands behind the watch."""
        if not hold.locked:
            return [lock_wait(timeout)]
        table = self.compiler.table(hold.table, hold.schema)
        return [
            lock_wait(timeout),
            Statement(sql=f"LOCK TABLES {table} WRITE", lock="SHARED_NO_READ_WRITE metadata lock (WRITE)"),
        ]

    def closing(self, hold: Hold) -> list[Statement]:
        """See :meth:`Adapter.closing`."""
        return [Statement(sql="UNLOCK TABLES")] if hold.locked else []

    @contextlib.contextmanager
    def holding(self, connection: sa.Connection, hold: Hold, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.holding`."""
        with self._bounded(connection, timeout) as check:
            try:
                self.execute(connection, self.opening(hold, timeout))
                check()
                yield
            except BaseException:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    self.execute(connection, self.closing(hold))
                raise
            self.execute(connection, self.closing(hold))

    @contextlib.contextmanager
    def running_online(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.running_online`; a duplicate key counts as a lock that was not had.

        MySQL (9.7 does, MariaDB 10.11 does not) replays the writes of others at the end of an online ALTER TABLE, also
        an INSERT that its own writer saw refused as a duplicate, and then fails with 1062: "even if the duplicate entry
        is only temporary" (manual, InnoDB, Online DDL Limitations). So it takes a look at the rows to tell.
        """
        with self._bounded(connection, timeout):
            self.send(connection, lock_wait(timeout))
            try:
                yield
            except sa.exc.DBAPIError as error:
                if error_number(error) == _DUPLICATE:
                    raise NotUnique(str(error.orig)) from error
                if error_number(error) in _VIOLATED:
                    raise Violated(str(error.orig)) from error
                raise
            finally:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("SET SESSION foreign_key_checks = DEFAULT")

    @contextlib.contextmanager
    def _bounded(self, connection: sa.Connection, timeout: float) -> Iterator[Any]:
        """No statement waits longer than ``timeout`` for a metadata lock; a killed one becomes a LockTimeout."""
        with watching(connection, timeout) as watch:

            def check() -> None:
                if watch.fired:  # it came too late for the statement it was meant for, and may hit the next
                    raise LockTimeout("a metadata lock could not be had in time")

            try:
                yield check
            except sa.exc.DBAPIError as error:
                if watch.fired and error_number(error) == _INTERRUPTED:
                    raise LockTimeout(str(error.orig)) from error
                raise

    @contextlib.contextmanager
    def transaction(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.transaction`; row locks count whole seconds here."""
        opening = [
            Statement(sql=f"SET SESSION innodb_lock_wait_timeout = {_seconds(timeout)}"),
            Statement(sql="START TRANSACTION"),
        ]
        with self.unit(connection, opening, [Statement(sql="COMMIT")]):
            yield

    def is_lock_timeout(self, error: BaseException) -> bool:
        """See :meth:`Adapter.is_lock_timeout`: 1205, 1213 (also Galera's conflicts), 3572, 1020, 1412."""
        return isinstance(error, LockTimeout) or error_number(error) in (1205, 1213, 3572, 1020, 1412)

    def send(self, connection: sa.Connection, statement: Statement) -> None:
        """See :meth:`Adapter.send`. Raises CF205 where the server refuses to do an ALTER TABLE without a rebuild."""
        try:
            super().send(connection, statement)
        except sa.exc.DBAPIError as error:
            if error_number(error) not in _NOT_INSTANT:
                raise
            raise ProblemError(
                Problem(
                    code="CF205",
                    what=f"the server refuses: {statement.sql}",
                    why=f"{error.orig}; anything else would keep writers out for the length of a rebuild.",
                    instead="rebuild the table at a quiet time (ALTER TABLE ... FORCE), then try again.",
                )
            ) from error


def error_number(error: BaseException) -> int | None:
    """The server's number of a driver's error, or of the one that SQLAlchemy raised for it."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    number = cause.args[0] if cause is not None and cause.args else None
    return number if isinstance(number, int) else getattr(cause, "errno", None)


def _clause(algorithm: str) -> list[str]:
    return [f"ALGORITHM={algorithm}"] if algorithm else []


def _seconds(timeout: float) -> int:
    return max(1, math.ceil(timeout))


def lock_wait(timeout: float) -> Statement:
    """Let no statement wait longer for a metadata lock than this, in whole seconds."""
    return Statement(sql=f"SET SESSION lock_wait_timeout = {_seconds(timeout)}")
