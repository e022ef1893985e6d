"""The long run: the example service's upgrade rehearsed under every fault, seed after seed, until enough was asked.

    python -m bench.rehearsal --server postgresql --requests 1000000 --markdown

Each rehearsal has another seed: other faults at other statements, other transactions. What was done so far stands in
``--state``, so that the same command goes on where it was interrupted; ``--hours`` ends a server's run early, and its
row tells how far it came. What fails is written to ``--failed`` as JSON, with the command that shows it again.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from bench.report import RESULTS, Run, grouped
from contraflow.problems import ContraflowError
from contraflow.rehearsal.demo.nodes import find_example
from contraflow.rehearsal.faults import plan
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import KINDS

COLUMNS: Mapping[str, str] = {
    "rehearsals": "rehearsals",
    "requests": "requests",
    "checked": "values checked",
    "faults": "faults struck",
    "starts": "runner started",
    "unknown": "commits of unknown outcome",
    "retried": "retried",
    "failed": "failed",
    "wrong": "lost or wrong",
    "broke": "rehearsals that broke",
}
"""What is counted, and what its column is called."""

ENOUGH = 5
"""Failed rehearsals after which a server is given up."""
BEGIN, END = "<!-- begin rehearsals -->", "<!-- end rehearsals -->"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every rehearsal has in common. Another choice begins anew."""

    seconds: float
    workers: int
    rows: int
    seed: int
    each: int


@dataclass(kw_only=True)
class Done:
    """What one server has done so far."""

    version: str = ""
    began: str = ""
    """The day of its first rehearsal."""
    seed: int = 0
    """Of the next rehearsal."""
    seconds: float = 0.0
    """What all of them took."""
    memory: int = 0
    """The most that this process, which holds the model of every row, had in use by then, in MB."""
    totals: Counter[str] = field(default_factory=Counter)

    @property
    def failures(self) -> int:
        """How many rehearsals did not pass."""
        return self.totals["not passed"]

    def add(self, record: Record) -> None:
        """Count what a rehearsal came to."""
        self.version = f"{record.server} {record.server_version}"
        findings = [finding.kind for finding in record.findings]
        self.totals.update(
            {
                "rehearsals": 1,
                "requests": record.counts.get("requests", 0),
                "checked": record.counts.get("values checked", 0),
                "retried": record.counts.get("retried", 0),
                "unknown": record.counts.get("commits of unknown outcome", 0),
                "faults": len(record.faults),
                "starts": len(record.tries),
                "failed": findings.count("failed"),
                # An upgrade that was refused is wrong, too, without a row that is.
                "wrong": len(findings) - findings.count("failed") + (record.verdict == "failed" and not findings),
                "broke": int(record.verdict == "error"),
                "not passed": int(record.verdict != "passed"),
            }
        )


class State:
    """What was done, in a file that is written after each rehearsal."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self.settings = settings
        self.servers: dict[str, Done] = {}
        if path.exists():
            data = json.loads(path.read_text())
            if data["settings"] != asdict(settings):
                raise click.ClickException(f"{path} was begun with {data['settings']}: take another --state, or those.")
            self.servers = {
                kind: Done(**{**done, "totals": Counter(done["totals"])}) for kind, done in data["servers"].items()
            }

    def of(self, kind: str) -> Done:
        """What the server of this kind has done."""
        return self.servers.setdefault(kind, Done(seed=self.settings.seed, began=f"{dt.date.today()}"))  # noqa: DTZ011

    def keep(self) -> None:
        """Write it all, so that a kill at any moment leaves the file as it was before or as it is now."""
        data = {"settings": asdict(self.settings), "servers": {kind: vars(one) for kind, one in self.servers.items()}}
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(data, indent=1))
        os.replace(beside, self._path)


@click.command()
@click.option("--server", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Repeatable; without it, all.")
@click.option("--requests", default=1_000_000, show_default=True, help="How many on each server.")
@click.option("--hours", type=float, help="After which a server's run ends, even if there were fewer requests.")
@click.option("--seconds", default=120.0, show_default=True, help="Of load in each rehearsal.")
@click.option("--workers", default=4, show_default=True, help="Of each release.")
@click.option("--rows", default=500, show_default=True, help="A table, before the upgrade.")
@click.option("--seed", default=1, show_default=True, help="The first one.")
@click.option("--each", default=1, show_default=True, help="How often each kind of fault strikes in a rehearsal.")
@click.option("--state", "path", type=click.Path(path_type=Path), default=Path("rehearsals.json"), show_default=True)
@click.option("--failed", type=click.Path(path_type=Path), default=Path("failed.json"), show_default=True)
@click.option("--markdown", is_flag=True, help="Write the table into bench/RESULTS.md after each server.")
def main(
    kinds: tuple[str, ...],
    requests: int,
    hours: float | None,
    seconds: float,
    workers: int,
    rows: int,
    seed: int,
    each: int,
    path: Path,
    failed: Path,
    markdown: bool,
) -> None:
    """Rehearse until each server has carried out so many requests; exits with 1 if a rehearsal fails."""
    settings = Settings(seconds=seconds, workers=workers, rows=rows, seed=seed, each=each)
    state = State(path, settings)
    run = Run.now([])
    failures: list[Record] = []
    for kind in kinds or tuple(KINDS):
        done, began = state.of(kind), time.monotonic()
        for record in _rehearsals(kind, done, settings, requests):
            if isinstance(record, Record):
                done.add(record)
                told = f"{record.verdict} ({record.reason})"
                if record.verdict != "passed":
                    failures.append(record)
                    failed.write_text(json.dumps([one.as_dict() for one in failures], indent=1))
            else:
                done.totals.update({"broke": 1, "not passed": 1})
                told = f"did not begin: {record}"
            done.memory = max(done.memory, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
            state.keep()
            click.echo(f"{kind}: seed {done.seed - 1}: {told}; {_progress(done, requests)}", err=True)
            if done.failures >= ENOUGH or (hours is not None and time.monotonic() - began >= hours * 3600):
                break
        if markdown:
            _write(run, state)
    click.echo("\n".join(_table(state.servers.values())))
    sys.exit(any(done.failures for done in state.servers.values()))


def _rehearsals(kind: str, done: Done, settings: Settings, requests: int) -> Iterator[Record | ContraflowError]:
    """One after the other; an error instead of a record where the rehearsal could not begin."""
    config = find_example() / "alembic.ini"
    while done.totals["requests"] < requests:
        seed, done.seed = done.seed, done.seed + 1
        rehearsal = Rehearsal(
            config=config,
            on=kind,
            seconds=settings.seconds,
            workers=settings.workers,
            rows=settings.rows,
            seed=seed,
            faults=plan(seed, server=kind, each=settings.each),
        )
        began = time.monotonic()
        try:
            result: Record | ContraflowError = rehearsal.run()
        except ContraflowError as error:
            result = error
        done.seconds += time.monotonic() - began
        yield result


def _progress(done: Done, requests: int) -> str:
    made = done.totals["requests"]
    rate = made / done.seconds if done.seconds else 0.0
    left = f", {max(0, requests - made) / rate / 60:.0f} min left" if rate else ""
    return f"{grouped(made)} requests, {rate:.0f}/s{left}, {done.memory} MB"


def _table(servers: Iterable[Done]) -> list[str]:
    heads = ["server", *COLUMNS.values(), "requests/s"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for done in servers:
        if done.totals["rehearsals"]:
            cells = [done.version, *(grouped(done.totals[name]) for name in COLUMNS)]
            cells.append(grouped(done.totals["requests"] / done.seconds))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _write(run: Run, state: State) -> None:
    """Put the table of every server that has done something between its marks."""
    text = RESULTS.read_text()
    before, opened, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not opened or not closed:
        raise click.ClickException(f"{RESULTS.name} has no {BEGIN} ... {END}")
    chosen = " ".join(f"--{name} {value:g}" for name, value in asdict(state.settings).items())
    days = sorted(done.began for done in state.servers.values() if done.totals["rehearsals"])
    where = f"{run.machine}, {run.versions}, load average before: {run.load}"
    told = f"`python -m bench.rehearsal {chosen}`, begun on {days[0] if days else 'no day'}, {where}"
    RESULTS.write_text(f"{before}{BEGIN}\n{told}\n\n" + "\n".join(_table(state.servers.values())) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
