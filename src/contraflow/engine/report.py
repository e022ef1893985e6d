"""What the engine takes and tells: options, progress, plans, the state of an upgrade. Pure values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from contraflow.dialects.base import Statement

__all__ = [
    "Difference",
    "Due",
    "Node",
    "NodeSide",
    "Options",
    "PhaseReport",
    "PlanReport",
    "PlannedStatement",
    "Progress",
    "State",
    "Status",
]


class State(str, Enum):
    """Where an upgrade stands. The transitions are in :mod:`contraflow.engine.journal`."""

    PENDING = "PENDING"
    """The journal holds what will be installed; nothing, or a part of it, is."""
    EXPANDED = "EXPANDED"
    """Both shapes stand and are kept in step; rows from before are not all filled."""
    MIGRATED = "MIGRATED"
    """Every row is filled: the new release may write."""
    VERIFIED = "VERIFIED"
    """No counter-example was found: nodes may be rolled, then contract."""
    CONTRACTED = "CONTRACTED"
    """Only the new shape stands. Final."""
    ROLLED_BACK = "ROLLED_BACK"
    """Only the old shape stands, exactly as before. Final; the same upgrade may be begun anew."""


Due = Literal["nothing", "expand", "migrate", "verify", "roll", "contract", "rollback"]
"""What comes next; ``roll`` means that nodes of the old release are still alive."""

NodeSide = Literal["old", "new", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an upgrade is run. Times are seconds."""

    lock_timeout: float = 0.25
    """How long one try waits for a lock, and so the longest that writers queue behind it."""
    lock_patience: float = 600.0
    """How long a lock is tried for again before the phase gives up (``CF006``)."""
    latency_budget: float = 0.1
    """What one batch of the backfill may take; the batch size follows it."""
    batch_size: int = 1000
    """Rows of the first batch."""
    max_batch_size: int = 20_000
    """Rows of the largest batch."""
    pause: float = 0.0
    """Rest between two batches."""
    lease: float = 30.0
    """How long the single-runner lock outlives a runner on another machine that died."""
    node_ttl: float = 30.0
    """How long after its last heartbeat a node counts as alive."""
    schema: str | None = None
    """The schema of the journal's tables; None for the connection's own."""
    replicas: tuple[str, ...] = field(default=(), repr=False)
    """URLs of replicas whose lag the data phases watch."""
    max_lag: float = 10.0
    """How far a watched replica may be behind; the backfill pauses while it is more."""

    def __post_init__(self) -> None:
        for name in ("lock_timeout", "lock_patience", "latency_budget", "lease", "node_ttl", "max_lag"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")
        if self.pause < 0:
            raise ValueError("pause must not be negative")
        if not 1 <= self.batch_size <= self.max_batch_size:
            raise ValueError("batch_size must lie between 1 and max_batch_size")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One thing worth telling a person who waits."""

    phase: str
    """The verb: ``expand``, ``migrate`` ..."""
    title: str
    """The block, in words: ``backfill users``."""
    done: int = 0
    """Rows, or for blocks without rows the number of tries so far."""
    total: int | None = None
    """Rows to do, as far as known; an estimate."""
    rate: float | None = None
    """Rows a second."""
    eta: float | None = None
    """Seconds left at that rate."""
    message: str = ""
    finished: bool = False
    """The block is done."""


@dataclass(frozen=True, kw_only=True)
class PlannedStatement:
    """One statement of a plan, with the block it belongs to."""

    table: str
    title: str
    """The block, in words."""
    statement: Statement
    online: bool
    """Runs beside the writers, outside of any lock hold."""


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """Every statement of every phase, for the connected server."""

    upgrade: str
    product: str
    version: tuple[int, ...]
    phases: Mapping[str, tuple[PlannedStatement, ...]]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {
            "upgrade": self.upgrade,
            "server": {"product": self.product, "version": list(self.version)},
            "phases": {
                phase: [
                    {
                        "table": planned.table,
                        "block": planned.title,
                        "sql": planned.statement.sql,
                        "lock": planned.statement.lock,
                        "online": planned.online,
                    }
                    for planned in statements
                ]
                for phase, statements in self.phases.items()
            },
        }


@dataclass(frozen=True, kw_only=True)
class Node:
    """One process of the application, as it announced itself."""

    id: str
    name: str
    release: str
    host: str
    pid: int
    started: float
    """Seconds since 1970, by the server's clock."""
    seen: float
    """Its last heartbeat, by the server's clock."""
    age: float
    """Seconds since its last heartbeat."""
    alive: bool
    side: NodeSide
    """The release it runs, as seen by the open upgrade; ``unknown`` if it is neither of the two (or none is
    open).
    """

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class PhaseReport:
    """One phase of an upgrade."""

    name: str
    status: Literal["waiting", "due", "running", "done"]
    started: float | None = None
    """Seconds since 1970, by the server's clock."""
    finished: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None until it is done."""
        if self.started is None or self.finished is None:
            return None
        return self.finished - self.started


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Rows of one table that keep an upgrade from contracting."""

    code: str
    """``CF012`` (the sides disagree, or a row was never synced), ``CF013`` (NULL where it may not stand), ``CF014``
    (alike where they are to be unique) or ``CF016`` (against a foreign key or a check)."""
    table: str
    title: str
    count: int
    examples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of the open upgrade (or of the last one), and what comes next."""

    state: State | None
    """None if no upgrade was ever begun here and none was asked about."""
    upgrade: str | None
    old: str | None
    new: str | None
    revisions: tuple[str, ...] = ()
    pending: str | None = None
    """A verb that was begun and is not finished: run it again."""
    runner: str | None = None
    """Who holds the single-runner lock at the moment."""
    phases: tuple[PhaseReport, ...] = ()
    rows_left: Mapping[str, int] = field(default_factory=dict)
    """Table to the number of rows that were never synced, while the upgrade is EXPANDED; of tables with an opaque lens
    until contract.
    """
    nodes: tuple[Node, ...] = ()
    due: Due = "nothing"
    rolled_back: float | None = None
    """When it was, if it is ROLLED_BACK; seconds since 1970, by the server's clock. Expand begins it anew."""

    @property
    def exit_code(self) -> int:
        """0 nothing to do or waiting for nodes, 2 expand, 3 migrate or verify, 4 contract is due; 1 a
        rollback is half done.
        """
        codes: dict[Due, int] = {
            "nothing": 0,
            "roll": 0,
            "expand": 2,
            "migrate": 3,
            "verify": 3,
            "contract": 4,
            "rollback": 1,
        }
        return codes[self.due]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {
            "state": self.state.value if self.state else None,
            "upgrade": self.upgrade,
            "old": self.old,
            "new": self.new,
            "revisions": list(self.revisions),
            "pending": self.pending,
            "runner": self.runner,
            "due": self.due,
            "exit_code": self.exit_code,
            "phases": [{**dataclasses.asdict(phase), "seconds": phase.seconds} for phase in self.phases],
            "rows_left": dict(self.rows_left),
            "nodes": [node.as_dict() for node in self.nodes],
            "rolled_back": self.rolled_back,
        }
