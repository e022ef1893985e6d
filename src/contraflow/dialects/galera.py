"""MariaDB and MySQL in clusters on Galera."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.mariadb import MariaDBAdapter
from contraflow.dialects.mysql import MySQLAdapter, lock_wait
from contraflow.expressions.trees import Lookup
from contraflow.problems import Problem
from contraflow.steps import Hold, Sync

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

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
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
        return problems


class GaleraAdapter(_Cluster, MariaDBAdapter):
    """MariaDB with ``wsrep_on``."""


class XtraDBClusterAdapter(_Cluster, MySQLAdapter):
    """Percona XtraDB Cluster: MySQL with ``wsrep_on``. Compiled for only; not run so far."""
