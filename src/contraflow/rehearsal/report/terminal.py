"""A rehearsal for a terminal: the verdict, what was found wrong, and how every phase went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contraflow.rehearsal.record import Event, Finding, Record, Verdict
from contraflow.rehearsal.report import facts
from contraflow.rehearsal.report.facts import RELEASES, clock, wait

__all__ = ["summary"]

_STYLES: Mapping[Verdict, str] = {"passed": "bold green", "failed": "bold red", "error": "bold yellow"}
_FINDINGS = 10
_EVENTS = 12
"""So many are shown; the page and the JSON have all."""


def summary(records: Sequence[Record]) -> RenderableType:
    """What to print at the end: the same for one server or for several, one after the other, each verdict last."""
    parts: list[RenderableType] = []
    for record in records:
        parts += _rehearsal(record)
    return Group(*parts)


def _rehearsal(record: Record) -> Iterator[RenderableType]:
    yield Text(f"Rehearsal of {record.old} to {record.new} on {facts.server(record)}", style="bold")
    if record.phases:
        yield _phases(record)
    yield from _lines(record)
    for finding in record.findings[:_FINDINGS]:
        yield from _finding(finding)
    left = len(record.findings) - _FINDINGS
    if left > 0:
        yield Text(f"and {left} more")
    said = Text()
    said.append(facts.TITLES[record.verdict].upper(), style=_STYLES[record.verdict])
    said.append(f" in {clock(record.seconds)}: {record.reason}")
    yield said
    yield Text(f"again: {record.command}", style="dim")


def _phases(record: Record) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("phase")
    made.add_column("took", justify="right")
    for release in RELEASES:
        made.add_column(f"{release} release", justify="right")
        made.add_column("longest wait", justify="right")
    for phase in record.phases:
        cells = [phase.name, clock(phase.ended - phase.began)]
        for release in RELEASES:
            found = facts.served(record, phase, release)
            cells += [f"{found.per_second:,.0f}/s", wait(found.worst_ms)] if found else ["", ""]
        made.add_row(*(Text(cell) for cell in cells))
    return made


def _lines(record: Record) -> Iterator[Text]:
    if record.faults:
        struck: dict[str, int] = {}
        for fault in record.faults:
            struck[fault.title] = struck.get(fault.title, 0) + 1
        names = (f"{name} ({count}x)" if count > 1 else name for name, count in struck.items())
        yield Text(f"faults: {', '.join(names)}")
    if record.counts:
        yield Text(", ".join(f"{name} {number:,}" for name, number in record.counts.items()))


def _finding(finding: Finding) -> Iterator[RenderableType]:
    head = Text()
    head.append(finding.kind, style="bold red")
    where = " ".join(part for part in (finding.table, finding.key) if part)
    head.append(f" {where}: {finding.what}" if where else f" {finding.what}")
    yield head
    shown = finding.history[-_EVENTS:]
    if len(shown) < len(finding.history):
        yield Padding(Text(f"{len(finding.history) - len(shown)} earlier", style="dim"), (0, 0, 0, 2))
    for event in shown:
        yield Padding(_event(event), (0, 0, 0, 2))


def _event(event: Event) -> Text:
    who = " ".join(part for part in (event.release, event.worker) if part)
    values = ", ".join(f"{name}={'NULL' if value is None else repr(value)}" for name, value in event.values.items())
    line = Text(f"{clock(event.at):>9}  {who}  {event.action}  {values}".rstrip())
    if event.outcome != "ok":
        line.append(f"  {event.outcome}", style="yellow" if event.outcome == "unknown" else "red")
    return line
