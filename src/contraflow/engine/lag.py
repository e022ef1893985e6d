"""How far replicas are behind: asked of the replicas themselves, since a primary sees it in part at most."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import sqlalchemy as sa

from contraflow.engine.connect import Database
from contraflow.problems import Problem, ProblemError

__all__ = ["Replicas"]

# With all that was received applied, and more coming, nothing is behind, however long ago the last commit was. Without
# a WAL receiver what was received says nothing: then only time tells (PostgreSQL's manual, Recovery Information
# Functions).
_POSTGRESQL = (
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN NULL"
    " WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT 1 FROM pg_stat_wal_receiver) THEN 0"
    " ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END"
)
_BEHIND = ("Seconds_Behind_Source", "Seconds_Behind_Master")


class Replicas:
    """The replicas at ``urls``, each reached by one connection that is kept.

    :meth:`lag` raises :class:`~contraflow.problems.ProblemError` for a replica that cannot be watched: ``CF201``
    unreachable at first, ``CF202`` a privilege is missing, ``CF205`` it is no replica.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._databases = [Database(url) for url in urls]
        self._connections: dict[Database, tuple[contextlib.ExitStack, sa.Connection]] = {}
        self._met: set[Database] = set()

    def lag(self) -> float:
        """Seconds that the slowest of them is behind; infinity while one does not answer or does not replicate."""
        return max(map(self._lag, self._databases), default=0.0)

    def close(self) -> None:
        """Close the connections."""
        for database in list(self._connections):
            self._forget(database)

    def _lag(self, database: Database) -> float:
        try:
            if database not in self._connections:
                stack = contextlib.ExitStack()
                self._connections[database] = stack, stack.enter_context(database.connect())
            found = self._ask(database, self._connections[database][1])
        except ProblemError:
            if database in self._met:
                return float("inf")  # it may be restarting
            raise
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise _forbidden(database, error) from error
            self._forget(database)
            return float("inf")
        self._met.add(database)
        return found

    def _ask(self, database: Database, connection: sa.Connection) -> float:
        product = database.adapter.product
        if product == "postgresql":
            seconds = connection.exec_driver_sql(_POSTGRESQL).scalar()
            if seconds is None:
                raise _no_replica(database)
            return float(seconds)
        if product not in ("mysql", "mariadb"):
            raise _no_replica(database)
        rows = connection.exec_driver_sql("SHOW REPLICA STATUS").mappings().all()
        if not rows:
            raise _no_replica(database)
        # NULL where it does not replicate: stopped, or it lost its source.
        seconds_of = [next((row[name] for name in _BEHIND if name in row), None) for row in rows]
        return max(float("inf") if seconds is None else float(seconds) for seconds in seconds_of)

    def _forget(self, database: Database) -> None:
        stack, _ = self._connections.pop(database)
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            stack.close()


def _shown(database: Database) -> str:
    return database.url.render_as_string(hide_password=True)


def _no_replica(database: Database) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF205",
            what=f"{_shown(database)} is not a replica.",
            why="its lag was to be watched, and would never be seen.",
            instead="give the URL of a replica itself, not of the primary or of a proxy.",
        )
    )


def _forbidden(database: Database, error: sa.exc.DBAPIError) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF202",
            what=f"the lag of {_shown(database)} cannot be read: {error.orig}",
            instead="MySQL: GRANT REPLICATION CLIENT ON *.* TO ...; MariaDB: GRANT REPLICA MONITOR ON *.* TO ...;",
        )
    )
