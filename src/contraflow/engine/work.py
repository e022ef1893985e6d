"""One verb at work: its connection, its lock, the upgrade's row in the journal, and how a block is carried
out.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import sqlalchemy as sa

from contraflow.dialects.base import Adapter, Found, LockTimeout, NotUnique, Statement, Violated
from contraflow.engine.connect import locked
from contraflow.engine.journal import Entry, Event, Journal
from contraflow.engine.lease import PATIENCE, Lease
from contraflow.engine.report import Options, Progress, State
from contraflow.engine.verification import find_alike, find_violations, refuse
from contraflow.problems import Interrupted, Problem, ProblemError
from contraflow.steps import (
    Block,
    BuildConstraint,
    BuildIndex,
    ChangeKey,
    DropConstraints,
    EnforceNotNull,
    Hold,
    Online,
)

__all__ = ["Work"]

_T = TypeVar("_T")

# A lock that was not had is tried for again after a rest, in lock timeouts: long enough for the writers that
# queued to drain.
_REST = (1.0, 3.0)
_ASKS_AGAIN = 1.0
"""Seconds between two looks at the replicas."""
_LAG = "wait for replication"
_INSISTS_AFTER = 5
"""Tries of an online step that writers made fail, before they have to wait for it."""
_MENDS = 5
"""Times that a block is tried again after a flaw of the server was mended: an application's own trigger may be broken
for good."""
_MENDED = "mend triggers that the server lost"
_WAITS = "waiting for a lock"
_LONGEST_REST = 2.0  # seconds, unless the lock timeout itself is longer


@dataclass(kw_only=True)
class Work:
    """What the verbs of a runner share while one of them runs."""

    verb: str
    adapter: Adapter
    connection: sa.Connection
    journal: Journal
    lease: Lease
    options: Options
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    lag: Callable[[], float] = lambda: 0.0
    """How far replicas are behind, in seconds."""
    asked: float = float("-inf")
    entry: Entry | None = None
    offset: float = 0.0
    """The server's clock less this runner's."""

    # -- the journal ---

    def now(self) -> float:
        """The server's time, as seconds since 1970, without asking it again."""
        return self.clock() + self.offset

    @property
    def current(self) -> Entry:
        """The upgrade at work."""
        if self.entry is None:
            raise RuntimeError("no upgrade is open")
        return self.entry

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction for the journal's rows, with the lock of the runner confirmed in it.

        Raises ``CF006`` if it cannot be had for ``lock_patience`` seconds: nobody but runners and their heartbeats
        writes these rows, but on SQLite every writer of the database is in the way.
        """
        began = self.clock()
        entered = False
        while not entered:
            try:
                with self.adapter.transaction(self.connection, min(PATIENCE, self.options.lock_patience)):
                    self.lease.renew(self.connection)
                    entered = True
                    yield
            except (LockTimeout, sa.exc.DBAPIError) as error:
                if entered or not self.adapter.is_lock_timeout(error):
                    raise
                if self.clock() - began >= self.options.lock_patience:
                    raise locked(self.options.lock_patience) from error
                self.pause_point()
                self.sleep(self._rest())

    def begin(self, entry: Entry) -> None:
        """Write a new upgrade's row."""
        with self.writing():
            self.entry = self.journal.begin(self.connection, entry)
            self._record("begun", self.verb)

    def start(self, **changes: Any) -> None:
        """The verb begins: change the upgrade's row, and say so."""
        entry = replace(self.current, **changes, updated=self.now())
        with self.writing():
            self.journal.save(self.connection, entry)
            self._record("begun", self.verb)
        self.entry = entry

    def save(self, **changes: Any) -> Entry:
        """Change the upgrade's row. What is done once more (a state, a pending verb) is written once."""
        entry = replace(self.current, **changes)
        if entry != self.entry:
            entry = replace(entry, updated=self.now())
            with self.writing():
                self.journal.save(self.connection, entry)
            self.entry = entry
        return entry

    def reach(self, state: State) -> None:
        """The verb is done: write the state it led to, and that the upgrade's data phases start anew where it
        is over.
        """
        entry = replace(self.current, state=state, pending=None, updated=self.now())
        with self.writing():
            self.journal.save(self.connection, entry)
            if not entry.open:
                self.journal.forget_checkpoints(self.connection, entry)
            self._record("done", self.verb)
        self.entry = entry

    def record(self, kind: str, title: str, **values: Any) -> None:
        """Append an event, in a transaction of its own."""
        with self.writing():
            self._record(kind, title, **values)

    def _record(self, kind: str, title: str, **values: Any) -> None:
        event = Event(verb=self.verb, kind=kind, title=title, at=self.now(), **values)
        self.journal.record(self.connection, self.current, event)

    def tell(self, title: str, *, tries: int = 0, message: str = "", finished: bool = False) -> None:
        """Report progress on a block without rows."""
        self.progress(Progress(phase=self.verb, title=title, done=tries, message=message, finished=finished))

    # -- stopping ---

    def pause_point(self) -> None:
        """Called where it is safe to stop. Raises Interrupted if asked to, ``CF001`` if the lock was lost."""
        if self.should_stop():
            raise Interrupted(f"stopped during {self.verb}; the same command goes on where it stands")
        self.lease.check(self.connection)

    def breathe(self) -> None:
        """Called between two batches: a pause point, at which replicas that are too far behind are waited for."""
        self.pause_point()
        if self.clock() - self.asked < _ASKS_AGAIN:
            return
        waited = False
        while (lag := self.lag()) > self.options.max_lag:
            behind = "does not answer or replicate" if lag == float("inf") else f"is {lag:.0f} s behind"
            self.tell(_LAG, message=f"a replica {behind}")
            waited = True
            self.sleep(_ASKS_AGAIN)
            self.pause_point()
        self.asked = self.clock()
        if waited:
            self.tell(_LAG, finished=True)

    # -- blocks ---

    def find(self, block: Block) -> Found:
        """What stands on the block's table now."""
        return self.adapter.find(self.connection, block.table, block.schema)

    def run(self, block: Block) -> None:
        """Carry out a block of DDL: nothing if it is done already, else whole, tried again while its locks
        cannot be had.

        Raises ``CF006`` after ``lock_patience`` seconds, ``CF014`` or ``CF016`` where rows keep an index or a
        constraint from being made.
        """
        self.pause_point()
        proof = block.step if isinstance(block, Online) and isinstance(block.step, BuildConstraint) else None
        if isinstance(block, Online) and self.adapter.in_hold(block.step):
            block = Hold(title=block.title, table=block.table, schema=block.schema, steps=(block.step,))
        if self._statements(block):
            self._carry_out(block)
        if proof is not None and not self.adapter.proves_constraints:
            # Again, where it was made by an earlier run: that one may have been killed before it looked.
            self._give_up_on_violations(block, proof)

    def _carry_out(self, block: Block) -> None:
        self.record("begun", block.title)
        self.tell(block.title)
        began = self.clock()
        tally = _Tally()
        while True:
            self.pause_point()
            tally.tries += 1
            tried = self.clock()
            try:
                if isinstance(block, Hold):
                    self._hold(block, tally, began, tried)
                else:
                    self._online(block, tally, began)
                break
            except (LockTimeout, sa.exc.DBAPIError) as error:
                why = self._worth_another_try(error, tally, (block.schema, block.table))
                if not why:
                    raise
                tally.alike += isinstance(error, NotUnique)
                tally.stall = max(tally.stall, self.clock() - tried)
                if self.clock() - began >= self.options.lock_patience:
                    self.record("failed", block.title, tries=tally.tries, stall=tally.stall, detail=str(error))
                    raise _no_lock(block, self.options) from error
            self.tell(block.title, tries=tally.tries, message=why)
            self.sleep(self._rest())
        self.tell(block.title, tries=tally.tries, finished=True)

    def patiently(self, attempt: Callable[[], _T], *, rows_of: str, again: str) -> _T:
        """Run ``attempt``, a short transaction that writes rows, until it has their locks, after longer and longer
        rests; what it returns.

        ``again`` says what the same command goes on with. Raises ``CF006`` after ``lock_patience`` seconds.
        """
        timeout = self.options.lock_timeout
        began, rest = self.clock(), timeout
        tally = _Tally()
        while True:
            try:
                return attempt()
            except (LockTimeout, sa.exc.DBAPIError) as error:
                if not self._worth_another_try(error, tally):
                    raise
                if self.clock() - began >= self.options.lock_patience:
                    raise _rows_locked(rows_of, self.options, again) from error
            self.pause_point()
            self.sleep(rest * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            rest = min(rest * 2, timeout * 8)

    def _worth_another_try(self, error: Exception, tally: _Tally, table: tuple[str | None, str] | None = None) -> str:
        """What is waited for, or was mended, when a try met the error; empty where another one cannot help."""
        if self.adapter.is_lock_timeout(error):
            return _WAITS
        if tally.mends >= _MENDS:
            return ""
        try:
            mended = self.adapter.heal(self.connection, error, self.options.lock_timeout, table)
        except (LockTimeout, sa.exc.DBAPIError) as failed:
            if not self.adapter.is_lock_timeout(failed):
                raise
            return _WAITS
        if mended:
            tally.mends += 1
            self.tell(_MENDED, tries=tally.mends, message=_first_line(error), finished=True)
        return _MENDED if mended else ""

    def _rest(self) -> float:
        timeout = self.options.lock_timeout
        return min(timeout * random.uniform(*_REST), max(timeout, _LONGEST_REST))  # noqa: S311 - not a secret

    def _statements(self, block: Block) -> list[Statement]:
        found = self.find(block)
        return self.adapter.hold(block, found) if isinstance(block, Hold) else self.adapter.online(block, found)

    def _hold(self, block: Hold, tally: _Tally, began: float, tried: float) -> None:
        """One try of a hold.

        Where DDL is transactional the lock of the runner is confirmed, the table looked at and the journal
        written inside the hold: nothing can come between. Elsewhere other tables are out of reach inside
        (LOCK TABLES), and a look would only lengthen it.
        """
        if self.adapter.transactional_ddl:
            with self.adapter.holding(self.connection, block, self.options.lock_timeout):
                self.lease.renew(self.connection)
                statements = self._statements(block)
                self.adapter.execute(self.connection, statements)
                tally.stall = max(tally.stall, self.clock() - tried)
                self._done(block, statements, tally, began)
            return
        self.lease.renew(self.connection)
        statements = self._statements(block)
        tried = self.clock()
        if statements:
            with self.adapter.holding(self.connection, block, self.options.lock_timeout):
                self.adapter.execute(self.connection, statements)
        tally.stall = max(tally.stall, self.clock() - tried)
        with self.writing():
            self._done(block, statements, tally, began)

    def _online(self, block: Online, tally: _Tally, began: float) -> None:
        self.lease.renew(self.connection)
        statements = self._statements(block)
        if tally.alike >= _INSISTS_AFTER:
            statements = self.adapter.insisting(statements)
        patient = self.adapter.waits_beside_writers(block.step)
        timeout = self.options.lock_patience if patient else self.options.lock_timeout
        try:
            with self.adapter.running_online(self.connection, timeout):
                self.adapter.execute(self.connection, statements)
        except Violated as error:
            if isinstance(block.step, BuildConstraint):
                self._give_up_on_violations(block, block.step)
            if isinstance(block.step, EnforceNotNull):
                # A row holds a NULL. What is left of the proof would go on to refuse such rows.
                with self.adapter.running_online(self.connection, timeout):
                    self.adapter.execute(self.connection, self.adapter.discard(block.step, self.find(block)))
                raise error.__cause__ or error from None
            raise
        except NotUnique:
            if isinstance(block.step, (BuildIndex, ChangeKey)):
                where: dict[str, Any] = {"table": block.table, "schema": block.schema}
                self._give_up_on_alike_rows(block, BuildIndex(**where, index=block.step.index), timeout)
            raise
        with self.writing():
            self._done(block, statements, tally, began)

    def _give_up_on_alike_rows(self, block: Online, step: BuildIndex, timeout: float) -> None:
        """Raise ``CF014`` if the rows show why a unique index was not built; return if it may have been a passing one.

        Nothing is left: what a failed build leaves on PostgreSQL would go on to refuse rows.
        """
        with self.adapter.running_online(self.connection, timeout):
            self.adapter.execute(self.connection, self.adapter.discard(step, self.find(block)))
        if alike := find_alike(self.connection, self.adapter, step, show=3):
            self.record("failed", block.title, detail=alike.title)
            raise refuse([alike], upgrade=self.current.id, verb=self.verb)

    def _give_up_on_violations(self, block: Block, step: BuildConstraint) -> None:
        """Drop the constraint and raise ``CF016`` if rows violate it; return if none does.

        It must not stand: from the moment it was made it refuses writes of such rows.
        """
        violations = find_violations(
            self.connection, self.adapter, step.constraint, table=step.table, schema=step.schema, show=3
        )
        if violations is None:
            return
        where: dict[str, Any] = {"table": step.table, "schema": step.schema}
        drop = DropConstraints(**where, constraints=(step.constraint,))
        self.run(Hold(title=f"take back {step.constraint.title.removeprefix('the ')}", steps=(drop,), **where))
        self.record("failed", block.title, detail=violations.title)
        raise refuse([violations], upgrade=self.current.id, verb=self.verb)

    def _done(self, block: Block, statements: list[Statement], tally: _Tally, began: float) -> None:
        self._record(
            "done",
            block.title,
            statements=len(statements),
            tries=tally.tries,
            seconds=self.clock() - began,
            stall=tally.stall if isinstance(block, Hold) else None,
        )


@dataclass(kw_only=True)
class _Tally:
    """What the tries of one block came to."""

    tries: int = 0
    alike: int = 0
    """Those that ended because two rows were alike in passing."""
    mends: int = 0
    """Those that met a flaw of the server, which was mended."""
    stall: float = 0.0
    """The longest one try of a hold waited and held, in seconds."""


def _first_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return str(cause).partition("\n")[0]


def _no_lock(block: Block, options: Options) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF006",
            what=f"the lock to {block.title} could not be had within {options.lock_patience:g} seconds.",
            why="a transaction that uses the table stays open; each try steps back, so that writers go on.",
            instead="end that transaction, then run the same command again.",
        )
    )


def _rows_locked(name: str, options: Options, again: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF006",
            what=f"rows of {name} stayed locked for {options.lock_patience:g} seconds.",
            why="a transaction that has written to the table stays open.",
            instead=f"end that transaction, then run the same command again: {again}.",
        )
    )
