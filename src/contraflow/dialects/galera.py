"""MariaDB and MySQL in clusters on Galera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from contraflow.copies import Copy
from contraflow.dialects.base import Found, Statement
from contraflow.dialects.mariadb import MariaDBAdapter
from contraflow.dialects.mysql import MySQLAdapter, lock_wait
from contraflow.expressions.trees import Lookup
from contraflow.problems import Problem
from contraflow.steps import Hold
from contraflow.syncs import Sync

__all__ = ["GaleraAdapter", "XtraDBClusterAdapter"]


class _Cluster(MySQLAdapter):
    """What Galera changes: LOCK TABLES keeps out nobody on other nodes, but DDL is executed in one total order on all.

    So there is no hold: each statement is a step of its own (TOI), during which the whole cluster stops, and writers of
    both releases run between two of them. The order of :meth:`hold` is harmless to them in every prefix.
    """

    clustered = True
    rebuilds = False  # it would stop the whole cluster while a shadow becomes NOT NULL
    changes_keys = False  # it would stop the whole cluster while the table is rebuilt

    def prepare(self, connection: sa.Connection) -> None:
        """See :meth:`Adapter.prepare`. A statement first waits for what other nodes had committed by then: a runner
        that goes on at another node must not read an older journal (MariaDB's manual, wsrep_sync_wait)."""
        super().prepare(connection)
        connection.exec_driver_sql("SET SESSION wsrep_sync_wait = 15")

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.opening`."""
        return [lock_wait(timeout), Statement(sql="SET SESSION wsrep_OSU_method = 'TOI'")]

    def closing(self, hold: Hold) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.closing`."""
        return []

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`."""
        toi = "TOI: all writes of the cluster wait"
        return [
            Statement(sql=statement.sql, lock=f"{toi}; {statement.lock}") for statement in super().hold(hold, found)
        ]

    def lookup_problems(self, connection: sa.Connection, sync: Sync) -> list[Problem]:
        """See :meth:`Adapter.lookup_problems`.

        A row that is looked up is locked on one node only, and certification, which knows foreign keys, does not know
        of it: another node may change the row at the same moment.
        """
        followed = {
            image.table for group in sync.groups for image in group.backward.values() if isinstance(image, Lookup)
        }
        return [
            *super().lookup_problems(connection, sync),
            *(
                Problem(
                    code="CF205",
                    what=f"rows of {sync.table} cannot come to refer to {name} on a cluster.",
                    why="a row of either table that one node writes, and another node changes what it refers to at the"
                    " same moment, would not agree.",
                    instead="add the column (AddColumn), let a release write both, then drop the others (DropColumn).",
                )
                for name in sorted(followed)
            ),
        ]

    def copy_problems(self, connection: sa.Connection, copy: Copy) -> list[Problem]:
        """See :meth:`Adapter.copy_problems`. What is true of :meth:`lookup_problems` is true of a copy."""
        title = f"{copy.table}.{copy.column}"
        return [
            *super().copy_problems(connection, copy),
            Problem(
                code="CF205",
                what=f"{title} cannot follow other tables on a cluster.",
                why="a row that one node writes, and another node changes what it is copied from at the same moment,"
                " would not agree.",
                instead="add the column (AddColumn), let a release write it, and fill it in an upgrade after that.",
            ),
        ]

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
        tables = list(tables)
        status = connection.exec_driver_sql("SHOW STATUS LIKE 'wsrep_ready'").first()
        problems = super().preflight(connection, tables)
        if status is not None and str(status[1]).upper() != "ON":
            problems.append(
                Problem(
                    code="CF205",
                    what="this node does not take part in its cluster (wsrep_ready is OFF).",
                    instead="connect to a node that is in sync.",
                )
            )
        problems += [_referred_to(table, child) for table in tables for child in _children(connection, *table)]
        return problems


def _children(connection: sa.Connection, schema: str | None, table: str) -> Iterator[str]:
    """Other tables with a foreign key to this one, and with rows: nobody writes to those of a database that is new."""
    query = sa.text(
        "SELECT DISTINCT table_schema, table_name FROM information_schema.key_column_usage"
        " WHERE referenced_table_schema = COALESCE(:schema, DATABASE()) AND referenced_table_name = :table"
        " AND NOT (table_schema = referenced_table_schema AND table_name = referenced_table_name) ORDER BY table_name"
    )
    for place, name in connection.execute(query, {"schema": schema, "table": table}).all():
        child = sa.table(name, schema=place)
        if connection.execute(sa.select(sa.literal_column("1")).select_from(child).limit(1)).first() is not None:
            yield name


def _referred_to(table: tuple[str | None, str], child: str) -> Problem:
    # Seen on MariaDB 10.11.18 with wsrep_slave_threads = 1, in half of the upgrades of such tables under load, with the
    # binary log and without: in the state "Committing alter table to storage engine" ALTER TABLE waits for lock mode X
    # on the child; a write to the child that was certified after it holds IX, and waits for the ALTER TABLE to be
    # committed. No timeout ends it, and foreign_key_checks = 0 does not keep it from that lock.
    name = ".".join(filter(None, table))
    return Problem(
        code="CF205",
        what=f"{name} cannot be changed live in a Galera cluster while {child} refers to it by a foreign key.",
        why=f"ALTER TABLE of {name} locks {child} at its end, and writers of {child} that hold it wait for their turn"
        " after the ALTER TABLE: the whole cluster can stand still until a node is killed.",
        instead="drop the foreign key first, in an upgrade of its own (DropForeignKey), and make it again afterwards"
        " (AddForeignKey).",
    )


class GaleraAdapter(_Cluster, MariaDBAdapter):
    """MariaDB with ``wsrep_on``."""


class XtraDBClusterAdapter(_Cluster, MySQLAdapter):
    """Percona XtraDB Cluster: MySQL with ``wsrep_on``. Compiled for only; not run so far."""
