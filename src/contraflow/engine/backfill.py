"""The backfill: fills rows from before the sync, in key ranges, beside the writers."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Adapter, BackfillText, LockTimeout
from contraflow.engine.journal import Checkpoint, Entry, Journal
from contraflow.engine.report import Options, Progress
from contraflow.problems import Problem, ProblemError

__all__ = ["Backfiller", "Target", "next_size", "rows_locked"]

# What a batch grows by at most, and shrinks to at least: one lucky or unlucky batch decides little.
_GROWTH = 4.0
_SHRINK = 2.0
# How much of the rate shown is the newest batch's.
_NEWEST = 0.3
# Passes that find rows left but write none, before the backfill gives up.
_IDLE_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Target:
    """One table to fill."""

    name: str
    """The table as people write it, with its schema where it has one: the checkpoint's key."""
    title: str
    key: tuple[str, ...]
    text: BackfillText

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return {"name": self.name, "title": self.title, "key": list(self.key), "text": dataclasses.asdict(self.text)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Target:
        """The value that :meth:`as_dict` was called on."""
        return cls(name=data["name"], title=data["title"], key=tuple(data["key"]), text=BackfillText(**data["text"]))


def next_size(size: int, seconds: float, options: Options) -> int:
    """The size of the next batch, after one of ``size`` rows took ``seconds``."""
    wanted = size * (options.latency_budget / seconds if seconds > 0 else _GROWTH)
    return max(1, min(options.max_batch_size, round(min(size * _GROWTH, max(size / _SHRINK, wanted)))))


@dataclass(kw_only=True)
class Backfiller:
    """Fills one table after the other, for one runner."""

    verb: str
    adapter: Adapter
    journal: Journal
    options: Options
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    progress: Callable[[Progress], None]
    pause_point: Callable[[], None]
    """Called between two batches; raises where the runner has to stop."""
    fence: Callable[[sa.Connection], None]
    """Called inside each batch's transaction; raises if this runner lost its lock."""

    def run(self, connection: sa.Connection, entry: Entry, target: Target) -> int:
        """Fill the table until no row is left to be filled; goes on at its checkpoint. Returns the rows
        written by this call.

        Raises ``CF006`` if row locks cannot be had for as long as ``lock_patience``, ``CF012`` if rows stay
        unsynced though every one was tried.
        """
        point = self.journal.checkpoint(connection, entry, target.name)
        size = min(point.batch or self.options.batch_size, self.options.max_batch_size)
        total = self._count(connection, target.text.estimate)
        meter = _Meter(verb=self.verb, target=target, total=total)
        start, idle = point.done, 0
        while not point.finished or self._count(connection, target.text.remaining):
            before = point.done
            point, size = self._pass(connection, entry, replace(point, finished=False), target, size, meter)
            left = self._count(connection, target.text.remaining)
            if not left or target.text.once:
                point = replace(point, finished=True)
                with self.adapter.transaction(connection, self.options.lock_timeout):
                    self.fence(connection)
                    self.journal.save_checkpoint(connection, entry, point)
                break
            # Rows that came behind the pass's back (written with triggers off, or past them) are taken by the
            # next one.
            idle = idle + 1 if point.done == before else 0
            if idle == _IDLE_PASSES:
                raise _stuck(target, left)
        self.progress(meter.report(point.done, finished=True))
        return point.done - start

    def _pass(
        self, connection: sa.Connection, entry: Entry, point: Checkpoint, target: Target, size: int, meter: _Meter
    ) -> tuple[Checkpoint, int]:
        """One pass from the checkpoint's position to the end of the table."""
        worked = 0.0
        while True:
            self.pause_point()
            last = self._bound(connection, target, point.position, size)
            if target.key and last is None:
                return replace(point, position=None, passes=point.passes + 1), size
            began = self.clock()
            point, size, wrote = self._batch(connection, entry, point, target, last, size)
            seconds = self.clock() - began
            meter.add(wrote, seconds)
            self.progress(meter.report(point.done))
            if not target.key and wrote < size:
                return replace(point, passes=point.passes + 1), size
            size = next_size(size, seconds, self.options)
            rest, worked = self.options.pause, worked + seconds
            if self.adapter.polling and worked >= self.options.latency_budget:
                # A writer that only asks now and then would find the lock taken each time.
                rest, worked = max(rest, self.adapter.polling), 0.0
            if rest:
                self.sleep(rest)

    def _bound(
        self, connection: sa.Connection, target: Target, position: Sequence[Any] | None, size: int
    ) -> tuple[Any, ...] | None:
        text = target.text.first_bound if position is None else target.text.bound
        if text is None:
            return None
        row = connection.execute(sa.text(text), {"limit": size, **_named("k", position or ())}).first()
        return None if row is None or row[0] is None else tuple(row)

    def _batch(
        self,
        connection: sa.Connection,
        entry: Entry,
        point: Checkpoint,
        target: Target,
        last: tuple[Any, ...] | None,
        size: int,
    ) -> tuple[Checkpoint, int, int]:
        """One short transaction: the rows and the checkpoint. Tried again, smaller, where locks cannot be
        had.
        """
        first = point.position is None
        text = target.text.first_fill if first else target.text.fill
        lock = target.text.first_lock if first else target.text.lock
        began = self.clock()
        rest = self.options.lock_timeout
        while True:
            parameters = {
                **_named("k", point.position or ()),
                **_named("u", last or ()),
                **({} if target.key else {"limit": size}),
            }
            try:
                with self.adapter.transaction(connection, self.options.lock_timeout):
                    self.fence(connection)
                    if lock is not None:
                        connection.execute(sa.text(lock), parameters)
                    wrote = connection.execute(sa.text(text), parameters).rowcount
                    reached = replace(point, position=last, done=point.done + wrote, batch=size)
                    self.journal.save_checkpoint(connection, entry, reached)
            except (LockTimeout, sa.exc.DBAPIError) as error:
                if not isinstance(error, LockTimeout) and not self.adapter.is_lock_timeout(error):
                    raise
                if self.clock() - began >= self.options.lock_patience:
                    raise rows_locked(
                        target.name, self.options, again="the backfill goes on where it stands"
                    ) from error
            else:
                return reached, size, wrote
            self.pause_point()
            self.sleep(rest * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            rest = min(rest * 2, self.options.lock_timeout * 8)
            size = max(1, size // 2)
            last = self._bound(connection, target, point.position, size)

    def _count(self, connection: sa.Connection, text: str) -> int:
        return int(connection.execute(sa.text(text)).scalar() or 0)


def _named(letter: str, values: Sequence[Any]) -> dict[str, Any]:
    return {f"{letter}{place}": value for place, value in enumerate(values)}


@dataclass(kw_only=True)
class _Meter:
    """Rate and ETA of one table."""

    verb: str
    target: Target
    total: int
    rate: float | None = None

    def add(self, rows: int, seconds: float) -> None:
        if seconds > 0:
            now = rows / seconds
            self.rate = now if self.rate is None else self.rate + _NEWEST * (now - self.rate)

    def report(self, done: int, *, finished: bool = False) -> Progress:
        total = done if finished else max(self.total, done)
        eta = (total - done) / self.rate if self.rate else None
        return Progress(
            phase=self.verb,
            title=self.target.title,
            done=done,
            total=total,
            rate=self.rate,
            eta=0.0 if finished else eta,
            finished=finished,
        )


def _stuck(target: Target, left: int) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF012",
            what=f"{left} rows of {target.name} stay unsynced, though the backfill tried every row.",
            why="something takes the backfill's writes back, for example another trigger on the table.",
            instead=f"look at the triggers of {target.name}, then run: contraflow migrate",
        )
    )


def rows_locked(name: str, options: Options, *, again: str) -> ProblemError:
    """``CF006``: rows of the table ``name`` could not be had. ``again`` says what the same command then does."""
    return ProblemError(
        Problem(
            code="CF006",
            what=f"rows of {name} stayed locked for {options.lock_patience:g} seconds.",
            why="a transaction that has written to the table stays open.",
            instead=f"end that transaction, then run the same command again: {again}.",
        )
    )
