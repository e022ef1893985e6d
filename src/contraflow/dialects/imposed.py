"""What a server itself imposes on statements of the two releases while an upgrade lasts: told before, refused nowhere.

Each function looks at what an upgrade leaves in the database, and yields at most one notice. Adapters name those that
are true of their server (:attr:`contraflow.dialects.base.Adapter.imposes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from contraflow.installed import Installed
from contraflow.problems import Problem

__all__ = [
    "Imposition",
    "aborted_transactions",
    "deadlocks",
    "incomplete_inserts",
    "insert_select",
    "old_snapshots",
    "one_statement",
    "positional_inserts",
    "second_unique",
    "stale_plans",
]

Imposition: TypeAlias = Callable[[Sequence[Installed]], Iterator[Problem]]


def _names(installed: Sequence[Installed], keep: Callable[[Installed], bool]) -> str:
    """The tables of which that is true, in words; empty if there is none."""
    return ", ".join(dict.fromkeys(item.table for item in installed if keep(item)))


def _widened(item: Installed) -> bool:
    """The table has other columns than both releases know, until contract."""
    markers = [*(pair.marker for pair in item.pairs), *(copy.image for copy in item.copies)]
    return bool(item.added or item.dropped or item.marker or any(markers))


def _linked(item: Installed) -> bool:
    """A statement on the table writes another one by triggers, or is written by those of another one."""
    return bool(item.pairs or item.copies)


def _rewritten(item: Installed) -> bool:
    """The table, which both releases have, gets another definition."""
    changes = (item.widened, item.tightened, item.loosened, item.key, item.constrained)
    return not item.created and not item.removed and (_widened(item) or any(changes))


def stale_plans(installed: Sequence[Installed]) -> Iterator[Problem]:
    """PostgreSQL: a plan whose result has got other columns is given up (0A000)."""
    if tables := _names(installed, _widened):
        yield Problem(
            code="CF501",
            what=f"a SELECT * of {tables} that was prepared before expand or contract fails once after it (0A000).",
            why="the server gives up a plan whose result has got other columns; psycopg prepares what it has sent five"
            " times.",
            instead="name the columns, or prepare nothing (psycopg: prepare_threshold=None);\n"
            "contraflow.retry runs such a transaction again.",
        )


def positional_inserts(installed: Sequence[Installed]) -> Iterator[Problem]:
    """SQLite: an INSERT without names gives all columns, and there are more."""
    if tables := _names(installed, _widened):
        yield Problem(
            code="CF502",
            what=f"an INSERT into {tables} that names no columns fails from expand to contract.",
            why="the table has more columns than either release knows, and the server hides none.",
            instead="name the columns: INSERT INTO t (a, b) VALUES ... (SQLAlchemy always does).",
        )


def incomplete_inserts(installed: Sequence[Installed]) -> Iterator[Problem]:
    """Where the old release's go on, because new columns stand last, or hidden: those of the new one."""
    if tables := _names(installed, lambda item: bool(item.dropped or item.added) and not item.created):
        yield Problem(
            code="CF502",
            what=f"an INSERT into {tables} of the new release that names no columns may go astray until contract.",
            why="the old release's columns stand first until then; its own INSERTs go on.",
            instead="name the columns: INSERT INTO t (a, b) VALUES ... (SQLAlchemy always does).",
        )


def one_statement(installed: Sequence[Installed]) -> Iterator[Problem]:
    """MySQL, MariaDB: a trigger may not write a table that the statement which fired it uses (1442)."""
    if tables := _names(installed, _linked):
        yield Problem(
            code="CF503",
            what=f"one statement that writes one of {tables} and uses another of them may fail until contract (1442).",
            why="triggers of one table write, or look at, the other one, which the server forbids within such a"
            " statement.",
            instead="use two statements in place of INSERT ... SELECT, or of UPDATE and DELETE with a join or a"
            " subquery;\ntrying again does not help.",
        )


def deadlocks(installed: Sequence[Installed]) -> Iterator[Problem]:
    """Wherever several write at once: two tables that follow each other are locked in opposite orders."""
    if tables := _names(installed, _linked):
        yield Problem(
            code="CF504",
            what=f"transactions that write rows of {tables} which belong together may deadlock until contract.",
            why="one release locks a row of one table first, the other release one of the other table.",
            instead="let the application run a deadlock's victim again (contraflow.retry).",
        )


def second_unique(installed: Sequence[Installed]) -> Iterator[Problem]:
    """InnoDB: INSERTs that meet in two unique indexes lock them in the order of the indexes."""

    def twice(item: Installed) -> bool:
        early = any(index.unique and not index.late for index in item.built)
        return early and any(index.unique for index in item.replaced)

    if tables := _names(installed, twice):
        yield Problem(
            code="CF504",
            what=f"concurrent INSERTs into {tables} may deadlock between migrate and contract (1213).",
            why="two unique indexes stand on the same values, and InnoDB locks gaps in both.",
            instead="let the application run a deadlock's victim again (contraflow.retry).",
        )


def aborted_transactions(installed: Sequence[Installed]) -> Iterator[Problem]:
    """Galera: DDL goes before whatever stands in its way, on every node (1213, at any statement or at COMMIT)."""
    if tables := _names(installed, lambda _item: True):
        yield Problem(
            code="CF505",
            what=f"each schema change of {tables} aborts the open transactions that it meets, on every node (1213).",
            why="the cluster executes it in one total order, before what is not committed.",
            instead="let the application run such a transaction again (contraflow.retry).",
        )


def old_snapshots(installed: Sequence[Installed]) -> Iterator[Problem]:
    """InnoDB: a table that has got another definition is not readable in a snapshot from before (1412)."""
    if tables := _names(installed, _rewritten):
        yield Problem(
            code="CF506",
            what=f"a transaction from before a phase that changes {tables} may fail where it reads it after (1412).",
            why="its snapshot (REPEATABLE READ) is older than the table's definition.",
            instead="let the application run such a transaction again (contraflow.retry).",
        )


def insert_select(installed: Sequence[Installed]) -> Iterator[Problem]:
    """MariaDB: INSERT ... SELECT checks for missing values before a trigger could give them (1364)."""
    for item in installed:
        if item.relaxed:
            yield Problem(
                code="CF507",
                what=f"an INSERT ... SELECT of the new release into {item.table} fails until contract (1364).",
                why=f"it leaves out {', '.join(item.relaxed)}, NOT NULL without a default, and the server checks that"
                " before the trigger gives the value.",
                instead="use INSERT ... VALUES, or give the old column a default in an upgrade before.",
            )
