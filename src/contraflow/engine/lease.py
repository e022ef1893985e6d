"""The single-runner lock: one row of the journal with an owner and an expiry, alike on every server.

Advisory locks are not to be had everywhere (CockroachDB, poolers in transaction mode), and a row survives
what a session does not: it tells who holds it. The row's expiry is by the server's clock. A thread renews it
through a connection of its own; a runner that cannot renew stops before its next statement, at the latest
when its lease runs out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from contraflow.dialects.base import LockTimeout
from contraflow.engine.connect import Database
from contraflow.engine.journal import Tables
from contraflow.problems import Problem, ProblemError

__all__ = ["PATIENCE", "Holder", "Identity", "Lease"]

PATIENCE = 10.0
"""How long one try waits for the journal's own rows, in seconds, unless the runner has less patience. Only runners and
their heartbeats write them; but SQLite knows locks on whole databases only, and somebody else may hold that.
"""

# Owners of this very process that are at work. A row whose owner is not among them, though it names this
# process, is a leftover.
_active: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A process, so that another one on the same machine can tell whether it still lives. Empty strings where
    unknown.
    """

    host: str
    boot: str
    """Changes with every start of the machine."""
    namespace: str
    """The PID namespace: containers on one machine number their processes apart."""
    pid: int
    started: str
    """When the process began, in the system's own unit: process numbers are used again."""

    @classmethod
    def mine(cls) -> Identity:
        """The identity of this process."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname()[:255],
            boot=_read("/proc/sys/kernel/random/boot_id"),
            namespace=_namespace(),
            pid=pid,
            started=_started(pid) or "",
        )

    def is_dead(self) -> bool:
        """Whether the process is certainly gone. False where that cannot be known: another machine, or no
        /proc.
        """
        if not self.boot or not self.namespace or not self.started:
            return False
        if (self.boot, self.namespace) != (_read("/proc/sys/kernel/random/boot_id"), _namespace()):
            return False
        return _started(self.pid) != self.started


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """The start time of a living process (field 22 of /proc/PID/stat, proc(5)); None if there is none, or
    only a zombie.
    """
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text.rpartition(")")[2].split()  # the program's name may hold spaces and parentheses
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds the lock."""

    owner: str
    verb: str
    expires: float
    acquired: float
    identity: Identity

    def __str__(self) -> str:
        return f"process {self.identity.pid} on {self.identity.host} ({self.verb})"


class Lease:
    """The lock, as one runner takes and keeps it."""

    def __init__(self, database: Database, tables: Tables, *, duration: float, patience: float = PATIENCE) -> None:
        self.owner = uuid.uuid4().hex
        self._patience = min(patience, PATIENCE)
        self._database = database
        self._table = tables.lease
        self._duration = duration
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._renewed = 0.0

    # -- the row ---

    def holder(self, connection: sa.Connection) -> Holder | None:
        """Who holds the lock at the moment, by the server's clock; None if nobody does (a dead process does
        not).
        """
        holder = self._row(connection)
        if holder is None or self._is_free(holder, self._database.adapter.server_time(connection)):
            return None
        return holder

    def _row(self, connection: sa.Connection) -> Holder | None:
        row = connection.execute(sa.select(self._table).where(self._table.c.id == 1)).mappings().first()
        if row is None or row["owner"] is None:
            return None
        return Holder(
            owner=row["owner"],
            verb=row["verb"],
            expires=row["expires"],
            acquired=row["acquired"],
            identity=Identity(
                host=row["host"],
                boot=row["boot"],
                namespace=row["namespace"],
                pid=row["pid"],
                started=row["started"],
            ),
        )

    def _is_free(self, holder: Holder, now: float) -> bool:
        if holder.expires < now or holder.identity.is_dead():
            return True
        return holder.identity == Identity.mine() and holder.owner not in _active

    def _prepare(self, connection: sa.Connection) -> None:
        """Make sure that the row stands."""
        table = self._table
        if connection.execute(sa.select(table.c.id).where(table.c.id == 1)).first() is not None:
            return
        # Another runner's insert of the same row is as good as this one.
        with contextlib.suppress(sa.exc.IntegrityError), self._database.adapter.transaction(connection, self._patience):
            connection.execute(
                sa.insert(table).values(
                    id=1, owner=None, expires=0, acquired=0, verb="", host="", boot="", namespace="", pid=0, started=""
                )
            )

    def _take(self, connection: sa.Connection, verb: str) -> None:
        table = self._table
        holder = self._row(connection)
        now = self._database.adapter.server_time(connection)
        if holder is not None and not self._is_free(holder, now):
            raise _held(holder, now)
        mine = Identity.mine()
        unchanged = table.c.owner.is_(None) if holder is None else table.c.owner == holder.owner
        if holder is not None:
            # An expired holder that renewed itself in between has the lock again.
            unchanged &= table.c.expires == holder.expires
        taken = connection.execute(
            sa.update(table)
            .where(table.c.id == 1, unchanged)
            .values(
                owner=self.owner,
                expires=now + self._duration,
                acquired=now,
                verb=verb,
                host=mine.host,
                boot=mine.boot,
                namespace=mine.namespace,
                pid=mine.pid,
                started=mine.started,
            )
        ).rowcount
        if not taken:
            winner = self._row(connection)
            raise _held(winner, now) if winner else _lost()

    def renew(self, connection: sa.Connection) -> None:
        """Extend the lease, inside the caller's transaction if there is one. Raises ``CF001`` if it is no
        longer this runner's.
        """
        began = time.monotonic()
        now = self._database.adapter.server_time(connection)
        table = self._table
        kept = connection.execute(
            sa.update(table).where(table.c.id == 1, table.c.owner == self.owner).values(expires=now + self._duration)
        ).rowcount
        if not kept:
            self._lost.set()
            raise _lost()
        self._renewed = began

    def check(self, connection: sa.Connection) -> None:
        """Raise ``CF001`` if the lease was lost, or could not be renewed in time.

        Sends nothing, unless the heartbeat is late: it cannot write while a long statement of this very runner holds
        SQLite's one lock. Then the lock is this runner's still if nobody else took it.
        """
        if self._lost.is_set():
            raise _lost()
        if time.monotonic() - self._renewed <= self._duration:
            return
        try:
            self.renew(connection)
        except (sa.exc.DBAPIError, LockTimeout) as error:
            if not self._database.adapter.is_lock_timeout(error):
                raise
            # Whoever holds the lock row's lock may be taking it. Where DDL is transactional, each change renews the
            # lease in its own transaction, and waits for that.
            if not self._database.adapter.transactional_ddl:
                raise _lost() from error

    # -- keeping it ---

    @contextlib.contextmanager
    def held(self, connection: sa.Connection, verb: str) -> Iterator[None]:
        """Hold the lock while the block runs. Raises ``CF001`` naming the holder if another runner has it.

        On an error the lock is given back too; it is left to run out only where even that cannot be sent. Inside of
        such a block it is held already: another one only makes sure of that.
        """
        if self.owner in _active:
            self.check(connection)
            yield
            return
        self._lost.clear()
        self._stop.clear()
        _active.add(self.owner)
        try:
            with self._answered(connection):
                self._prepare(connection)
                began = time.monotonic()
                with self._database.adapter.transaction(connection, self._patience):
                    self._take(connection, verb)
            self._renewed = began
            heart = threading.Thread(target=self._beat, name="contraflow-lease", daemon=True)
            heart.start()
            try:
                yield
            finally:
                self._stop.set()
                heart.join(self._duration)
                self._give_back(connection)
        finally:
            _active.discard(self.owner)

    @contextlib.contextmanager
    def _answered(self, connection: sa.Connection) -> Iterator[None]:
        """If the row itself is locked, tell by whom: a runner in the midst of a long statement (SQLite), or somebody
        else (``CF006``).
        """
        try:
            yield
        except (sa.exc.DBAPIError, LockTimeout) as error:
            if not self._database.adapter.is_lock_timeout(error):
                raise
            holder = self._row(connection)
            if holder is None or holder.owner == self.owner or holder.identity.is_dead():
                raise
            raise _held(holder, self._database.adapter.server_time(connection)) from error

    def _give_back(self, connection: sa.Connection) -> None:
        table = self._table
        with (
            contextlib.suppress(sa.exc.SQLAlchemyError, LockTimeout),
            self._database.adapter.transaction(connection, self._patience),
        ):
            connection.execute(
                sa.update(table).where(table.c.id == 1, table.c.owner == self.owner).values(owner=None, expires=0)
            )

    def _beat(self) -> None:
        while not self._stop.wait(self._duration / 4):
            try:
                with self._database.connect() as connection:
                    while True:
                        self.renew(connection)
                        if self._stop.wait(self._duration / 4):
                            return
            except ProblemError:
                if self._lost.is_set():
                    return
            except (sa.exc.SQLAlchemyError, LockTimeout):
                # The server may come back before the lease runs out; check() stops the runner if it does not.
                continue


def _held(holder: Holder, now: float) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF001",
            what=f"another runner is at work: {holder}.",
            why="two runners would change the same tables at once.",
            instead=(
                "wait until it is done; if its machine is gone, the lock is free "
                f"{max(0.0, holder.expires - now):.0f} seconds from now."
            )
            if holder.expires > now
            else "wait until it is done: it is inside of a long statement.",
        )
    )


def _lost() -> ProblemError:
    return ProblemError(
        Problem(
            code="CF001",
            what="this runner lost the lock before its next statement.",
            why="it could not reach the server for as long as its lease lasts, or another runner took over.",
            instead="run the same command again: it goes on where the journal stands.",
        )
    )
