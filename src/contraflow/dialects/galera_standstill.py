"""Schema changes that can bring a Galera cluster to a standstill, told from foreign keys and triggers.

DDL is executed in one total order on all nodes. What a node applies of others' writes after it waits for it to be
done, but may hold a metadata lock by then that the DDL wants: that of the other table of a foreign key, or of a table
that a trigger uses. Certification, which else keeps such a write back until the DDL is done, knows only the tables that
the DDL names, and for ALTER TABLE those to which they refer. No timeout ends it, nor ``foreign_key_checks = 0``; the
node must be killed. One applier (``wsrep_slave_threads = 1``) is enough.

Tried on MariaDB 10.11.18 and 10.11.19, writers on two nodes, the DDL on the third. Within seconds a standstill by ALTER
TABLE of a table that others refer to; CREATE TRIGGER on, and RENAME TABLE of, one that refers to others; ALTER TABLE of
one that another table's trigger writes. None in hundreds of ALTER TABLE of a table that refers to others (columns,
indexes, foreign keys), of CREATE TRIGGER on one that others refer to, of CREATE and DROP TABLE of one that refers to
others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import ForeignKey
from contraflow.dialects.mysql_pairs import names_table
from contraflow.installed import Installed
from contraflow.problems import Problem

__all__ = ["standstills"]

_WHY = "the whole cluster can stand still until a node is killed."
_DROP_KEY = (
    "drop the foreign key first, in an upgrade of its own (DropForeignKey), or leave it out of a new table, and make it"
    "\nafterwards (AddForeignKey). While this upgrade is open: ALTER TABLE ... DROP FOREIGN KEY."
)


@dataclass(frozen=True, order=True)
class _Place:
    """A table."""

    schema: str
    table: str


def standstills(
    connection: sa.Connection, installed: Sequence[Installed], made: Iterable[sa.Table]
) -> Iterator[Problem]:
    """``CF205`` for each table that an upgrade cannot change beside the writers of another one.

    A table without rows, beside one without, is nobody's yet: that of a database that is new.
    """
    database = str(connection.exec_driver_sql("SELECT DATABASE()").scalar())

    def place(schema: str | None, table: str) -> _Place:
        return _Place(schema or database, table)

    new = {place(item.schema, item.table) for item in installed if item.created}
    planned = {
        *(
            (place(table.schema, table.name), place(key.referred_table.schema, key.referred_table.name))
            for table in made
            for key in table.foreign_key_constraints
        ),
        *(
            (place(item.schema, item.table), place(one.target_schema, one.target))
            for item in installed
            for one in item.constrained
            if isinstance(one, ForeignKey)
        ),
    }
    for item in installed:
        if item.created:
            continue
        here = place(item.schema, item.table)
        for child, parent in sorted({*_foreign_keys(connection, here), *planned}):
            if child == parent or here not in (child, parent):
                continue
            other = parent if child == here else child
            if not _has_rows(connection, here if other in new and not _exists(connection, other) else other):
                continue
            if parent == here:
                yield _referred_to(item, child)
            elif item.sync or item.renamed:
                yield _referring(item, parent)
        for trigger, other in _triggers(connection, here):
            if _has_rows(connection, other):
                yield _used(item, trigger, other)


def _foreign_keys(connection: sa.Connection, here: _Place) -> Iterator[tuple[_Place, _Place]]:
    """Those from and to the table, as child and parent."""
    query = sa.text(
        "SELECT DISTINCT table_schema, table_name, referenced_table_schema, referenced_table_name"
        " FROM information_schema.key_column_usage WHERE referenced_table_name IS NOT NULL"
        " AND ((referenced_table_schema = :schema AND referenced_table_name = :table)"
        " OR (table_schema = :schema AND table_name = :table))"
    )
    for schema, table, parent_schema, parent in connection.execute(query, vars(here)):
        yield _Place(schema, table), _Place(parent_schema, parent)


def _triggers(connection: sa.Connection, here: _Place) -> list[tuple[str, _Place]]:
    """The application's triggers of other tables that have the table's name in their texts."""
    query = sa.text(
        "SELECT trigger_name, event_object_schema, event_object_table, action_statement"
        " FROM information_schema.triggers"
        " WHERE NOT (event_object_schema = :schema AND event_object_table = :table) ORDER BY trigger_name"
    )
    return [
        (str(name), _Place(schema, table))
        for name, schema, table, text in connection.execute(query, vars(here))
        if "/* contraflow " not in str(text)
        and names_table(str(text), here.table)
        and (schema == here.schema or names_table(str(text), here.schema))
    ]


def _exists(connection: sa.Connection, one: _Place) -> bool:
    return sa.inspect(connection).has_table(one.table, schema=one.schema)


def _has_rows(connection: sa.Connection, one: _Place) -> bool:
    query: sa.Select[Any] = (
        sa.select(sa.literal_column("1")).select_from(sa.table(one.table, schema=one.schema)).limit(1)
    )
    return _exists(connection, one) and connection.execute(query).first() is not None


def _name(item: Installed) -> str:
    return ".".join(filter(None, (item.schema, item.table)))


def _referred_to(item: Installed, child: _Place) -> Problem:
    return Problem(
        code="CF205",
        what=f"{_name(item)} cannot be changed live in a Galera cluster while {child.table} refers to it by a foreign"
        " key.",
        why=f"ALTER TABLE of {_name(item)} locks {child.table} at its end, and writers of {child.table} that hold it"
        f" wait for their turn after the ALTER TABLE:\n{_WHY}",
        instead=_DROP_KEY,
    )


def _referring(item: Installed, parent: _Place) -> Problem:
    how = "get another name" if item.renamed else "get triggers"
    return Problem(
        code="CF205",
        what=f"{_name(item)} cannot {how} live in a Galera cluster while it refers to {parent.table} by a foreign key.",
        why=f"the statement waits for writers of {parent.table} that hold {_name(item)} because of the key, and wait"
        f" for their turn after the statement:\n{_WHY}",
        instead=_DROP_KEY,
    )


def _used(item: Installed, trigger: str, other: _Place) -> Problem:
    return Problem(
        code="CF205",
        what=f"{_name(item)} cannot be changed live in a Galera cluster while the trigger {trigger} of {other.table}"
        " uses it.",
        why=f"ALTER TABLE of {_name(item)} waits for writers of {other.table} that hold it because of the trigger, and"
        f" wait for their turn after the ALTER TABLE:\n{_WHY}",
        instead="drop the trigger for the length of the upgrade, and let the application do its work.",
    )
