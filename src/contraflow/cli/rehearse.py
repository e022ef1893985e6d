"""What ``contraflow rehearse`` does: one rehearsal a server, one after the other, and their records."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from contraflow.cli.output import duration, table
from contraflow.cli.session import Session
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal

__all__ = ["run"]


def run(
    session: Session,
    *,
    revisions: str,
    on: Sequence[str],
    seconds: float,
    workers: int,
    rows: int,
    seed: int,
) -> bool:
    """Rehearse on each server, show the records, and tell whether all passed."""
    common, records = session.common, []
    for kind in on or ("sqlite",):
        url = session.url
        place = ["--url", "URL"] if url else ["--on", kind]
        words = [
            *("contraflow", *(["-c", common.config] if common.config else []), "rehearse"),
            *([revisions] if revisions else []),
            *(*place, "--seconds", f"{seconds:g}", "--workers", str(workers), "--rows", str(rows), "--seed", str(seed)),
        ]
        rehearsal = Rehearsal(
            config=common.config,
            section=common.name,
            arguments=common.arguments,
            revisions=revisions,
            on=kind,
            url=url,
            seconds=seconds,
            workers=workers,
            rows=rows,
            seed=seed,
            command=shlex.join(words),
        )
        with session.output.milestones() as tell:
            records.append(rehearsal.run(progress=tell))
        if url is not None:
            break
    passed = all(record.verdict == "passed" for record in records)
    session.output.answer(
        {"ok": passed, "rehearsals": [record.as_dict() for record in records]}, *map(_summary, records)
    )
    return passed


def _summary(record: Record) -> RenderableType:
    """A record for a terminal."""
    phases = table("phase", "took", rows=[(phase.name, duration(phase.ended - phase.began)) for phase in record.phases])
    findings = [
        Text(f"- {finding.kind}: {finding.table} {finding.key}: {finding.what}", style="red")
        for finding in record.findings[:10]
    ]
    verdict = Text(f"{record.verdict.upper()}: {record.reason}", style="bold green" if not findings else "bold red")
    return Group(f"{record.old}:{record.new} on {record.server} {record.server_version}", phases, *findings, verdict)
