"""What on PostgreSQL keeps rows from coming to refer to rows of another table."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.collations import lookup_collations
from contraflow.dialects.compiler import Compiler
from contraflow.expressions.trees import Lookup
from contraflow.problems import Problem
from contraflow.syncs import Sync

__all__ = ["lookup_problems"]


def lookup_problems(connection: sa.Connection, sync: Sync, compiler: Compiler) -> Iterator[Problem]:
    """``CF205`` where the other table's unique key is checked late, or its texts and the table's do not compare.

    A unique index of a constraint that is DEFERRABLE is none by which INSERT ... ON CONFLICT tells a row that is there
    (manual, INSERT), nor does a change of its columns wait for whoever looked the row up (manual, Explicit Locking).
    """
    for lookup in (lookup for group in sync.groups for lookup in group.lookups):
        if not set(lookup.given) <= {name for group in sync.groups for name in group.old}:
            continue  # the way back, from the key
        if _relation(connection, lookup, compiler) is None:
            continue  # created by this upgrade
        names = sorted(match.name for match in lookup.matches)
        if not connection.execute(
            sa.text(
                "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = to_regclass(:table) AND i.indisunique"
                " AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND :names ="
                " (SELECT string_agg(CAST(a.attname AS text), ',' ORDER BY CAST(a.attname AS text) COLLATE \"C\")"
                " FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY"
                " ((CAST(i.indkey AS smallint[]))[0:i.indnkeyatts - 1])))"
            ),
            {"table": compiler.table(lookup.table, lookup.schema), "names": ",".join(names)},
        ).scalar():
            yield Problem(
                code="CF205",
                what=f"the unique key of {lookup.table} over {', '.join(names)} is checked at the end of transactions.",
                why="two rows could be alike for a while, and a row that is looked up could change unseen.",
                instead="make it NOT DEFERRABLE, in an upgrade before.",
            )
        yield from lookup_collations(connection, sync, lookup, "current_schema()")


def _relation(connection: sa.Connection, lookup: Lookup, compiler: Compiler) -> object:
    return connection.execute(
        sa.text("SELECT to_regclass(:table)"), {"table": compiler.table(lookup.table, lookup.schema)}
    ).scalar()
