"""Measures what an upgrade costs: the sync's price for a write, the backfill's speed, the writers' stalls.

``python -m bench.run --help``; results for the record are in bench/RESULTS.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from bench import backfill, peers, scoreboard, stalls, sync_cost
from bench.harness import Plan
from bench.report import Run, Table, as_json, shown, write_markdown
from contraflow.rehearsal.servers import KINDS

MEASURES: dict[str, Callable[[str, Plan], list[Table]]] = {
    "sync_cost": sync_cost.measure,
    "backfill": backfill.measure,
    "stalls": stalls.measure,
    "peers": peers.measure,
    "scoreboard": scoreboard.measure,
}


SINGLE = [kind for kind in KINDS if kind != "galera"]
"""What is measured: three nodes on one machine would tell of the machine."""


@click.command()
@click.option("--server", "kinds", multiple=True, type=click.Choice(SINGLE), help="Repeatable; without it, all.")
@click.option(
    "--rows",
    multiple=True,
    type=click.IntRange(min=100),
    help="Rows of the tables; repeatable. Without it, 100000 and 1000000.",
)
@click.option("--only", multiple=True, type=click.Choice(list(MEASURES)), help="Repeatable; without it, all.")
@click.option("--repetitions", type=click.IntRange(min=1), help="Default: 9 of sync_cost's windows, 3 of the others.")
@click.option("--quick", is_flag=True, help="Tiny sizes: shows that the measures work, measures nothing.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every measure there.")
@click.option("--markdown", is_flag=True, help="Put the tables into bench/RESULTS.md.")
def main(
    kinds: tuple[str, ...],
    rows: tuple[int, ...],
    only: tuple[str, ...],
    repetitions: int | None,
    quick: bool,
    json_file: Path | None,
    markdown: bool,
) -> None:
    """Measure, on scratch servers that are gone afterwards. Ratios are of one run, its repetitions interleaved."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    run = Run.now(sys.argv[1:])
    tables: dict[tuple[str, str], list[Table]] = {}
    for measure in only or MEASURES:
        plan = Plan(
            rows=rows or ((2000,) if quick else (100_000, 1_000_000)),
            repetitions=repetitions or (2 if quick else 9 if measure == "sync_cost" else 3),
            window=0.02 if quick else 0.4,
            hold=0.6 if quick else 3.0,
            say=_saying(console, measure),
        )
        for kind in kinds or SINGLE:
            if found := MEASURES[measure](kind, plan):
                tables[measure, kind] = found
            for table in found:
                console.print(shown(table))
    if json_file is not None:
        json_file.write_text(as_json(run, tables) + "\n")
    if markdown:
        write_markdown(run, tables)


def _saying(console: Console, measure: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        console.print(f"[dim]{measure}: {line}[/dim]", highlight=False)

    return say


if __name__ == "__main__":
    main()
