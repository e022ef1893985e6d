"""Texts of two tables that the server would not compare."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.copies import Copy, Place
from contraflow.problems import Problem

__all__ = ["copy_collations"]


def copy_collations(connection: sa.Connection, copy: Copy, current: str) -> Iterator[Problem]:
    """``CF205`` for columns by which rows of ``copy`` are found that have different collations.

    MySQL and MariaDB: error 1267, Illegal mix of collations. PostgreSQL: 42P22, indeterminate collation. ``current`` is
    the SQL of the schema that a table without one is in.
    """
    for path in copy.paths:
        before = copy.target
        for hop in path.hops:
            for name, there in hop.on.items():
                mine = _collation(connection, before, name, current)
                theirs = _collation(connection, hop.place, there, current)
                if mine != theirs:
                    yield Problem(
                        code="CF205",
                        what=f"{before[1]}.{name} has the collation {mine or 'of the database'}, and"
                        f" {hop.table}.{there} has {theirs or 'that of the database'}.",
                        why="the server does not compare them: writes would fail.",
                        instead="give both columns one collation, in an upgrade before.",
                    )
            before = hop.place


def _collation(connection: sa.Connection, place: Place, column: str, current: str) -> str | None:
    """The column's collation; None if it has none, or the database's own."""
    query = (
        "SELECT collation_name FROM information_schema.columns WHERE table_name = :table AND column_name = :column"
        f" AND table_schema = coalesce(:schema, {current})"
    )
    found = connection.execute(sa.text(query), {"table": place[1], "column": column, "schema": place[0]}).scalar()
    return None if found is None else str(found)
