"""What a table of MySQL or MariaDB has of its own that its sync could not get along with."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.compiler import Compiler
from contraflow.dialects.mysql_text import assigned
from contraflow.dialects.pair import is_own
from contraflow.problems import Problem
from contraflow.syncs import Synced

__all__ = ["later_triggers"]

_BEFORE = """
SELECT trigger_name, event_manipulation, action_statement FROM information_schema.triggers
WHERE event_object_table = :table AND event_object_schema = coalesce(:schema, database()) AND action_timing = 'BEFORE'
ORDER BY event_manipulation, action_order
"""


def later_triggers(connection: sa.Connection, synced: Synced, compiler: Compiler) -> Iterator[Problem]:
    """``CF205`` for each BEFORE trigger that assigns to a synced column after the sync has read it.

    Triggers of one event fire in the order in which they were made, unless they say FOLLOWS or PRECEDES (manuals,
    CREATE TRIGGER). So what is there before the sync does not come after it. What is stored is then not what the other
    release reads.
    """
    after: dict[str, str] = {}
    table = {"table": synced.table, "schema": synced.schema}
    for trigger, event, text in connection.execute(sa.text(_BEFORE), table):
        name = str(trigger)
        if is_own(name, synced.name):
            if name.startswith(synced.name):
                after[str(event)] = name
            continue
        columns = assigned(str(text))
        if str(event) in after and (changed := [column for column in synced.columns if column.lower() in columns]):
            yield Problem(
                code="CF205",
                what=f"the trigger {name} of {synced.table} changes {', '.join(changed)} after the sync has read it.",
                why="it was made after the sync: the other release would read what was never stored.",
                instead=f"DROP TRIGGER {compiler.quote(name)}; then make it again so that it fires before:"
                f"\nCREATE TRIGGER ... FOR EACH ROW PRECEDES {compiler.quote(after[str(event)])} ...",
            )
