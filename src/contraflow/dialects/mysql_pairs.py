"""What on MySQL and MariaDB keeps two tables from following each other, or a column from following other tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.copies import Copy, Place
from contraflow.dialects.collations import copy_collations, lookup_collations
from contraflow.dialects.pair import PREFIX
from contraflow.expressions.trees import Lookup
from contraflow.problems import Problem
from contraflow.syncs import Pair, Sync

__all__ = ["copy_problems", "lookup_problems", "names_table", "problems"]


def problems(connection: sa.Connection, pair: Pair) -> Iterator[Problem]:
    """``CF205`` for cascades, which fire no triggers, and for triggers that use both tables, which fail (error 1442).

    MySQL manual, "CREATE TRIGGER": "Cascaded foreign key actions do not activate triggers"; MariaDB's says the same.
    """
    for cascade in pair.cascades:
        yield Problem(
            code="CF205",
            what=f"{cascade} changes rows of {pair.main.table} or {pair.companion.table} by a cascade.",
            why="this server fires no triggers for it: the other table would not follow.",
            instead=f"let the foreign key from {pair.companion.table} to {pair.main.table} cascade as well"
            " (ON DELETE CASCADE, ON UPDATE CASCADE),\nor let the application delete the rows, and drop the cascade in"
            " an upgrade before.",
        )
    ends = (pair.main.schema, pair.main.table), (pair.companion.schema, pair.companion.table)
    for end, other in (ends, ends[::-1]):
        yield from _touching(connection, end, other)


def copy_problems(connection: sa.Connection, copy: Copy) -> Iterator[Problem]:
    """``CF205`` for cascades, which fire no triggers, and for triggers that write what a trigger of theirs uses."""
    for cascade in copy.cascades:
        yield Problem(
            code="CF205",
            what=f"{cascade} changes by a cascade what {copy.table}.{copy.column} is copied from.",
            why="this server fires no triggers for it: the column would not follow.",
            instead="let the application change the rows, and drop the cascade in an upgrade before.",
        )
    for place in copy.others:
        yield from _touching(connection, copy.target, place)
    yield from copy_collations(connection, copy, "database()")


def lookup_problems(connection: sa.Connection, sync: Sync) -> Iterator[Problem]:
    """``CF205`` for triggers that use both tables, and for texts that the two tables would not compare (error 1267)."""
    for group in sync.groups:
        for lookup in group.lookups:
            if not lookup.given or not set(lookup.given) <= set(group.old):
                continue  # the way back, from the key
            ends = (sync.schema, sync.table), (lookup.schema, lookup.table)
            if ends[0] == ends[1]:
                yield _itself(sync.table, lookup.given[0])
                continue
            for end, other in (ends, ends[::-1]):
                yield from _touching(connection, end, other)
            yield from lookup_collations(connection, sync, lookup, "database()")
            if lookup.fills:
                yield from _defaults(connection, sync, lookup)


def _itself(table: str, column: str) -> Problem:
    return Problem(
        code="CF205",
        what=f"{table}.{column} refers to {table} itself, whose key is replaced.",
        why="the trigger that fills the new key would write the table that fires it, which the server refuses"
        " (error 1442).",
        instead="let a table of its own hold who refers to whom, in an upgrade before.",
    )


def _defaults(connection: sa.Connection, sync: Sync, lookup: Lookup) -> Iterator[Problem]:
    """``CF205`` for a new column of text, and one that refers to it, which would have other collations."""
    type_ = lookup.type
    server = connection.dialect
    is_text = isinstance(type_, sa.types.String) or (
        isinstance(type_, sa.types.Uuid) and not (type_.native_uuid and getattr(server, "is_mariadb", False))
    )
    if not is_text or getattr(type_, "collation", None) is not None:
        return
    query = sa.text(
        "SELECT table_collation FROM information_schema.tables WHERE table_name = :table"
        " AND table_schema = coalesce(:schema, database())"
    )
    mine, theirs = (
        connection.execute(query, {"table": table, "schema": schema}).scalar()
        for schema, table in ((sync.schema, sync.table), (lookup.schema, lookup.table))
    )
    if mine != theirs:
        yield Problem(
            code="CF205",
            what=f"new columns of {sync.table} get the collation {mine}, and those of {lookup.table} get {theirs}.",
            why="no foreign key joins them (error 3780 or 1005), and the server does not compare them (error 1267).",
            instead="let the tables have one default, in an upgrade before, which changes no column that is there:"
            f'\nop.execute("ALTER TABLE {sync.table} COLLATE {theirs}"); or declare a collation with the type of the'
            " new key.",
        )


def _touching(connection: sa.Connection, end: Place, other: Place) -> Iterator[Problem]:
    """``CF205`` for the application's triggers of one table that use the other one."""
    for name in _users(connection, end, other):
        yield Problem(
            code="CF205",
            what=f"the trigger {name} of {end[1]} uses {other[1]}.",
            why="a statement that fires it would touch both tables, and fail: error 1442, Can't update table.",
            instead="drop the trigger for the length of the upgrade, and let the application do its work.",
        )


def _users(connection: sa.Connection, end: Place, other: Place) -> list[str]:
    found = connection.execute(
        sa.text(
            "SELECT trigger_name, action_statement FROM information_schema.triggers"
            " WHERE event_object_table = :table AND event_object_schema = coalesce(:schema, database())"
            " ORDER BY trigger_name"
        ),
        {"table": end[1], "schema": end[0]},
    )
    own = "/* contraflow "  # which the texts of a sync's triggers begin with, too
    return [
        str(name)
        for name, text in found
        if not str(name).startswith(PREFIX) and own not in str(text) and names_table(str(text), other[1])
    ]


def names_table(text: str, table: str) -> bool:
    """Whether the text of a trigger has the table's name in it."""
    return re.search(rf"(?<![\w$]){re.escape(table)}(?![\w$])", text, re.IGNORECASE) is not None
