"""What on MySQL and MariaDB keeps two tables from following each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.pair import PREFIX
from contraflow.problems import Problem
from contraflow.steps import Pair, PairTable

__all__ = ["problems"]


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
    for end, other in ((pair.main, pair.companion), (pair.companion, pair.main)):
        for name in _users(connection, end, other):
            yield Problem(
                code="CF205",
                what=f"the trigger {name} of {end.table} uses {other.table}.",
                why="a statement that fires it would touch both tables, and fail: error 1442, Can't update table.",
                instead="drop the trigger for the length of the upgrade, and let the application do its work.",
            )


def _users(connection: sa.Connection, end: PairTable, other: PairTable) -> list[str]:
    found = connection.execute(
        sa.text(
            "SELECT trigger_name, action_statement FROM information_schema.triggers"
            " WHERE event_object_table = :table AND event_object_schema = coalesce(:schema, database())"
            " ORDER BY trigger_name"
        ),
        {"table": end.table, "schema": end.schema},
    )
    pattern = re.compile(rf"(?<![\w$]){re.escape(other.table)}(?![\w$])", re.IGNORECASE)
    return [str(name) for name, text in found if not str(name).startswith(PREFIX) and pattern.search(str(text))]
