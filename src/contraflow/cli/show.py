"""How a person sees plans, states and nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from rich.console import RenderableType
from rich.text import Text

from contraflow.cli.output import clip, duration, table
from contraflow.engine.report import Due, Node, PlanReport, Status

__all__ = ["nodes", "only", "plan", "script", "status"]

_DUE: Mapping[Due, str] = {
    "nothing": "nothing to do",
    "expand": "contraflow expand",
    "migrate": "contraflow migrate",
    "verify": "contraflow verify",
    "roll": "replace the nodes of the old release, then: contraflow contract",
    "contract": "contraflow contract, once no node of the old release is left",
    "rollback": "contraflow rollback: one was begun and is not finished",
}


def plan(report: PlanReport) -> Iterator[RenderableType]:
    """Each phase as a table: the block, its statements, the lock each takes."""
    version = ".".join(map(str, report.version))
    yield f"{report.upgrade} on {report.product} {version}"
    for phase, planned in report.phases.items():
        yield ""
        yield Text(phase, style="bold underline")
        if not planned:
            yield "nothing to do"
            continue
        rows = []
        before = None
        for one in planned:
            rows.append(
                (one.title if one.title != before else "", clip(one.statement.sql, 100), one.statement.lock or "none")
            )
            before = one.title
        yield table("block", "statement", "lock", rows=rows)
    yield ""
    yield "The statements in full: contraflow plan --sql"


def only(report: PlanReport, phases: Collection[str]) -> PlanReport:
    """The same plan, without the other phases."""
    return replace(report, phases={name: found for name, found in report.phases.items() if name in phases})


def script(report: PlanReport) -> str:
    """Each phase's statements in full, as a commented SQL text."""
    lines = [f"-- {report.upgrade} on {report.product} {'.'.join(map(str, report.version))}"]
    for phase, planned in report.phases.items():
        lines.append(f"\n-- {phase}")
        before = None
        for one in planned:
            if one.title != before:
                lines.append(f"-- {one.title}{' (beside the writers)' if one.online else ''}")
                before = one.title
            if one.statement.lock:
                lines.append(f"-- lock: {one.statement.lock}")
            lines.append(f"{one.statement.sql.rstrip().rstrip(';')};")
    return "\n".join(lines) + "\n"


def status(now: Status) -> Iterator[RenderableType]:
    """The state, the phases, what is left, and what comes next."""
    if now.upgrade is None:
        yield f"at work   {now.runner}" if now.runner else "no upgrade was begun here, and none waits"
        return
    yield f"upgrade   {now.upgrade} ({', '.join(now.revisions)})" if now.revisions else f"upgrade   {now.upgrade}"
    yield f"state     {now.state.value if now.state else 'not begun'}"
    if now.rolled_back is not None:
        when = datetime.fromtimestamp(now.rolled_back, timezone.utc)
        yield f"since     {when:%Y-%m-%d %H:%M:%S} UTC"
    if now.runner:
        yield f"at work   {now.runner}"
    elif now.pending:
        yield f"begun     {now.pending}, and not finished: run it again"
    for name, rows in now.rows_left.items():
        yield f"to fill   {name}: {rows:,} rows"
    done = [phase for phase in now.phases if phase.status != "waiting"]
    if done:
        yield table(
            "phase",
            "",
            "took",
            rows=(
                (phase.name, phase.status, duration(phase.seconds) if phase.seconds is not None else "")
                for phase in done
            ),
        )
    if now.nodes:
        yield nodes(now.nodes)
    yield f"next      {_next(now)}"


def _next(now: Status) -> str:
    if now.runner:
        return "wait until the runner at work is done"
    if now.rolled_back is not None and now.due == "nothing":
        return "contraflow expand, where the revisions are, begins it anew"
    return _DUE[now.due] + ("" if now.rolled_back is None else " begins it anew")


def nodes(known: Sequence[Node]) -> RenderableType:
    """The processes of the application that announced themselves."""
    return table(
        "node",
        "name",
        "release",
        "side",
        "host",
        "last seen",
        "",
        rows=(
            (
                node.id,
                node.name,
                node.release,
                node.side,
                node.host,
                f"{duration(node.age)} ago",
                "alive" if node.alive else "gone",
            )
            for node in known
        ),
    )
