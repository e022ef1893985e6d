"""What a table of PostgreSQL has of its own that its sync, or the end of it, could not get along with."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.compiler import Compiler
from contraflow.dialects.pair import is_own
from contraflow.problems import Problem
from contraflow.syncs import Sync, Synced

__all__ = ["inherited_columns", "later_triggers"]

# BEFORE ROW, and of INSERT or UPDATE (src/include/catalog/pg_trigger.h). Names are compared byte for byte.
_LATER = """
SELECT CAST(t.tgname AS text), p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = to_regclass(:table) AND NOT t.tgisinternal AND t.tgenabled <> 'D'
AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0
AND CAST(t.tgname AS text) COLLATE "C" > :sync
ORDER BY 1
"""
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def later_triggers(connection: sa.Connection, synced: Synced, compiler: Compiler) -> Iterator[Problem]:
    """``CF205`` for each BEFORE trigger that assigns to a synced column after the sync has read it.

    Triggers fire in the order of their names (manual, Overview of Trigger Behavior). What is stored is then not what
    the other release reads. Seen are assignments in a function's text, not what it does by other means.
    """
    table = compiler.table(synced.table, synced.schema)
    for trigger, body in connection.execute(sa.text(_LATER), {"table": table, "sync": synced.name}):
        if is_own(trigger, synced.name):
            continue
        text = _COMMENT.sub(" ", body)
        changed = ", ".join(name for name in synced.columns if _assigns(text, name))
        if changed:
            yield Problem(
                code="CF205",
                what=f"the trigger {trigger} of {synced.table} changes {changed} after the sync has read it.",
                why="triggers fire in the order of their names: the other release would read what was never stored.",
                instead="let it fire before: ALTER TRIGGER"
                f" {compiler.quote(trigger)} ON {table} RENAME TO {compiler.quote('a_' + trigger)};",
            )


def inherited_columns(connection: sa.Connection, sync: Sync, compiler: Compiler) -> Iterator[Problem]:
    """``CF205`` for old columns that come from a parent table: contract could not drop them from this one alone
    (manual, Inheritance).
    """
    table = compiler.table(sync.table, sync.schema)
    query = sa.text("SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attinhcount > 0")
    inherited = connection.execute(query, {"table": table}).scalars().all()
    old = {name for group in sync.groups for name in group.backward}
    if found := [name for name in inherited if name in old]:
        yield Problem(
            code="CF205",
            what=f"{sync.table} inherits {', '.join(found)} from another table.",
            why="a column goes with the parent's only, so that the upgrade could never be contracted.",
            instead=f"ALTER TABLE {table} NO INHERIT ...; in a revision before this one.",
        )


def _assigns(body: str, column: str) -> bool:
    """Whether PL/pgSQL assigns to the column of NEW. One that is written with ``=`` begins a statement; elsewhere that
    compares.
    """
    name = rf'new\s*\.\s*(?:"{re.escape(column)}"|{re.escape(column)}(?![\w$]))'
    begins = r"(?:;|\bbegin|\bthen|\belse|\bloop)\s*"
    return bool(re.search(rf"(?<![\w$]){name}\s*:=|{begins}{name}\s*=", body, re.IGNORECASE))
