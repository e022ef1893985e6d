"""Results: shown, kept as JSON, and written into bench/RESULTS.md."""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import rich.box
import rich.table
import sqlalchemy as sa

from bench.harness import Spread

__all__ = ["Run", "Table", "as_json", "grouped", "shown", "write_markdown"]

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(kw_only=True)
class Table:
    """One table of results."""

    title: str
    columns: tuple[str, ...]
    server: str = ""
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """One more row."""
        self.rows.append(cells)

    def texts(self) -> list[list[str]]:
        """The rows as they are shown."""
        return [[cell.text() if isinstance(cell, Spread) else str(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where, when and how tables were measured."""

    command: str
    measured: dt.datetime
    machine: str
    versions: str
    load: str

    @classmethod
    def now(cls, arguments: Sequence[str]) -> Run:
        """This very run."""
        memory = round(psutil.virtual_memory().total / 2**30)
        load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
        return cls(
            command=" ".join(["python -m bench.run", *_measuring(arguments)]),
            measured=dt.datetime.now(dt.timezone.utc),
            machine=f"{_processor()}, {psutil.cpu_count()} cores, {memory} GiB of memory, Linux {platform.release()}",
            versions=f"Python {platform.python_version()}, SQLAlchemy {sa.__version__}",
            load=load,
        )


def _measuring(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that say where results go."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument != "--markdown" and not argument.startswith("--json"):
            kept.append(argument)
        skip = argument == "--json"
    return kept


def grouped(number: float) -> str:
    """A whole number with a space between thousands."""
    return f"{number:,.0f}".replace(",", " ")


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.machine()


def shown(table: Table) -> rich.table.Table:
    """The table for a terminal."""
    result = rich.table.Table(title=f"{table.server}: {table.title}", box=rich.box.SIMPLE)
    for place, column in enumerate(table.columns):
        result.add_column(column, justify="left" if place < 2 else "right")
    for row in table.texts():
        result.add_row(*row)
    return result


def as_json(run: Run, tables: dict[tuple[str, str], list[Table]]) -> str:
    """Everything, with every single measure."""

    def plain(value: Any) -> Any:
        return {"median": value.median, "values": list(value.values)} if isinstance(value, Spread) else value

    data = {
        "command": run.command,
        "measured": run.measured.isoformat(timespec="seconds"),
        "machine": run.machine,
        "versions": run.versions,
        "load": run.load,
        "results": [
            {
                "measure": measure,
                "server": table.server,
                "title": table.title,
                "rows": [dict(zip(table.columns, map(plain, row), strict=True)) for row in table.rows],
            }
            for (measure, _), found in tables.items()
            for table in found
        ],
    }
    return json.dumps(data, indent=1)


def write_markdown(run: Run, tables: dict[tuple[str, str], list[Table]], path: Path = RESULTS) -> None:
    """Put the tables between their marks in the document; what other runs measured stays.

    Raises ``ValueError`` if the document has no place for one of them.
    """
    text = path.read_text()
    for (measure, kind), found in tables.items():
        begin, end = f"<!-- begin {measure} {kind} -->", f"<!-- end {measure} {kind} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not opened or not closed:
            raise ValueError(f"{path.name} has no {begin} ... {end}")
        text = f"{before}{begin}\n{_section(run, found)}\n{end}{after}"
    path.write_text(text)


def _section(run: Run, tables: Sequence[Table]) -> str:
    where = f"{run.machine}, {run.versions}, load average before: {run.load}"
    parts = [f"`{run.command}`, {run.measured:%Y-%m-%d %H:%M} UTC, {where}"]
    for table in tables:
        head = f"| {' | '.join(table.columns)} |\n|{'---|' * len(table.columns)}"
        rows = "\n".join(f"| {' | '.join(row)} |" for row in table.texts())
        parts.append(f"**{table.server}: {table.title}**\n\n{head}\n{rows}")
    return "\n\n".join(parts)
