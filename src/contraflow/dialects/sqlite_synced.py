"""What a table of SQLite has of its own that its sync could not get along with."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.sqlite_trial import empty_copy, quoted
from contraflow.problems import Problem
from contraflow.syncs import Synced

__all__ = ["contrary_triggers"]


def contrary_triggers(connection: sa.Connection, synced: Synced) -> Iterator[Problem]:
    """``CF205`` for each trigger that changes a synced column whenever one is written, or a row is inserted.

    SQLite's triggers cannot assign to NEW: such a one updates the stored row, from a NEW that does not know what the
    sync has written. So it takes a value away that the new release has inserted; and where the sync's own update fires
    it, the sync does not follow (a trigger does not fire itself, PRAGMA recursive_triggers).

    SQLite itself is asked which columns each trigger updates, while it compiles statements of that kind.
    """
    changed: dict[str, dict[str, None]] = {}

    def note(action: int, table: str | None, column: str | None, _schema: str | None, trigger: str | None) -> int:
        if (
            action == sqlite3.SQLITE_UPDATE
            and trigger
            and str(table).lower() == synced.table.lower()
            and column in synced.columns
        ):
            changed.setdefault(trigger, {})[column] = None
        return sqlite3.SQLITE_OK

    table = quoted(synced.table)
    with empty_copy(connection, synced.schema, synced.name, lambda _name, text: text) as copy:
        copy.set_authorizer(note)
        statements = [f"INSERT INTO {table} DEFAULT VALUES"]
        statements += [f"UPDATE {table} SET {name} = {name}" for name in map(quoted, synced.columns)]
        for statement in statements:
            with contextlib.suppress(sqlite3.Error):  # a column that is not there yet
                copy.execute(f"EXPLAIN {statement}")
    for trigger, columns in changed.items():
        yield Problem(
            code="CF205",
            what=f"the trigger {trigger} changes {', '.join(columns)} of {synced.table}, beside the sync.",
            why="SQLite shows it the row as it was written, not what the sync has made of it: it would overwrite what"
            " the new release writes.",
            instead=f"DROP TRIGGER {quoted(trigger)}; and let the application keep its rule until the upgrade is"
            " contracted.",
        )
