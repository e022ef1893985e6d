"""The long run: the example service's upgrade rehearsed under every fault, seed after seed, until enough was asked.

    python -m bench.rehearsal --server postgresql --requests 1000000

Each rehearsal has another seed: other faults at other statements, other transactions. What fails is written to
``--failed`` as JSON, with the command that shows it again.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from contraflow.rehearsal.demo.nodes import find_example
from contraflow.rehearsal.faults import plan
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import KINDS

HEADER = (
    "| server | rehearsals | requests | values checked | faults struck | runner started | commits of unknown outcome |"
    " retried | failed | lost or wrong |"
)

ENOUGH = 5
"""Failed rehearsals after which a server is given up."""


@click.command()
@click.option("--server", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Repeatable; without it, all.")
@click.option("--requests", default=1_000_000, show_default=True, help="How many on each server.")
@click.option("--seconds", default=60.0, show_default=True, help="Of load in each rehearsal.")
@click.option("--workers", default=4, show_default=True)
@click.option("--rows", default=500, show_default=True, help="A table, before the upgrade.")
@click.option("--seed", default=1, show_default=True, help="The first one.")
@click.option("--each", default=1, show_default=True, help="How often each kind of fault strikes in a rehearsal.")
@click.option("--failed", type=click.Path(path_type=Path), default=Path("failed.json"), show_default=True)
def main(
    kinds: tuple[str, ...],
    requests: int,
    seconds: float,
    workers: int,
    rows: int,
    seed: int,
    each: int,
    failed: Path,
) -> None:
    """Rehearse until each server has carried out so many requests; exits with 1 if a rehearsal fails."""
    failures: list[Record] = []
    lines = [HEADER, "|---" * HEADER.count(" | ") + "|---|"]
    for kind in kinds or tuple(KINDS):
        total: Counter[str] = Counter()
        began, failed_here = time.monotonic(), 0
        for record in _rehearse(kind, requests, seconds=seconds, workers=workers, rows=rows, seed=seed, each=each):
            _add(total, record)
            if record.verdict != "passed":
                failed_here += 1
                failures.append(record)
                failed.write_text(json.dumps([one.as_dict() for one in failures], indent=1))
            click.echo(
                f"{kind}: seed {record.seed}: {record.verdict} ({record.reason}); {total['requests']} requests"
                f" in {time.monotonic() - began:.0f} s",
                err=True,
            )
            if failed_here == ENOUGH:
                break
        version = f"{record.server} {record.server_version}"
        cells = [
            "rehearsals",
            "requests",
            "values checked",
            "faults",
            "starts",
            "unknown",
            "retried",
            "failed",
            "wrong",
        ]
        lines.append(f"| {version} | " + " | ".join(f"{total[cell]:,}".replace(",", " ") for cell in cells) + " |")
    click.echo("\n".join(lines))
    sys.exit(bool(failures))


def _rehearse(
    kind: str, requests: int, *, seconds: float, workers: int, rows: int, seed: int, each: int
) -> Iterator[Record]:
    config = find_example() / "alembic.ini"
    left = requests
    while left > 0:
        faults = plan(seed, server=kind, each=each)
        record = Rehearsal(
            config=config, on=kind, seconds=seconds, workers=workers, rows=rows, seed=seed, faults=faults
        ).run()
        yield record
        left -= record.counts.get("requests", 0)
        seed += 1


def _add(total: Counter[str], record: Record) -> None:
    """Count what a rehearsal came to."""
    total["rehearsals"] += 1
    for name in ("requests", "values checked", "retried"):
        total[name] += record.counts.get(name, 0)
    total["unknown"] += record.counts.get("commits of unknown outcome", 0)
    total["faults"] += len(record.faults)
    total["starts"] += len(record.tries)
    wrong = [finding for finding in record.findings if finding.kind != "failed"]
    total["wrong"] += len(wrong) + (record.verdict != "passed" and not record.findings)
    total["failed"] += len(record.findings) - len(wrong)


if __name__ == "__main__":
    main()
