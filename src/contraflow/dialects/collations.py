"""Texts of two tables that the server would not compare.

MySQL and MariaDB: error 1267, Illegal mix of collations. PostgreSQL: 42P22, indeterminate collation. In each function
``current`` is the SQL of the schema that a table without one is in.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.copies import Copy, Place
from contraflow.expressions import Ref
from contraflow.expressions.trees import Lookup
from contraflow.problems import Problem
from contraflow.syncs import Sync

__all__ = ["copy_collations", "lookup_collations"]

_ONE = "give both columns one collation, in an upgrade before."


def copy_collations(connection: sa.Connection, copy: Copy, current: str) -> Iterator[Problem]:
    """``CF205`` for columns by which rows of ``copy`` are found that have different collations."""
    for path in copy.paths:
        before = copy.target
        for hop in path.hops:
            for name, there in hop.on.items():
                mine = _collation(connection, before, name, current)
                theirs = _collation(connection, hop.place, there, current)
                if mine != theirs:
                    yield _different(before, name, mine, hop.place, there, theirs, _ONE)
            before = hop.place


def lookup_collations(connection: sa.Connection, sync: Sync, lookup: Lookup, current: str) -> Iterator[Problem]:
    """``CF205`` for columns by which rows are looked up that have other collations than what they are compared with.

    A table that this upgrade creates will have the collations that it declares, else on MySQL and MariaDB its schema's.
    """
    here, there = (sync.schema, sync.table), (lookup.schema, lookup.table)
    created = not connection.execute(
        sa.text(
            "SELECT count(*) FROM information_schema.tables WHERE table_name = :table"
            f" AND table_schema = coalesce(:schema, {current})"
        ),
        {"table": lookup.table, "schema": lookup.schema},
    ).scalar()
    for match in lookup.matches:
        if not isinstance(match.value, Ref):
            continue
        mine = _collation(connection, here, match.value.name, current)
        if created:
            theirs = getattr(match.type, "collation", None) or _default(connection, lookup.schema, current)
            instead = (
                f'declare {lookup.table}.{match.name} with it, sa.String(..., collation="{mine}"),\n'
                "or give both tables one collation in an upgrade before."
            )
            if mine is None:
                continue  # no text, or as everything is by default
        else:
            theirs, instead = _collation(connection, there, match.name, current), _ONE
        if mine != theirs:
            yield _different(here, match.value.name, mine, there, match.name, theirs, instead)


def _different(
    here: Place, name: str, mine: str | None, there: Place, other: str, theirs: str | None, instead: str
) -> Problem:
    default = "of the database"
    return Problem(
        code="CF205",
        what=f"{here[1]}.{name} has the collation {mine or default}, and {there[1]}.{other} has"
        f" {theirs or f'that {default}'}.",
        why="the server does not compare them: writes would fail.",
        instead=instead,
    )


def _collation(connection: sa.Connection, place: Place, column: str, current: str) -> str | None:
    """The column's collation; None if it has none, or the database's own."""
    query = (
        "SELECT collation_name FROM information_schema.columns WHERE table_name = :table AND column_name = :column"
        f" AND table_schema = coalesce(:schema, {current})"
    )
    found = connection.execute(sa.text(query), {"table": place[1], "column": column, "schema": place[0]}).scalar()
    return None if found is None else str(found)


def _default(connection: sa.Connection, schema: str | None, current: str) -> str | None:
    """The collation of columns that declare none."""
    if connection.dialect.name == "postgresql":
        return None
    query = (
        "SELECT default_collation_name FROM information_schema.schemata"
        f" WHERE schema_name = coalesce(:schema, {current})"
    )
    return connection.execute(sa.text(query), {"schema": schema}).scalar()
