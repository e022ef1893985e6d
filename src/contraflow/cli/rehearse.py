"""What ``contraflow rehearse`` does: one rehearsal a server, one after the other, and their records."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import sqlalchemy as sa

from contraflow.cli.session import Session, ended_by_sigterm
from contraflow.rehearsal import counterexample, report
from contraflow.rehearsal.faults import Fault, asked
from contraflow.rehearsal.minimise import minimise
from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.recorded import read
from contraflow.rehearsal.rehearse import Rehearsal

__all__ = ["Workload", "recordings_of", "run"]


def run(
    session: Session,
    *,
    revisions: str,
    on: Sequence[str],
    seconds: float,
    workers: int,
    rows: int,
    seed: int,
    data: Path | None,
    workloads: Mapping[str, Workload],
    sql_rate: float | None,
    page: Path | None,
    faults: str,
    reproduce: Path | None,
) -> bool:
    """Rehearse on each server, show the records, write the page about them, and tell whether all passed."""
    common, records = session.common, []
    _check(session, workloads, {"--report": page, "--reproduce": reproduce})
    for kind in on or ("sqlite",):
        url = session.url
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
            faults=_faults(faults, kind if url is None else sa.make_url(url).get_backend_name(), url is None, seed),
            data=data,
            old_workload=workloads["old"],
            new_workload=workloads["new"],
            sql_rate=sql_rate,
        )
        rehearsal = replace(rehearsal, command=_command(rehearsal, faults))
        with ended_by_sigterm(), session.output.milestones() as tell:
            record = rehearsal.run(progress=tell)
            if reproduce is not None and record.verdict == "failed":
                text, record = _reproduced(rehearsal, record, tell)
                reproduce.write_text(text, encoding="utf-8")
                session.output.note(f"a script that shows it again: {reproduce}")
                reproduce = None  # one is enough to begin with
            records.append(record)
        if page is not None:
            # After each: what was learnt on one server stays if the next one does not start.
            page.write_text(report.html(records), encoding="utf-8")
        if url is not None:
            break
    passed = all(record.verdict == "passed" for record in records)
    session.output.answer(
        {"ok": passed, "rehearsals": [record.as_dict() for record in records]}, report.summary(records)
    )
    if page is not None:
        session.output.note(f"the report: {page}")
    return passed


def recordings_of(given: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """The files of each release, as ``--sql`` names them."""
    found: dict[str, list[Path]] = {"old": [], "new": []}
    for text in given:
        release, separator, path = text.partition("=")
        if release not in found or not separator:
            raise click.BadParameter(f"{text!r} is neither old=FILE nor new=FILE", param_hint="--sql")
        found[release].append(Path(path))
    return {release: tuple(paths) for release, paths in found.items()}


def _check(session: Session, workloads: Mapping[str, Workload], written: Mapping[str, Path | None]) -> None:
    """Refuse what could not be rehearsed, or written in the end, before a server is started; tell what is left out."""
    if workloads["old"].own != workloads["new"].own:
        raise click.UsageError(
            "--old-workload and --new-workload, or --sql old=FILE and --sql new=FILE, go together: what one release"
            " does is judged by what the other reads."
        )
    try:
        left_out = sum(read(path).left_out for workload in workloads.values() for path in workload.recordings)
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--sql") from error
    if left_out:
        session.output.note(f"{left_out} recorded statements are not replayed: neither queries nor writes")
    for option, path in written.items():
        if path is not None and not path.parent.is_dir():
            raise click.BadParameter(f"the folder {str(path.parent)!r} does not exist.", param_hint=option)


def _reproduced(rehearsal: Rehearsal, record: Record, tell: Callable[[str], None]) -> tuple[str, Record]:
    """A script that shows a failure again, and the record with it beside what it shows.

    That of one row's history where that is enough; else a smaller rehearsal.
    """
    shown = counterexample.find(rehearsal, record, progress=tell)
    if shown is not None:
        finding, case = shown
        text = counterexample.script(case, finding, record)
        with_it = (replace(one, reproduce=text) if one == finding else one for one in record.findings)
        return text, replace(record, findings=tuple(with_it))
    tell("no row's history shows it alone: looking for a smaller rehearsal that fails alike")
    smaller = minimise(rehearsal, record, progress=tell)
    return smaller.script, smaller.reproduces(record)


def _command(rehearsal: Rehearsal, faults: str) -> str:
    """What to type to have the same again. What may hold a password, a URL or an ``-x``, is left for the reader."""
    words = ["contraflow"]
    if rehearsal.config:
        words += ["-c", str(rehearsal.config)]
    if rehearsal.section != "alembic":
        words += ["-n", rehearsal.section]
    for argument in rehearsal.arguments:
        words += ["-x", f"{argument.partition('=')[0]}=VALUE"]
    words += ["rehearse", *([rehearsal.revisions] if rehearsal.revisions else [])]
    words += ["--url", "URL"] if rehearsal.url else ["--on", rehearsal.on]
    words += ["--seconds", f"{rehearsal.seconds:g}", "--workers", str(rehearsal.workers)]
    words += ["--rows", str(rehearsal.rows), "--seed", str(rehearsal.seed), "--faults", faults]
    if rehearsal.data:
        words += ["--data", str(rehearsal.data)]
    for release, workload in (("old", rehearsal.old_workload), ("new", rehearsal.new_workload)):
        for option, value in (("workload", workload.call), ("python", workload.python)):
            if value is not None:
                words += [f"--{release}-{option}", value]
        for path in workload.recordings:
            words += ["--sql", f"{release}={path}"]
    if rehearsal.sql_rate is not None:
        words += ["--sql-rate", f"{rehearsal.sql_rate:g}"]
    return shlex.join(words)


def _faults(text: str, server: str, ours: bool, seed: int) -> tuple[Fault, ...]:
    try:
        return asked(text, seed, server=server, ours=ours)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--faults") from error
