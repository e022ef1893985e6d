"""What the page and the terminal both say of a record: totals, and numbers as a person writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contraflow.rehearsal.record import FaultRecord, Phase, Record, Release

__all__ = [
    "RELEASES",
    "TITLES",
    "Served",
    "clock",
    "in_order",
    "longest_wait",
    "served",
    "server",
    "total_failed",
    "total_requests",
    "wait",
]

RELEASES: tuple[Release, Release] = ("old", "new")

TITLES = {"passed": "Passed", "failed": "Failed", "error": "Not carried out"}
"""The verdicts in words."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What one release's nodes answered in the seconds nearest to a phase."""

    per_second: float
    worst_ms: float


def served(record: Record, phase: Phase, release: Release) -> Served | None:
    """What ``release`` answered meanwhile; None if it answered nothing.

    A second belongs to the phase that its middle lies in; a phase without any has the second around its own middle.
    """
    middle = int((phase.began + phase.ended) / 2)
    seconds = {at for at in range(int(phase.began), int(phase.ended) + 1) if phase.began <= at + 0.5 < phase.ended}
    found = [
        bucket
        for bucket in record.buckets
        if bucket.release == release and bucket.requests and bucket.at in (seconds or {middle})
    ]
    if not found:
        return None
    return Served(
        per_second=sum(bucket.requests for bucket in found) / len(found),
        worst_ms=max(bucket.worst_ms for bucket in found),
    )


def total_requests(record: Record, release: Release | None = None) -> int:
    """Requests that were answered, well or badly."""
    return sum(bucket.requests for bucket in record.buckets if release in {None, bucket.release})


def total_failed(record: Record, release: Release | None = None) -> int:
    """Requests that failed."""
    return sum(bucket.failed for bucket in record.buckets if release in {None, bucket.release})


def longest_wait(record: Record, release: Release | None = None) -> float:
    """The longest that any request took, in milliseconds."""
    waits = [bucket.worst_ms for bucket in record.buckets if release in {None, bucket.release}]
    waits += [stall.ms for stall in record.stalls if release in {None, stall.release}]
    return max(waits, default=0.0)


def in_order(faults: Sequence[FaultRecord]) -> list[FaultRecord]:
    """Faults as they are numbered: by when they struck. (They are noted when they are over.)"""
    return sorted(faults, key=lambda fault: fault.at)


def server(record: Record) -> str:
    """The server's kind and version."""
    return f"{record.server} {record.server_version}".rstrip()


def wait(ms: float) -> str:
    """A span of time, from fractions of a millisecond to minutes."""
    if ms < 10:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 1000 else clock(ms / 1000)


def clock(seconds: float) -> str:
    """A moment or a span of a rehearsal."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"
