"""What happened during a rehearsal: to each key, and how long each request took. Safe to use from several threads."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contraflow.rehearsal.nodes import Answer
from contraflow.rehearsal.record import Bucket, Event, Finding, FindingKind, Stall, plain
from contraflow.rehearsal.rule import Side

__all__ = ["STALLS", "History", "KeyHistory"]

STALLS = 50
"""How many of the longest waits are kept."""
STALL_MS = 100.0
"""What counts as a wait at all."""
EVENTS = 30
"""How many of the last events of a key are kept."""
FINDINGS = 20
"""How many findings of one kind in one table are kept; the rest is counted. A flood of one must not hide another."""


class KeyHistory:
    """The last things that happened to one key."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, Side | None, str, str, Mapping[str, Any], str]] = deque(maxlen=EVENTS)

    def add(
        self, at: float, release: Side | None, worker: str, action: str, values: Mapping[str, Any] | None, outcome: str
    ) -> None:
        """Remember one."""
        self._events.append((at, release, worker, action, values or {}, outcome))

    def take(self, other: KeyHistory) -> None:
        """Remember what another one does, too."""
        self._events.extend(other._events)

    def events(self) -> tuple[Event, ...]:
        """All that is remembered, in order of time."""
        return tuple(
            Event(
                at=round(at, 4),
                release=release,
                worker=worker,
                action=action,
                values={name: plain(value) for name, value in values.items()},
                outcome=outcome,
            )
            for at, release, worker, action, values, outcome in self._events
        )


@dataclass(kw_only=True)
class _Second:
    times: list[float] = field(default_factory=list)
    failed: int = 0


class History:
    """Requests, findings and counts of one rehearsal.

    :param now: seconds since it began.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._seconds: dict[tuple[int, Side], _Second] = defaultdict(_Second)
        self._stalls: list[Stall] = []
        self._findings: list[Finding] = []
        self._found: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter()

    def request(self, release: Side, sent: float, answer: Answer, what: str) -> None:
        """A node has answered a request that was sent at the moment ``sent``."""
        milliseconds = answer.seconds * 1000
        with self._lock:
            self._seconds[int(self.now()), release].times.append(milliseconds)
            self._counts["requests"] += 1
            self._counts["retried"] += len(answer.retried)
            self._counts.update(f"retried: {fault}" for fault in answer.retried)
            if milliseconds >= STALL_MS:
                stall = Stall(release=release, at=round(sent, 4), ms=round(milliseconds, 1), what=what)
                self._stalls.append(stall)
                if len(self._stalls) > 2 * STALLS:
                    self._stalls = sorted(self._stalls, key=lambda one: -one.ms)[:STALLS]

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of the counts."""
        with self._lock:
            self._counts[what] += number

    def find(
        self,
        kind: FindingKind,
        what: str,
        *,
        table: str = "",
        key: str = "",
        row: Mapping[str, Any] | None = None,
        of: KeyHistory | None = None,
    ) -> None:
        """Something is wrong; ``row`` is the key as a mapping, where it is known."""
        told = {name: plain(value) for name, value in (row or {}).items()}
        self.add(Finding(kind=kind, what=what, table=table, key=key, row=told, history=of.events() if of else ()))

    def fail(
        self, release: Side, what: str, *, table: str, key: str, row: Mapping[str, Any] | None = None, of: KeyHistory
    ) -> None:
        """A request of the release has failed that must not."""
        with self._lock:
            self._seconds[int(self.now()), release].failed += 1
        self.find("failed", what, table=table, key=key, row=row, of=of)

    def add(self, finding: Finding) -> None:
        """The same, told in full."""
        with self._lock:
            self._counts[f"findings: {finding.kind}"] += 1
            self._found[finding.kind, finding.table] += 1
            if self._found[finding.kind, finding.table] <= FINDINGS:
                self._findings.append(finding)

    @property
    def requests(self) -> int:
        """How many were answered so far."""
        with self._lock:
            return self._counts["requests"]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found wrong so far."""
        with self._lock:
            return tuple(self._findings)

    @property
    def counts(self) -> dict[str, int]:
        """All counts."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    @property
    def stalls(self) -> tuple[Stall, ...]:
        """The longest waits, in order of time."""
        with self._lock:
            longest = sorted(self._stalls, key=lambda one: -one.ms)[:STALLS]
        return tuple(sorted(longest, key=lambda one: one.at))

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """What each release answered in each second."""
        with self._lock:
            found = [
                (at, release, sorted(second.times), second.failed) for (at, release), second in self._seconds.items()
            ]
        return tuple(
            Bucket(
                at=at,
                release=release,
                requests=len(times),
                failed=failed,
                p50_ms=round(times[len(times) // 2], 2),
                p99_ms=round(times[len(times) * 99 // 100], 2),
                worst_ms=round(times[-1], 2),
            )
            for at, release, times, failed in sorted(found, key=lambda one: one[:2])
            if times
        )
