"""What the commands print: answers on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from contraflow.engine.report import Progress
from contraflow.problems import Problem

__all__ = ["Output", "clip", "describe", "duration", "table"]

REPEAT = 10.0
"""Seconds between two lines about one piece of work, where there is no terminal to draw a bar on."""


class Output:
    """One command's output, for a person or (``as_json``) for a program: then stdout holds one JSON document and
    nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # Looked up now, not at import, so that redirected streams are honoured. Rich honours NO_COLOR.
        self._out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._err = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        if not self._out.is_terminal:
            # A pipe has no width: nothing may be cut that a person will read in a file.
            self._out.width = 200

    def answer(self, data: Mapping[str, Any], *shown: RenderableType) -> None:
        """Print ``data`` for a program, or ``shown`` for a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")
            return
        for part in shown:
            self._out.print(part, soft_wrap=isinstance(part, str))

    def raw(self, text: str) -> None:
        """Print text as it is, to be piped on."""
        sys.stdout.write(text)

    def note(self, text: str) -> None:
        """Tell a person something besides the answer."""
        self._err.print(text, soft_wrap=True)

    def problems(self, problems: Iterable[Problem]) -> None:
        """Print problems: for a person on stderr, for a program as the document."""
        found = list(problems)
        if self.as_json:
            self.answer({"ok": False, "problems": [problem.as_dict() for problem in found]})
            return
        for problem in found:
            head, *rest = str(problem).splitlines()
            self._err.print(Text(head, style="bold red"), soft_wrap=True)
            for line in rest:
                self._err.print(line, soft_wrap=True)

    @contextmanager
    def milestones(self) -> Iterator[Callable[[str], None]]:
        """What to call with one line of text a stage: the present one moves on a terminal, and each is kept."""
        if not self._err.is_terminal:
            yield self.note
            return
        with self._err.status("starting") as status:

            def tell(text: str) -> None:
                self._err.print(text, soft_wrap=True)
                status.update(text)

            yield tell

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """What to call with the engine's progress: it draws bars on a terminal, and prints lines elsewhere."""
        if not self._err.is_terminal:
            yield _Lines(self.note)
            return
        bars = Bars(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}"),
            console=self._err,
        )
        with bars:
            yield _Drawn(bars)


class _Drawn:
    """Progress as bars, one for each piece of work."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, event: Progress) -> None:
        key = event.phase, event.title
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(f"{event.phase:<9} {event.title}", total=None, detail="")
        total = max(event.done, event.total or 0)
        self._bars.update(
            self._tasks[key],
            # A bar without a total moves to and fro; one that is done is full.
            total=(total or 1) if event.finished or event.total else None,
            completed=(total or 1) if event.finished else event.done,
            detail=_detail(event),
        )


class _Lines:
    """Progress as lines: one at the end of each piece of work and for each message, one in between now and then."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._last: dict[tuple[str, str], float] = {}

    def __call__(self, event: Progress) -> None:
        key, now = (event.phase, event.title), self._clock()
        if not (event.finished or event.message) and now - self._last.setdefault(key, now) < REPEAT:
            return
        self._last[key] = now
        self._write(describe(event))


def describe(event: Progress) -> str:
    """One line about a piece of work."""
    detail = _detail(event)
    ending = "done" if event.finished else ""
    return ": ".join(part for part in (event.phase, event.title, ", ".join(filter(None, (detail, ending)))) if part)


def _detail(event: Progress) -> str:
    parts = []
    if event.total:
        # The total is an estimate; rows may have come since.
        parts.append(f"{event.done:,} of {max(event.total, event.done):,} rows")
    if event.rate:
        parts.append(f"{event.rate:,.0f} rows/s")
    if event.eta is not None and not event.finished:
        parts.append(f"{duration(event.eta)} left")
    if event.message:
        parts.append(event.message)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time span as a person says it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def table(*headings: str, rows: Iterable[Iterable[str]]) -> Table:
    """A table of plain cells that folds long ones instead of cutting them."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def clip(text: str, length: int) -> str:
    """``text`` on one line, at most ``length`` characters long."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
