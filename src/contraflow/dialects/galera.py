"""MariaDB and MySQL in clusters on Galera."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.galera_standstill import standstills
from contraflow.dialects.imposed import Imposition, aborted_transactions
from contraflow.dialects.mariadb import MariaDBAdapter
from contraflow.dialects.mysql import MySQLAdapter, lock_wait
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import Hold, Online

__all__ = ["GaleraAdapter", "XtraDBClusterAdapter"]

_REST = Statement(sql="DO SLEEP(0.2)")
_ORDERED = "TOI: all writes of the cluster wait"


class _Cluster(MySQLAdapter):
    """What Galera changes: LOCK TABLES keeps out nobody on other nodes, but DDL is executed in one total order on all.

    So there is no hold: each statement is a step of its own (TOI), during which the whole cluster stops, and writers of
    both releases run between two of them. The order of :meth:`hold` is harmless to them in every prefix.
    """

    clustered = True
    rebuilds = False  # it would stop the whole cluster while a shadow becomes NOT NULL
    changes_keys = False  # it would stop the whole cluster while the table is rebuilt
    follows_tables = False
    why_alone = (
        "a node knows nothing of the rows that another one has locked; and where triggers of one table use another one,"
        " a change of its schema\nand writes of the first can wait for each other: the whole cluster can stand still."
    )

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
        return [
            Statement(sql=statement.sql, lock=f"{_ORDERED}; {statement.lock}")
            for statement in super().hold(hold, found)
        ]

    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.online`: beside the writers nowhere, since it is executed in total order, too."""
        return [
            Statement(sql=statement.sql, lock=f"{_ORDERED}, for as long as it takes")
            for statement in super().online(online, found)
        ]

    def standstill_problems(
        self, connection: sa.Connection, installed: Sequence[Installed], made: Iterable[sa.Table] = ()
    ) -> list[Problem]:
        """See :meth:`Adapter.standstill_problems`."""
        return list(standstills(connection, installed, made))

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
        return problems


class GaleraAdapter(_Cluster, MariaDBAdapter):
    """MariaDB with ``wsrep_on``."""

    imposes: ClassVar[tuple[Imposition, ...]] = (*MariaDBAdapter.imposes, aborted_transactions)

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`. A rest before each statement that makes or drops a trigger.

        A schema change makes every session open the table anew, and ends those that are at it when the next one comes:
        then their copies of its triggers are broken (:meth:`MariaDBAdapter.heal`), and that one may get one of them.
        """
        rested: list[Statement] = []
        for statement in super().hold(hold, found):
            if rested and statement.sql.startswith(("CREATE TRIGGER ", "DROP TRIGGER ")):
                rested.append(_REST)
            rested.append(statement)
        return rested


class XtraDBClusterAdapter(_Cluster, MySQLAdapter):
    """Percona XtraDB Cluster: MySQL with ``wsrep_on``. Compiled for only; not run so far."""

    imposes: ClassVar[tuple[Imposition, ...]] = (*MySQLAdapter.imposes, aborted_transactions)
