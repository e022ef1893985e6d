"""What the engine asks of a server. One adapter a kind of server, chosen from what the live server says."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from contraflow.constraints import Constraint
from contraflow.copies import Copy
from contraflow.dialects.compiler import compiler_for
from contraflow.dialects.constraint_text import violating
from contraflow.dialects.imposed import Imposition
from contraflow.dialects.kinds import Kind, kind_of, misfit
from contraflow.expressions.trees import Lookup
from contraflow.installed import Index, Installed, Widening
from contraflow.lens import Side
from contraflow.problems import Problem
from contraflow.steps import (
    Backfill,
    BuildIndex,
    FillNulls,
    Hold,
    NumberColumn,
    Online,
    Phases,
    Probe,
    ProbeAlias,
    Step,
    WidenColumns,
)
from contraflow.syncs import Pair, Sync, Synced

__all__ = [
    "Adapter",
    "BackfillText",
    "Found",
    "LockTimeout",
    "NotUnique",
    "ProbeText",
    "Profile",
    "Statement",
    "Violated",
    "escape",
]


class LockTimeout(Exception):
    """A lock could not be had in time; nothing of the block was done, or what was done is harmless. Try it again."""


class NotUnique(LockTimeout):
    """Two rows were alike while a unique index was built. If none are to be found afterwards: try it again."""


class Violated(LockTimeout):
    """A row violated a constraint while it was made. If none is to be found afterwards: try it again."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a live server says of itself: enough to compile for it without a connection (``--sql``)."""

    product: str
    """``postgresql``, ``cockroachdb``, ``mysql``, ``mariadb`` or ``sqlite``."""
    version: tuple[int, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that change what is compiled or allowed: ``log_bin``, ``wsrep_on``, ``default_schema`` ..."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, readable again by :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """The value that :meth:`as_dict` was called on."""
        return cls(product=data["product"], version=tuple(data["version"]), settings=dict(data["settings"]))


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement as it is sent, and the lock it takes."""

    sql: str
    lock: str = ""
    """The strongest lock, in the server's own words; empty for none worth naming."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What stands in the database for one table: tells a step that is half or wholly done from one that is not."""

    exists: bool
    columns: Mapping[str, bool] = field(default_factory=dict)
    """Column name to whether it is nullable."""
    triggers: Mapping[str, str] = field(default_factory=dict)
    """Trigger name to its text, as far as the server gives it."""
    indexes: Mapping[str, str] = field(default_factory=dict)
    """Index name to ``index``, ``constraint``, or ``invalid`` for what a failed or unfinished build left."""
    names: frozenset[str] = frozenset()
    """The tables and views of the table's schema."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only the adapter itself reads again (definitions, SQLite's CREATE TABLE text ...)."""


@dataclass(frozen=True, kw_only=True)
class BackfillText:
    """The statements of a backfill, with named parameters (``:name``) for ``sqlalchemy.text``.

    With a key: ``bound`` gives the last key of the next ``:limit`` rows after ``:k0, :k1 ...`` (``first_bound`` at the
    start; no row if none are left), and ``fill`` writes the rows after ``:k0 ...`` (``first_fill``: from the start) up
    to ``:u0, :u1 ...``. Without one: ``fill`` writes at most ``:limit`` rows, and ``bound`` is None.
    Each ``fill`` skips rows that are already synced; its rowcount is the number of rows written.
    """

    first_bound: str | None
    bound: str | None
    first_fill: str
    fill: str
    remaining: str
    """Counts the rows never synced, exactly."""
    estimate: str
    """A cheap estimate of the number of rows in the table."""
    once: bool = False
    """One pass over the rows is all: what it leaves is looked for by what comes next."""
    first_lock: str | None = None
    lock: str | None = None
    """Sent before ``first_fill`` and ``fill``, in their transaction and with their parameters, where they must see what
    was committed by the time that their rows are locked."""


@dataclass(frozen=True, kw_only=True)
class ProbeText:
    """Queries of a verification; each returns one count, or with ``:limit`` the counter-examples themselves."""

    unsynced: str
    differing: tuple[tuple[str, str], ...]
    """For each group: its title and the count of rows whose sides disagree."""
    show: tuple[tuple[str, str], ...]
    """For each group: its title and a query of key, old and new columns of at most ``:limit`` such rows."""
    nulls: Mapping[str, str]
    """Column to the count of rows where it is NULL."""


def escape(sql: str) -> str:
    """``sql`` for ``sqlalchemy.text``, which would take ``:name`` inside a literal or a name for a parameter."""
    return sql.replace(":", "\\:")


class Adapter(ABC):
    """One kind of server. Compiles steps to statements, and knows how its locks, transactions and clocks work.

    Compilation needs no connection; methods that take one say so.
    """

    product: ClassVar[str]
    """The product of the profiles that this adapter serves."""
    floor: ClassVar[tuple[int, ...]]
    """The oldest version that works."""
    transactional_ddl: ClassVar[bool]
    """A hold is one transaction, together with the journal's own rows."""
    polling: ClassVar[float] = 0.0
    """Seconds after which a writer that waits for a lock asks again. 0: it is handed the lock when its turn comes."""
    sync_after_store: ClassVar[bool] = False
    """The sync can only act after the row is stored, so old NOT NULL columns must be relaxed (SQLite)."""
    foreign_keys_need_indexes: ClassVar[bool] = False
    """A foreign key stands on an index of its own columns, which cannot be dropped under it (MySQL, MariaDB)."""
    excludes: ClassVar[bool] = False
    """Tables can have exclusion constraints."""
    index_methods: ClassVar[bool] = False
    """An index can have an access method and storage parameters of its own."""
    plain_indexes_only: ClassVar[bool] = False
    """No index over an expression, or a part of the rows, can be built beside writers, if at all."""
    shows_indexed_columns: ClassVar[bool] = True
    """A computed column can become visible while an index stands on it, without reading a row."""
    writable_views: ClassVar[bool] = True
    """A table can be known under a second name, through which it is written (or SQLite's way of doing the same)."""
    rebuilds: ClassVar[bool] = False
    """A column gets a wider type by a shadow where it cannot get it in place."""
    follows_tables: ClassVar[bool] = True
    """Triggers of two tables can keep them in step."""
    why_alone: ClassVar[str] = (
        "how triggers behave there that look at, or write, a second table, which has triggers of its own, is not known."
    )
    """Why they cannot, where they cannot."""
    makes_companions: ClassVar[bool] = True
    """A trigger can make a row of another table, to which its own row then refers."""
    marker_type: ClassVar[str] = "SMALLINT"
    longest_name: ClassVar[tuple[int, Literal["bytes", "characters"]] | None] = None
    """The longest name of a column, index or constraint that the server keeps whole; None for no limit worth naming."""
    proves_constraints: ClassVar[bool] = True
    """The server reads the rows when a foreign key or a check is made; else they must be looked at."""
    cascades_fire_triggers: ClassVar[bool] = True
    """A sync sees what a foreign key's action changes."""
    changes_keys: ClassVar[bool] = True
    """A table can get another primary key."""
    imposes: ClassVar[tuple[Imposition, ...]] = ()
    """What the server imposes on the statements of both releases, whoever changes their tables."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.compiler = compiler_for(profile.product)

    # -- the server ------------------------------------------------------------------------------------

    @classmethod
    def serves(cls, profile: Profile) -> bool:
        """Whether this adapter is the one for a recorded profile."""
        return profile.product == cls.product

    @classmethod
    @abstractmethod
    def matches(cls, connection: sa.Connection) -> Profile | None:
        """The server's profile if this adapter is for the server behind ``connection``, else None."""

    @abstractmethod
    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """What on this server would keep an upgrade of ``tables`` (schema, name) from working.

        Privileges, versions, settings. Reads only. Tables that do not exist are passed over: planning reports them.
        """

    def standstill_problems(
        self,
        connection: sa.Connection,  # noqa: ARG002 - for subclasses
        installed: Sequence[Installed],  # noqa: ARG002
        made: Iterable[sa.Table] = (),  # noqa: ARG002
    ) -> list[Problem]:
        """Where a statement that changes a table of ``installed`` and a write of another one can wait for each other
        for ever.

        Asked before the first change, with the definitions of the tables that are to be ``made``, and again before
        contract and rollback: foreign keys, triggers and rows may have come since. Reads only.
        """
        return []

    def waits(self, connection: sa.Connection, item: Installed) -> Iterator[Problem]:  # noqa: ARG002 - for subclasses
        """A notice (``CF508``) where writers wait for as long as the table is copied, though nothing asks for it."""
        return iter(())

    def index_problems(
        self,
        connection: sa.Connection,  # noqa: ARG002 - for subclasses
        item: Installed,  # noqa: ARG002
        types: Mapping[str, sa.types.TypeEngine[Any]],  # noqa: ARG002
    ) -> list[Problem]:
        """What on this server would keep the indexes of ``item`` from being built or dropped.

        ``types`` are those of the table's columns, new ones included.
        """
        return []

    def widening_problems(self, connection: sa.Connection, step: WidenColumns) -> Iterator[Problem]:
        """What on this server would keep columns from getting their wider types as ``step`` says. Reads only."""
        found = self.find(connection, step.table, step.schema)
        keys = sa.inspect(connection).get_foreign_keys(step.table, schema=step.schema)
        for one in step.widenings:
            for key in keys:
                if one.column in key["constrained_columns"] and not self._widens_under_keys(one, found):
                    yield Problem(
                        code="CF111",
                        what=f"{step.table}.{one.column} cannot get a wider type: the foreign key"
                        f" {key['name'] or 'on it'} stands on it.",
                        why="the server would check every row again while writers wait, or refuses.",
                        instead="drop the foreign key in a revision before this one, and add it again in one after it.",
                    )
            old, new = kind_of(one.old, self.product), kind_of(one.new, self.product)
            if not self.rebuilds and not self.widens_in_place(one.column, old, new, found):
                yield Problem(
                    code="CF205",
                    what=f"{step.table}.{one.column} cannot become {one.new} in place: it is {one.old}.",
                    why="the server would write every row of the table anew while writers wait.",
                    instead="give the wider type to a column of another name: ChangeType(...), with forward= and"
                    "\nbackward= that copy the value.",
                )

    def _widens_under_keys(self, one: Widening, found: Found) -> bool:  # noqa: ARG002 - for PostgreSQL
        """Whether the column may become wider though a foreign key stands on it."""
        return False

    def widens_in_place(self, column: str, old: Kind, new: Kind, found: Found | None) -> bool:  # noqa: ARG002
        """Whether the server gives the column the wider type without reading a row."""
        return True

    def fill_shadows(self, step: WidenColumns, found: Found | None) -> BackfillText | None:  # noqa: ARG002
        """The statements of the stage ``fill``; None if no column needs a shadow."""
        return None

    def fill_numbers(self, step: NumberColumn) -> BackfillText | None:  # noqa: ARG002 - for PostgreSQL
        """The statements of the stage ``fill``; None where adding the column has numbered the rows."""
        return None

    def misfits(self, widening: Widening, found: Found) -> str | None:  # noqa: ARG002
        """The condition, in SQL, of rows that keep the column from its old type; None if there can be none."""
        return misfit(kind_of(widening.old, self.product), self.compiler.quote(widening.column), self.product)

    @property
    def has_virtual_columns(self) -> bool:
        """A column can be computed when it is read, so that adding it writes no row."""
        return True

    def table_readers(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:  # noqa: ARG002
        """What else reads a table that contract drops or renames, and would break or be in the way, in words.

        Foreign keys are left to :mod:`contraflow.engine.tables`. Reads only.
        """
        return ()

    def routines(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:  # noqa: ARG002
        """Routines whose text names a table that contract drops or renames, or a column that it drops, in words.

        What a text means cannot be known: they may be none, or not all. Reads only.
        """
        return ()

    def pair_problems(self, connection: sa.Connection, pair: Pair) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """What on this server would let the two tables of ``pair`` drift apart, or fail writes. Reads only."""
        if self.follows_tables:
            return []
        return [
            Problem(
                code="CF205",
                what=f"{pair.old_table.table} and {pair.new_table.table} cannot be kept in step on this server.",
                why=self.why_alone,
                instead="add the other table or its columns alone (CreateTable, AddColumn), let a release write both,"
                "\nthen drop what it no longer needs (DropTable, DropColumn).",
            )
        ]

    def copy_problems(self, connection: sa.Connection, copy: Copy) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """What on this server would let the column of ``copy`` miss changes, or fail writes. Reads only."""
        if self.follows_tables:
            return []
        return [
            Problem(
                code="CF205",
                what=f"{copy.table}.{copy.column} cannot follow other tables on this server.",
                why=self.why_alone,
                instead="add the column (AddColumn), let a release write it, and fill it in an upgrade after that.",
            )
        ]

    def sync_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """What the table is, and would keep contract from ending ``sync``. Reads only."""
        return []

    def contrary_triggers(self, connection: sa.Connection, synced: Synced) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """Triggers on the table that change a synced column where the sync does not see it. Reads only.

        Asked before the sync is there, and while it is.
        """
        return []

    def lookup_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """What on this server would keep the triggers of ``sync`` from looking at other tables. Reads only."""
        if self.follows_tables:
            return []
        # A row that is found again by the way back can change there; one that was made for this row is found once.
        looking = [
            group
            for group in sync.groups
            if not self.makes_companions or any(isinstance(image, Lookup) for image in group.backward.values())
        ]
        return [
            Problem(
                code="CF205",
                what=f"rows of {sync.table} cannot come to refer to {name} on this server.",
                why=self.why_alone,
                instead="add the column (AddColumn), let a release write both, then drop the others (DropColumn).",
            )
            for name in dict.fromkeys(lookup.table for group in looking for lookup in group.lookups)
        ]

    def comment_problems(self, connection: sa.Connection, phases: Phases) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """What on this server would keep comments from standing as they are given. Reads only."""
        return []

    def table_problems(self, connection: sa.Connection, item: Installed) -> list[Problem]:  # noqa: ARG002 - for subclasses
        """What on this server would keep the table of ``item`` from being created, dropped or renamed."""
        return []

    def key_problems(self, connection: sa.Connection, item: Installed) -> Iterable[Problem]:  # noqa: ARG002
        """What on this server would keep the primary key of ``item`` from being changed. Reads only."""
        if self.changes_keys:
            return []
        return [
            Problem(
                code="CF205",
                what=f"the primary key of {item.table} cannot be changed by an upgrade on this server.",
                why="every row would be stored anew, for which the whole cluster might wait.",
                instead="make a unique constraint over NOT NULL columns do (AddUnique, TightenNotNull);"
                "\nor change the key at a quiet time, in a revision of its own.",
            )
        ]

    @abstractmethod
    def prepare(self, connection: sa.Connection) -> None:
        """Put a fresh connection of the engine (isolation AUTOCOMMIT) into the known state: strict mode, UTF-8, UTC."""

    @abstractmethod
    def server_time(self, connection: sa.Connection) -> float:
        """The server's clock, seconds since 1970."""

    @abstractmethod
    def dependents(self, connection: sa.Connection, installed: Installed) -> Iterable[tuple[str, str]]:
        """Columns of ``installed.dropped`` that something else reads, each with what that is, in words.

        Keys, constraints and plain indexes are left to planning. Reads only; the table is in its old shape, or carries
        an earlier state of the same sync.
        """

    # -- steps to statements ---------------------------------------------------------------------------

    @abstractmethod
    def find(self, connection: sa.Connection, table: str, schema: str | None) -> Found:
        """What stands in the database for the table now."""

    @abstractmethod
    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """The statements of a hold, in an order of which every prefix is harmless where DDL commits by itself.

        With ``found``, only what is still to do; with None, everything, as on an untouched table.
        """

    @abstractmethod
    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """The statements of an online step (not a backfill or probe): what is still to do, or everything.

        Sent inside :meth:`running_online`.
        """

    @abstractmethod
    def backfill(self, step: Backfill, found: Found | None = None) -> BackfillText:
        """The statements of a backfill; ``found`` lets them leave columns alone that the server changes by itself."""

    @abstractmethod
    def probe(self, step: Probe) -> ProbeText:
        """The queries of a verification."""

    def alias_probe(self, step: ProbeAlias) -> ProbeText | None:  # noqa: ARG002 - for SQLite
        """The queries that compare a table with its alias; None where that is a view of it."""
        return None

    def alias_repairs(self, step: ProbeAlias, side: Side) -> Sequence[BackfillText]:  # noqa: ARG002 - for SQLite
        """The statements, one after the other, that make the other name's rows those of ``side``."""
        return ()

    def alias_triggers(self, stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:  # noqa: ARG002 - for SQLite
        """The names of the triggers that keep an alias, on the table and on the alias."""
        return (), ()

    def alike(self, step: BuildIndex) -> str:
        """The query that gives, of at most ``:limit`` kinds, the values under a unique index that rows share.

        Its last column, ``contraflow_rows``, tells how many rows share them. NULLs are alike to nothing.
        """
        index = step.index
        names = [escape(self._part_of(index, part)) for part in index.key]
        shown = [
            f"{name} AS {escape(self.compiler.quote(part[:60]))}" for name, part in zip(names, index.key, strict=True)
        ]
        table = escape(self.compiler.table(step.table, step.schema))
        given = " AND ".join(
            [*(f"{name} IS NOT NULL" for name in names), *([f"({escape(index.where)})"] if index.where else [])]
        )
        return (
            f"SELECT {', '.join(shown)}, count(*) AS contraflow_rows FROM {table} WHERE {given}"
            f" GROUP BY {', '.join(names)} HAVING count(*) > 1 ORDER BY count(*) DESC LIMIT :limit"
        )

    def constraint_problems(
        self,
        connection: sa.Connection,  # noqa: ARG002 - for subclasses
        item: Installed,  # noqa: ARG002
        types: Mapping[str, sa.types.TypeEngine[Any]],  # noqa: ARG002
    ) -> list[Problem]:
        """What on this server would keep the foreign keys and checks of ``item`` from being made or dropped.

        ``types`` are those of the table's columns, new ones included. The tables that keys refer to exist.
        """
        return []

    def condition(self, expression: sa.ColumnElement[Any]) -> str:
        """The SQL of a condition over a table's own row, as it may stand in a CHECK."""
        return self.compiler.compile(expression, self.compiler.quote)

    def violating(self, table: str, schema: str | None, constraint: Constraint) -> str:
        """What stands behind FROM to get the rows, called ``contraflow_row``, that violate the constraint."""
        return violating(table, schema, constraint, self.compiler)

    def mend(self, step: FillNulls) -> BackfillText:
        """The statements that write a value into the NULLs of a column."""
        from contraflow.dialects.mend import mend_text  # it needs this module

        return mend_text(step, self.compiler)

    def in_hold(self, step: Step) -> bool:  # noqa: ARG002 - for SQLite
        """Whether an online step needs a hold here, and is sent by :meth:`hold`."""
        return False

    def discard(self, step: Step, found: Found) -> list[Statement]:  # noqa: ARG002 - for PostgreSQL
        """What removes the rest of an online step that failed; sent inside :meth:`running_online`."""
        return []

    def waits_beside_writers(self, step: Step) -> bool:  # noqa: ARG002 - for PostgreSQL
        """Whether nobody queues behind the step while it waits for a lock, so that it may wait long."""
        return False

    def insisting(self, statements: Sequence[Statement]) -> list[Statement]:
        """An online step's statements as they are sent where the writers' own writes made it fail again and again."""
        return list(statements)

    def _part_of(self, index: Index, part: str) -> str:
        """A part of an index's key: a column, or SQL."""
        return self.compiler.quote(part) if part in index.columns else f"({part})"

    def _key_of(self, index: Index) -> str:
        """What stands behind the table in CREATE INDEX."""
        using = f"USING {index.using} " if index.using else ""
        storage = f" WITH ({', '.join(f'{name} = {value}' for name, value in index.storage)})" if index.storage else ""
        where = f" WHERE {index.where}" if index.where else ""
        return f"{using}({', '.join(self._part_of(index, part) for part in index.key)}){storage}{where}"

    def expression(self, sync: Sync, expression: sa.ColumnElement[Any], alias: str | None = None) -> str:  # noqa: ARG002
        """The SQL of a lens expression over the table's own row (or over ``alias``), with no parameters in it."""
        prefix = f"{self.compiler.quote(alias)}." if alias else ""
        return self.compiler.compile(expression, lambda name: f"{prefix}{self.compiler.quote(name)}")

    # -- execution -------------------------------------------------------------------------------------

    @abstractmethod
    def opening(self, hold: Hold, timeout: float) -> list[Statement]:
        """The statements by which :meth:`holding` begins: for showing a plan, and for SQL output."""

    @abstractmethod
    def closing(self, hold: Hold) -> list[Statement]:
        """The statements by which :meth:`holding` ends without an error."""

    @abstractmethod
    def holding(self, connection: sa.Connection, hold: Hold, timeout: float) -> contextlib.AbstractContextManager[None]:
        """Keep the writers of ``hold.table`` out while the block runs; on leaving without an error, make it last.

        Where DDL is transactional this is one transaction, rolled back on an error. Raises :class:`LockTimeout` if the
        lock is not had within ``timeout`` seconds; a statement inside may raise it too (see :meth:`send`).
        """

    @abstractmethod
    def running_online(self, connection: sa.Connection, timeout: float) -> contextlib.AbstractContextManager[None]:
        """Run an online step with lock waits bounded by ``timeout`` seconds, outside of a transaction.

        A statement inside that fails because two rows are alike raises :class:`NotUnique`.
        """

    @abstractmethod
    def transaction(self, connection: sa.Connection, timeout: float) -> contextlib.AbstractContextManager[None]:
        """A short data transaction (backfill batch, journal update), row-lock waits bounded by ``timeout`` seconds."""

    @abstractmethod
    def is_lock_timeout(self, error: BaseException) -> bool:
        """Whether a statement failed because a lock was not had in time, or as a deadlock's victim: worth a new try."""

    def heal(
        self,
        connection: sa.Connection,  # noqa: ARG002 - for MariaDB
        error: BaseException,  # noqa: ARG002
        timeout: float,  # noqa: ARG002
        table: tuple[str | None, str] | None = None,  # noqa: ARG002
    ) -> bool:
        """Whether a statement failed by a flaw of the server's that is mended now: worth a new try.

        Asked outside of a transaction; ``table`` (schema, name) is the one at work. Raises :class:`LockTimeout` if the
        lock that mends it was not had within ``timeout`` seconds.
        """
        return False

    def execute(self, connection: sa.Connection, statements: Sequence[Statement]) -> None:
        """Send statements as they are: no parameters, no percent signs doubled."""
        for statement in statements:
            self.send(connection, statement)

    def send(self, connection: sa.Connection, statement: Statement) -> None:
        """Send one statement as it is. Raises :class:`LockTimeout` where :meth:`is_lock_timeout` says so."""
        try:
            connection.exec_driver_sql(statement.sql, execution_options={"no_parameters": True})
        except sa.exc.DBAPIError as error:
            if self.is_lock_timeout(error):
                raise LockTimeout(str(error.orig)) from error
            raise

    @contextlib.contextmanager
    def unit(
        self, connection: sa.Connection, opening: Sequence[Statement], closing: Sequence[Statement]
    ) -> Iterator[None]:
        """A server-side transaction between ``opening`` and ``closing``, rolled back on any error."""
        try:
            self.execute(connection, opening)
            yield
            self.execute(connection, closing)
        except BaseException:
            # The connection may be gone (SQLAlchemy gives it up on Ctrl-C), or the transaction be over: the first
            # error is the one that counts.
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.exec_driver_sql("ROLLBACK")
            raise
