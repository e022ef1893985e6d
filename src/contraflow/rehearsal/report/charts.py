"""The timeline of a rehearsal as one drawing: phases, throughput, waits, backfill and faults over one axis of time.

It is drawn for a width in pixels, so that its text keeps its size: the page holds one drawing for each width of screen.
What the pointer is over is told without a script, by CSS's ``:hover``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contraflow.rehearsal.record import Backfilled, Bucket, Record, Release
from contraflow.rehearsal.report.facts import RELEASES, clock, in_order, wait
from contraflow.rehearsal.report.markup import Child, Html, element, join

__all__ = ["VERBS", "Column", "columns", "timeline"]

VERBS = ("expand", "migrate", "verify", "contract", "rollback")
"""The phases that have a colour of their own."""

_LEFT = 52  # room for the axis' numbers
_RIGHT = 10
_FONT = 11
_ROW = 16


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one release's nodes answered within one stretch of the axis of time."""

    at: float
    seconds: float
    per_second: float
    failed: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


def columns(buckets: Iterable[Bucket], release: Release, seconds: int) -> list[Column]:
    """``release``'s buckets, ``seconds`` of them taken together; waits are the worst of them."""
    together: dict[int, list[Bucket]] = {}
    for bucket in buckets:
        if bucket.release == release:
            together.setdefault(bucket.at // seconds, []).append(bucket)
    return [
        Column(
            at=number * seconds,
            seconds=seconds,
            per_second=sum(bucket.requests for bucket in found) / seconds,
            failed=sum(bucket.failed for bucket in found),
            p50_ms=max(bucket.p50_ms for bucket in found),
            p99_ms=max(bucket.p99_ms for bucket in found),
            worst_ms=max(bucket.worst_ms for bucket in found),
        )
        for number, found in sorted(together.items())
    ]


def timeline(record: Record, width: int) -> Html:
    """The drawing, ``width`` pixels wide."""
    return _Drawing(record, width).draw()


class _Drawing:
    def __init__(self, record: Record, width: int) -> None:
        self._record = record
        self._width = width
        self._end = max(record.seconds, 1.0)
        # A column is at least three pixels wide: narrower ones cannot be pointed at.
        self._seconds = _nice_seconds(self._end * 3 / (width - _LEFT - _RIGHT))
        self._columns: Mapping[Release, list[Column]] = {
            release: columns(record.buckets, release, self._seconds) for release in RELEASES
        }
        self._top = 0.0
        self._parts: list[Html] = []

    def draw(self) -> Html:
        self._phases()
        beginning = self._top
        self._throughput()
        self._waits()
        if self._record.progress:
            self._backfill()
        if self._record.faults:
            self._faults(beginning)
        self._axis()
        self._pointer(beginning)
        return element(
            "svg",
            *self._parts,
            viewBox=f"0 0 {self._width} {self._top:.0f}",
            width=self._width,
            height=round(self._top),
            role="img",
            aria_label="Phases, throughput, waits and faults over time; the tables below say the same.",
        )

    # --- where things are ---

    def _x(self, seconds: float) -> float:
        inside = self._width - _LEFT - _RIGHT
        return _LEFT + inside * min(max(seconds / self._end, 0.0), 1.0)

    def _add(self, name: str, *children: Child, **attributes: str | float | None) -> None:
        self._parts.append(element(name, *children, **attributes))

    def _text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> None:
        self._add("text", text, x=x, y=y, class_=kind or None, text_anchor=anchor if anchor != "start" else None)

    def _heading(self, text: str, *, note: str = "") -> None:
        self._top += 20
        self._add(
            "text",
            element("tspan", text, class_="heading"),
            element("tspan", f"  {note}", class_="quiet") if note else None,
            x=0.0,
            y=self._top,
        )
        self._top += 8

    # --- the panels, from top to bottom ---

    def _phases(self) -> None:
        """Each phase as a stretch of a band, its name above it in the first row where there is room."""
        flags = _rows([(self._x(phase.began), _breadth(phase.name)) for phase in self._record.phases], self._width)
        height = (1 + max((row for row, _ in flags), default=0)) * _ROW
        band = height + 6
        for phase, (row, x) in zip(self._record.phases, flags, strict=True):
            left, right = self._x(phase.began), self._x(phase.ended)
            kind = phase.name if phase.name in VERBS else "idle"
            baseline = height - row * _ROW - 5
            self._add("line", x1=left + 0.5, x2=left + 0.5, y1=baseline + 3, y2=band, class_=f"stem {kind}")
            self._text(x, baseline, phase.name, kind="flag quiet" if kind == "idle" else "flag")
            self._add(
                "rect",
                x=left,
                y=band,
                width=max(right - left - 1, 1.5),
                height=10.0,
                rx=2.0,
                class_=f"phase {kind}",
            )
        self._top = band + 14.0

    def _panel(self, height: float) -> tuple[float, float]:
        """Room for a panel with every phase of the upgrade shaded in it; its top and bottom."""
        top, bottom = self._top, self._top + height
        for phase in self._record.phases:
            if phase.name in VERBS:
                left, right = self._x(phase.began), self._x(phase.ended)
                self._add(
                    "rect", x=left, y=top, width=max(right - left, 1.5), height=height, class_=f"shade {phase.name}"
                )
        self._top = bottom + 4
        return top, bottom

    def _grid(self, y: float, label: str) -> None:
        self._add("line", x1=float(_LEFT), x2=float(self._width - _RIGHT), y1=y, y2=y, class_="grid")
        self._text(_LEFT - 6.0, y + 4, label, kind="quiet", anchor="end")

    def _throughput(self) -> None:
        self._heading("requests a second", note=_each(self._seconds))
        top, bottom = self._panel(110.0)
        peak = max((c.per_second for found in self._columns.values() for c in found), default=0.0)
        step = _nice(max(peak, 1.0) / 3)
        scale = (bottom - top) / max(peak * 1.08, step)
        for number in range(int(peak * 1.08 / step) + 1):
            self._grid(bottom - number * step * scale, _short(number * step))
        for release, found in self._columns.items():
            for stretch in _stretches(found, self._seconds):
                points = self._steps([(c, bottom - c.per_second * scale) for c in stretch])
                self._add("path", d=f"{_line(points)}V{bottom:.1f}H{points[0][0]:.1f}Z", class_=f"area {release}")
                self._add("path", d=_line(points), class_=f"line {release}")
            for column in found:
                if column.failed:
                    left, right = self._x(column.at), self._x(column.at + column.seconds)
                    self._add(
                        "rect",
                        x=left,
                        y=bottom - max(column.failed / column.seconds * scale, 5.0),
                        width=max(right - left, 3.0),
                        height=max(column.failed / column.seconds * scale, 5.0),
                        class_="failed",
                    )

    def _steps(self, heights: Sequence[tuple[Column, float]]) -> list[tuple[float, float]]:
        """Points at the middle of each column; a stretch of one column is as wide as that."""
        if len(heights) == 1:
            column, y = heights[0]
            return [(self._x(column.at), y), (self._x(column.at + column.seconds), y)]
        return [(self._x(column.at + column.seconds / 2), y) for column, y in heights]

    def _waits(self) -> None:
        """On a logarithmic scale: from the median of a quiet second to the worst of all lie orders of magnitude."""
        self._heading("waits", note="band: median to p99; dots: the worst")
        top, bottom = self._panel(130.0)
        every = [c for found in self._columns.values() for c in found if c.worst_ms > 0]
        low = math.floor(math.log10(max(min((c.p50_ms or c.worst_ms for c in every), default=1.0), 0.1)))
        high = math.log10(max((c.worst_ms for c in every), default=10.0) * 1.25)
        high = max(high, low + 1.0)

        def y(ms: float) -> float:
            share = (math.log10(max(ms, 10.0**low)) - low) / (high - low)
            return bottom - (bottom - top) * min(share, 1.0)

        for power in range(low, math.floor(high) + 1):
            self._grid(y(10.0**power), _short_ms(10.0**power))
        for release, found in self._columns.items():
            for stretch in _stretches([c for c in found if c.worst_ms > 0], self._seconds):
                upper = self._steps([(c, y(c.p99_ms)) for c in stretch])
                lower = self._steps([(c, y(c.p50_ms)) for c in stretch])
                self._add("path", d=_line([*upper, *reversed(lower)]) + "Z", class_=f"band {release}")
                self._add("path", d=_line(upper), class_=f"line {release}")
                for column in stretch:
                    middle = self._x(column.at + column.seconds / 2)
                    self._add("circle", cx=middle, cy=y(column.worst_ms), r=1.8, class_=f"dot {release}")

    def _backfill(self) -> None:
        tables: dict[str, list[Backfilled]] = {}
        for step in self._record.progress:
            tables.setdefault(step.table, []).append(step)
        self._heading("rows filled")
        for table, steps in tables.items():
            whole = max(1, *(step.done for step in steps), *(step.total or 0 for step in steps))
            top, bottom = self._panel(26.0)
            points = [(self._x(step.at), bottom - 1 - (bottom - top - 2) * step.done / whole) for step in steps]
            right = points[-1][0]
            self._add(
                "path", d=f"M{points[0][0]:.1f} {bottom:.1f}L{_line(points)[1:]}V{bottom:.1f}Z", class_="area migrate"
            )
            self._add("path", d=_line(points), class_="line migrate")
            self._add("line", x1=float(_LEFT), x2=float(self._width - _RIGHT), y1=bottom, y2=bottom, class_="grid")
            label = f"{table}: {max(step.done for step in steps):,}"
            # Beside its curve where there is room: to the right of its end, else to the left of its beginning.
            if right + 8 + _breadth(label) <= self._width:
                self._text(right + 8, bottom - 7, label)
            elif points[0][0] - 8 - _breadth(label) >= 0:
                self._text(points[0][0] - 8, bottom - 7, label, anchor="end")
            else:
                self._top += _ROW - 2
                self._text(float(_LEFT), self._top - 5, label)

    def _faults(self, beginning: float) -> None:
        """A numbered mark for each, and a line through all panels; the list below the drawing says what they are."""
        self._heading("faults")
        faults = in_order(self._record.faults)
        marks = _rows([(self._x(fault.at) - 8, 16.0) for fault in faults], self._width)
        top = self._top
        for number, (fault, (row, left)) in enumerate(zip(faults, marks, strict=True), start=1):
            x, y = self._x(fault.at), top + 9 + row * 20
            self._add("line", x1=x, x2=x, y1=beginning, y2=y - 8, class_="fault-line")
            if fault.until is not None:
                end = self._x(fault.until)
                self._add("rect", x=x, y=y - 2, width=max(end - x, 2.0), height=4.0, rx=2.0, class_="fault-bar")
            words = element("title", f"{number}. {fault.title}, at {clock(fault.at)}")
            self._add(
                "g",
                words,
                element("circle", cx=left + 8, cy=y, r=8.0, class_="fault-mark"),
                element("text", number, x=left + 8, y=y + 3.5, class_="fault-number", text_anchor="middle"),
            )
        self._top = top + 20.0 * (1 + max(row for row, _ in marks))

    def _axis(self) -> None:
        y = self._top + 6
        step = _nice_seconds(self._end * 62 / (self._width - _LEFT - _RIGHT))
        self._add("line", x1=float(_LEFT), x2=float(self._width - _RIGHT), y1=y, y2=y, class_="axis")
        for number in range(int(self._end / step) + 1):
            x = self._x(number * step)
            self._add("line", x1=x, x2=x, y1=y, y2=y + 4, class_="axis")
            label = _moment(number * step)
            # The last one must not stand out of the drawing.
            anchor = "end" if x + _breadth(label) / 2 > self._width else "middle"
            self._text(min(x, self._width), y + 17, label, kind="quiet", anchor=anchor)
        self._top = y + 24

    def _pointer(self, beginning: float) -> None:
        """An invisible stripe for each column, which shows its numbers while it is pointed at or touched."""
        stripes: dict[float, dict[Release, Column]] = {}
        for release, found in self._columns.items():
            for column in found:
                stripes.setdefault(column.at, {})[release] = column
        bottom = self._top - 24
        lines = len(RELEASES)
        base = self._top + 4
        shown = [
            element(
                "text", "Point at the drawing for the numbers of that moment.", x=0.0, y=base + 10, class_="hint quiet"
            )
        ]
        for at, by_release in sorted(stripes.items()):
            left, right = self._x(at), self._x(at + self._seconds)
            said: list[tuple[str, Release]] = []
            for release, column in by_release.items():
                failed = f", {column.failed} failed" if column.failed else ""
                text = (
                    f"{clock(at)}  {release}: {column.per_second:,.0f}/s{failed}, median {wait(column.p50_ms)},"
                    f" p99 {wait(column.p99_ms)}, worst {wait(column.worst_ms)}"
                )
                said += [(part, release) for part in _folded(text, self._width)]
            texts = [
                element("text", part, x=0.0, y=base + 10 + n * 14, class_=f"told {release}")
                for n, (part, release) in enumerate(said)
            ]
            lines = max(lines, len(said))
            shown.append(
                element(
                    "g",
                    element(
                        "rect", x=left, y=beginning, width=right - left, height=bottom - beginning, class_="stripe"
                    ),
                    *texts,
                    class_="moment",
                )
            )
        self._parts.append(join(shown))
        self._top = base + 14.0 * lines


# --- geometry ---


def _rows(wanted: Sequence[tuple[float, float]], width: float) -> list[tuple[int, float]]:
    """For labels at (left, breadth): the lowest row where each is clear of the others, and its left there."""
    ends: list[float] = []
    placed = []
    for left, breadth in wanted:
        left = max(0.0, min(left, width - breadth))
        row = next((row for row, end in enumerate(ends) if end + 6 <= left), len(ends))
        if row == len(ends):
            ends.append(0.0)
        ends[row] = left + breadth
        placed.append((row, left))
    return placed


def _breadth(text: str) -> float:
    """About how wide ``text`` is; rather more, since fonts differ."""
    return len(text) * _FONT * 0.6


def _folded(text: str, width: float) -> list[str]:
    """``text`` in lines that are no wider than ``width``."""
    if _breadth(text) <= width:
        return [text]
    at = text.rfind(", ", 0, int(width / (_FONT * 0.6)))
    return [text] if at < 0 else [text[: at + 1], *_folded("    " + text[at + 2 :], width)]


def _stretches(found: Sequence[Column], seconds: int) -> list[list[Column]]:
    """Columns without a gap between them, so that no line is drawn over a time in which nothing was answered."""
    made: list[list[Column]] = []
    for column in found:
        if made and column.at - made[-1][-1].at <= seconds:
            made[-1].append(column)
        else:
            made.append([column])
    return made


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _nice(at_least: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= at_least * 0.999)


def _nice_seconds(at_least: float) -> int:
    """The next round number of seconds, minutes or hours."""
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400):
        if step >= at_least:
            return step
    return 3600 * math.ceil(at_least / 3600)


def _moment(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d} h" if hours else f"{rest // 60}:{rest % 60:02d}"


def _short(number: float) -> str:
    if number < 1000:
        return f"{number:g}"
    return f"{number / 1000:g}k" if number < 1_000_000 else f"{number / 1_000_000:g}M"


def _short_ms(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _each(seconds: int) -> str:
    return "" if seconds == 1 else f"a point for each {_moment(seconds)}"
