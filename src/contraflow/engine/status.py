"""Where an upgrade stands and what comes next, as read from the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import sqlalchemy as sa

from contraflow.engine.backfill import Target
from contraflow.engine.journal import Entry, Event, Journal
from contraflow.engine.matching import grown, revisions_of
from contraflow.engine.nodes import gate
from contraflow.engine.report import Due, Node, PhaseReport, State, Status
from contraflow.operations.planning import Upgrade

__all__ = ["first_status", "read_status"]

_PHASES = ("expand", "migrate", "verify", "contract")


def first_status(declared: Upgrade | None, nodes: Sequence[Node] = (), runner: str | None = None) -> Status:
    """The status of an upgrade that the journal does not know yet."""
    if declared is None or not declared.changes:
        return Status(state=None, upgrade=None, old=None, new=None, nodes=tuple(nodes), runner=runner)
    return Status(
        state=State.PENDING,
        upgrade=declared.id,
        old=declared.old,
        new=declared.new,
        revisions=tuple(revision.id for revision in revisions_of(declared)),
        phases=tuple(PhaseReport(name=name, status="due" if name == "expand" else "waiting") for name in _PHASES),
        nodes=tuple(nodes),
        runner=runner,
        due="expand",
    )


def read_status(
    connection: sa.Connection,
    journal: Journal,
    entry: Entry | None,
    *,
    declared: Upgrade | None,
    nodes: Sequence[Node],
    runner: str | None,
) -> Status:
    """The status of ``entry``; of the declared upgrade if the journal has none, or one that was rolled back: that may
    be begun anew, as it is declared now.
    """
    if entry is None:
        return first_status(declared, nodes, runner)
    rolled_back = entry.updated if entry.state is State.ROLLED_BACK else None
    if rolled_back is not None and declared is not None:
        return replace(first_status(declared, nodes, runner), state=entry.state, rolled_back=rolled_back)
    due = _due(entry, declared, nodes)
    rows_left: dict[str, int] = {}
    if entry.state is State.EXPANDED and entry.pending not in ("expand", "rollback"):
        for data in entry.programs.get("backfill", ()):
            target = Target.from_dict(data)
            rows_left[target.name] = int(connection.execute(sa.text(target.text.remaining)).scalar() or 0)
    if entry.state in (State.EXPANDED, State.MIGRATED, State.VERIFIED) and entry.pending in (None, "migrate"):
        # The old release goes on making such rows until its last node is gone.
        for data in entry.programs.get("opaque", ()):
            rows_left[data["name"]] = int(connection.execute(sa.text(data["remaining"])).scalar() or 0)
    return Status(
        state=entry.state,
        upgrade=entry.id,
        old=entry.old,
        new=entry.new,
        revisions=tuple(revision.id for revision in entry.revisions),
        pending=entry.pending,
        runner=runner,
        phases=_phases(journal.events(connection, entry), due),
        rows_left=rows_left,
        nodes=tuple(nodes),
        due=due,
        rolled_back=rolled_back,
    )


def _due(entry: Entry, declared: Upgrade | None, nodes: Sequence[Node]) -> Due:
    if entry.pending == "contract":
        return "contract"
    if entry.pending == "rollback":
        return "rollback"
    if declared is not None and grown(entry, declared):
        return "expand"
    if entry.state is State.VERIFIED:
        return "roll" if gate(nodes, verb="contract", upgrade=entry.id) else "contract"
    following: Mapping[State, Due] = {
        State.PENDING: "expand",
        State.EXPANDED: "migrate",
        State.MIGRATED: "verify",
    }
    return following.get(entry.state, "nothing")


def _phases(events: Sequence[Event], due: Due) -> tuple[PhaseReport, ...]:
    """When each phase began and ended. A phase that is due again (the upgrade grew, rows differ) is not done."""
    reports = []
    next_phase = "contract" if due == "roll" else due
    # A phase is done if it ended and neither it nor an earlier one is due.
    open_from = _PHASES.index(next_phase) if next_phase in _PHASES else len(_PHASES)
    for place, name in enumerate(_PHASES):
        started, finished = _last_run([event for event in events if event.verb == name], name)
        if place >= open_from:
            finished = None
        status: Literal["waiting", "due", "running", "done"]
        if finished is not None:
            status = "done"
        elif place == open_from and due != "roll":
            status = "running" if started is not None else "due"
        else:
            status = "waiting"
        reports.append(PhaseReport(name=name, status=status, started=started, finished=finished))
    return tuple(reports)


def _last_run(events: Sequence[Event], name: str) -> tuple[float | None, float | None]:
    """When the last run of a phase began and ended: a run that was stopped and resumed is one, one that was done and
    is begun again (verify, after rows differed) is another. One that was asked for again and found done is none.
    """
    started = finished = None
    for event in events:
        if finished is not None and event.kind == "done" and event.title == name:
            continue
        if finished is not None or started is None:
            started, finished = event.at, None
        if event.kind == "done" and event.title == name:
            finished = event.at
    return started, finished
