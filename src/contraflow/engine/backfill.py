"""The backfill: fills rows from before the sync, in key ranges, beside the writers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import BackfillText
from contraflow.engine.journal import Checkpoint, Entry
from contraflow.engine.report import Options, Progress
from contraflow.engine.work import Work
from contraflow.problems import Problem, ProblemError

__all__ = ["Target", "fill", "next_size"]

# What a batch grows by at most, and shrinks to at least: one lucky or unlucky batch decides little.
_GROWTH = 4.0
_SHRINK = 2.0
# How much of the rate shown is the newest batch's.
_NEWEST = 0.3
# Rows a second, below which no end is foretold: where most rows are filled already, hardly any batch writes.
_SLOWEST = 0.01
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


def fill(work: Work, entry: Entry, target: Target) -> int:
    """Fill a table until no row is left to be filled; goes on at its checkpoint. Its events are in the journal.

    :returns: the rows written by this call.
    :raises ProblemError: ``CF006`` if row locks cannot be had for as long as ``lock_patience``, ``CF012`` if rows
        stay unsynced though every one was tried.
    """
    began = work.clock()
    work.record("begun", target.title)
    rows = _Backfill(work=work, entry=entry, target=target).run()
    work.record("done", target.title, statements=rows, seconds=work.clock() - began)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Backfill:
    """The filling of one table."""

    work: Work
    entry: Entry
    target: Target

    def run(self) -> int:
        """Fill it. Returns the rows written."""
        work, target = self.work, self.target
        point = work.journal.checkpoint(work.connection, self.entry, target.name)
        size = min(point.batch or work.options.batch_size, work.options.max_batch_size)
        meter = _Meter(verb=work.verb, target=target, total=self._count(target.text.estimate))
        start, idle = point.done, 0
        while not point.finished or self._count(target.text.remaining):
            before = point.done
            point, size = self._pass(replace(point, finished=False), size, meter)
            left = self._count(target.text.remaining)
            if not left or target.text.once:
                point = replace(point, finished=True)
                with self._transaction():
                    work.journal.save_checkpoint(work.connection, self.entry, point)
                break
            # Rows that came behind the pass's back (written with triggers off, or past them) are taken by the
            # next one.
            idle = idle + 1 if point.done == before else 0
            if idle == _IDLE_PASSES:
                raise _stuck(target, left)
        work.progress(meter.report(point.done, finished=True))
        return point.done - start

    def _pass(self, point: Checkpoint, size: int, meter: _Meter) -> tuple[Checkpoint, int]:
        """One pass from the checkpoint's position to the end of the table."""
        work, target = self.work, self.target
        worked = 0.0
        while True:
            work.breathe()
            last = self._bound(point.position, size)
            if target.key and last is None:
                return replace(point, position=None, passes=point.passes + 1), size
            began = work.clock()
            point, size, wrote = self._batch(point, last, size)
            seconds = work.clock() - began
            meter.add(wrote, seconds)
            work.progress(meter.report(point.done))
            if not target.key and wrote < size:
                return replace(point, passes=point.passes + 1), size
            size = next_size(size, seconds, work.options)
            rest, worked = work.options.pause, worked + seconds
            if work.adapter.polling and worked >= work.options.latency_budget:
                # A writer that only asks now and then would find the lock taken each time.
                rest, worked = max(rest, work.adapter.polling), 0.0
            if rest:
                work.sleep(rest)

    def _bound(self, position: Sequence[Any] | None, size: int) -> tuple[Any, ...] | None:
        text = self.target.text.first_bound if position is None else self.target.text.bound
        if text is None:
            return None
        row = self.work.connection.execute(sa.text(text), {"limit": size, **_named("k", position or ())}).first()
        return None if row is None or row[0] is None else tuple(row)

    def _batch(self, point: Checkpoint, last: tuple[Any, ...] | None, size: int) -> tuple[Checkpoint, int, int]:
        """One short transaction: the rows and the checkpoint. Each try is smaller, where locks cannot be had."""
        work, target = self.work, self.target
        connection = work.connection
        first = point.position is None
        text = target.text.first_fill if first else target.text.fill
        lock = target.text.first_lock if first else target.text.lock
        tried = False

        def attempt() -> tuple[Checkpoint, int, int]:
            nonlocal tried, size, last
            if tried:
                size = max(1, size // 2)
                last = self._bound(point.position, size)
                if target.key and last is None:
                    return point, size, 0  # whoever held the last rows has deleted them
            tried = True
            parameters = {
                **_named("k", point.position or ()),
                **_named("u", last or ()),
                **({} if target.key else {"limit": size}),
            }
            with self._transaction():
                if lock is not None:
                    connection.execute(sa.text(lock), parameters)
                wrote = connection.execute(sa.text(text), parameters).rowcount
                reached = replace(point, position=last, done=point.done + wrote, batch=size)
                work.journal.save_checkpoint(connection, self.entry, reached)
            return reached, size, wrote

        return work.patiently(attempt, rows_of=target.name, again="the backfill goes on where it stands")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction of this runner, as long as it has its lock."""
        work = self.work
        with work.adapter.transaction(work.connection, work.options.lock_timeout):
            work.lease.renew(work.connection)
            yield

    def _count(self, text: str) -> int:
        return int(self.work.connection.execute(sa.text(text)).scalar() or 0)


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
        eta = (total - done) / self.rate if self.rate and self.rate >= _SLOWEST else None
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
