"""The record of one rehearsal: everything that its reports show. Pure values that survive JSON unchanged.

Every moment is a number of seconds since the rehearsal began, every span of time in ``*_ms`` milliseconds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = [
    "FORMAT",
    "Backfilled",
    "Bucket",
    "Event",
    "FaultRecord",
    "Finding",
    "FindingKind",
    "Lock",
    "Phase",
    "Plain",
    "Record",
    "Release",
    "Stall",
    "Try",
    "Verdict",
    "plain",
]

FORMAT = 1
"""The version of `Record.as_dict`'s form. It grows when a reader of the older form would misunderstand the newer one;
a key that is only added does not change it.
"""

Release = Literal["old", "new"]
Verdict = Literal["passed", "failed", "error"]
"""``error``: the rehearsal itself could not be carried out, so nothing was proved either way."""

FindingKind = Literal["lost", "doubled", "alien read", "differs", "failed", "stale", "structure"]
"""What can be found wrong.

``lost``: an acknowledged write is gone. ``doubled``: it was done twice. ``alien read``: a value was read that nobody
wrote and that is not the image of one that was. ``differs``: at a check, a release's view is not the model's.
``failed``: a statement failed that does not fail without the upgrade. ``stale``: a value was read that the reader
could no longer see. ``structure``: the schema left behind is not the one that was promised.
"""

Plain: TypeAlias = "str | int | float | bool | None"


def plain(value: object) -> Plain:
    """``value`` as JSON has it, for a person to read: bytes in hexadecimal, everything else JSON lacks as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "0x" + bytes(value).hex()
    return str(value)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of the rehearsal: a verb of the upgrade, or a time in which nodes only worked."""

    name: str
    """``expand``, ``migrate``, ``verify``, ``contract`` for the verbs; anything else in words."""
    began: float
    ended: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """What one release's nodes answered within one second."""

    at: int
    """The second, counted from the beginning: 0 is the first."""
    release: Release
    requests: int
    """Those that ended within this second, well or badly."""
    failed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    worst_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stall:
    """A request that had to wait far longer than is usual."""

    release: Release
    at: float
    """When it was sent."""
    ms: float
    phase: str = ""
    """The `Phase` under way when it was sent."""
    what: str = ""
    """The request, in words."""


@dataclass(frozen=True, kw_only=True)
class FaultRecord:
    """One fault that was struck."""

    kind: str
    """The word that ``--faults`` takes."""
    title: str
    """The same for a person."""
    at: float
    until: float | None = None
    """When it was over; None for one that lasts no time, such as a kill."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Backfilled:
    """How far the backfill of one table was at one moment."""

    at: float
    table: str
    done: int
    total: int | None = None
    """Rows to do, as far as known then; an estimate."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock that a statement of the upgrade waited for."""

    at: float
    statement: str
    ms: float
    """How long it waited, whether it got the lock or stepped back."""
    granted: bool = True
    """False if it stepped back, to try again."""


@dataclass(frozen=True, kw_only=True)
class Try:
    """One start of the process that runs the upgrade."""

    verb: str
    at: float
    seconds: float
    outcome: str
    """``done``, or in words what ended it: ``killed at statement 7``."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to a key."""

    at: float
    release: Release | None
    """None for what neither release's nodes did: a fault, a phase, the check at the end."""
    worker: str = ""
    action: str
    """``insert``, ``update``, ``delete``, ``read``, or anything else in a word or two."""
    values: Mapping[str, Plain] = field(default_factory=dict)
    """Column to value, as written or read, in that release's own shape."""
    outcome: str = "ok"
    """``ok``, ``unknown`` (the connection died during COMMIT), or the error."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found wrong: a counter-example to zero downtime."""

    kind: FindingKind
    what: str
    """One sentence that says what was expected and what was found instead."""
    table: str = ""
    key: str = ""
    """The row's key as a person writes it, ``id=17``; empty if it is not about one row."""
    row: Mapping[str, Plain] = field(default_factory=dict)
    """The same as column to value; empty where the key is not known, or in records of earlier versions."""
    history: tuple[Event, ...] = ()
    """Everything that happened to the key, in order of time."""
    reproduce: str | None = None
    """A script that shows the same, None if there is none."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One rehearsal on one server."""

    started: dt.datetime
    """When it began, with its time zone."""
    seconds: float
    """How long it took; the end of the axis of time."""
    seed: int
    command: str
    """What to type to have the same again."""
    server: str
    """The kind: ``postgresql``, ``mariadb`` ..."""
    server_version: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library to version: Python, SQLAlchemy, Alembic, Contraflow, the driver; and where a release has others, those
    (``SQLAlchemy of the old release``)."""
    old: str
    """The old release's revision."""
    new: str
    """The new release's revision."""
    options: Mapping[str, Plain] = field(default_factory=dict)
    """How it was asked for: workers, seconds, faults ..."""
    phases: tuple[Phase, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    stalls: tuple[Stall, ...] = ()
    """The longest, not all; see ``options`` and ``counts`` for the limit."""
    faults: tuple[FaultRecord, ...] = ()
    progress: tuple[Backfilled, ...] = ()
    locks: tuple[Lock, ...] = ()
    tries: tuple[Try, ...] = ()
    findings: tuple[Finding, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    """Words to number: acknowledged writes, reads, values checked, in flight at a kill, unknown commits, retried ..."""
    verdict: Verdict
    reason: str
    """The verdict in one line."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``; `from_dict` reads it."""
        made = dataclasses.asdict(self)
        made["started"] = self.started.isoformat()
        return {"format": FORMAT, **made}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The record that `as_dict` was made of. Keys that this version does not know are ignored.

        :raises ValueError: if it was written in a newer form, or a key without a default is missing.
        """
        form = data.get("format")
        if form != FORMAT:
            raise ValueError(f"a rehearsal's record of format {form!r}; this version reads format {FORMAT}")
        return _load(cls, data)


_T = TypeVar("_T")


def _load(cls: type[_T], data: Mapping[str, Any]) -> _T:
    hints = typing.get_type_hints(cls)
    known = {name: _value(hints[name], data[name]) for name in hints if name in data}
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(f"not a rehearsal's record: {error}") from error


def _value(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_value(arguments[0], item) for item in value)
    if origin in {types.UnionType, typing.Union}:
        return value  # of plain values only
    if dataclasses.is_dataclass(hint):
        return _load(typing.cast("type[Any]", hint), value)
    if hint is dt.datetime:
        return dt.datetime.fromisoformat(value)
    if hint is float:
        return float(value)
    return value
