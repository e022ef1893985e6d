"""The verdict of a demo: what was served, what failed, what differed, how long anybody had to wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contraflow.rehearsal.demo.load import Sample

__all__ = ["PhaseReport", "Verdict", "reports", "table"]


@dataclass(frozen=True, kw_only=True)
class PhaseReport:
    """One phase of the demo and the requests that were under way at any moment of it.

    Times are milliseconds as the clients saw them. A command's phase includes the start of its process.
    """

    name: str
    seconds: float
    requests: int
    median_ms: float
    worst_read_ms: float
    worst_write_ms: float

    @property
    def worst_ms(self) -> float:
        """The longest that any client waited for an answer."""
        return max(self.worst_read_ms, self.worst_write_ms)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came out of one run.

    ``counterexamples`` are the first of the failures and differences, in words.
    """

    server: str
    served: Mapping[int, int]
    failed: int
    differing: int
    values_checked: int
    phases: tuple[PhaseReport, ...]
    seconds: float
    problems: tuple[str, ...] = ()
    counterexamples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Both releases served, no phase was refused, no request failed, no value was lost or differs."""
        both = all(self.served.get(release, 0) > 0 for release in (1, 2))
        return both and not (self.failed or self.differing or self.problems)

    def as_dict(self) -> dict[str, object]:
        """The verdict as plain data, for ``--json``."""
        return {
            "passed": self.passed,
            "server": self.server,
            "requests_served": {f"release_{release}": count for release, count in self.served.items()},
            "requests_failed": self.failed,
            "values_lost_or_differing": self.differing,
            "values_checked": self.values_checked,
            "seconds": round(self.seconds, 1),
            "phases": [
                {
                    "name": phase.name,
                    "seconds": round(phase.seconds, 2),
                    "requests": phase.requests,
                    "median_ms": round(phase.median_ms, 1),
                    "worst_read_ms": round(phase.worst_read_ms, 1),
                    "worst_write_ms": round(phase.worst_write_ms, 1),
                }
                for phase in self.phases
            ],
            "problems": list(self.problems),
            "counterexamples": list(self.counterexamples),
        }


def reports(phases: Iterable[tuple[str, float, float]], samples: Sequence[Sample]) -> tuple[PhaseReport, ...]:
    """A report on each phase: its name, beginning and end (monotonic seconds)."""
    made = []
    for name, began, ended in phases:
        under_way = [sample for sample in samples if sample.sent < ended and sample.sent + sample.seconds > began]
        times = sorted(sample.seconds for sample in under_way)
        made.append(
            PhaseReport(
                name=name,
                seconds=ended - began,
                requests=len(under_way),
                median_ms=1000 * times[len(times) // 2] if times else 0.0,
                worst_read_ms=1000 * max((s.seconds for s in under_way if not s.write), default=0.0),
                worst_write_ms=1000 * max((s.seconds for s in under_way if s.write), default=0.0),
            )
        )
    return tuple(made)


def table(verdict: Verdict) -> RenderableType:
    """The verdict for a terminal."""
    phases = Table(title=f"One live upgrade on {verdict.server}", title_justify="left")
    phases.add_column("phase")
    for heading in ("seconds", "requests", "median ms", "worst read ms", "worst write ms"):
        phases.add_column(heading, justify="right")
    for phase in verdict.phases:
        phases.add_row(
            phase.name,
            f"{phase.seconds:.1f}",
            str(phase.requests),
            f"{phase.median_ms:.1f}",
            f"{phase.worst_read_ms:.0f}",
            f"{phase.worst_write_ms:.0f}",
        )
    facts = Table(show_header=False, box=None)
    facts.add_column()
    facts.add_column(justify="right")
    for release, count in sorted(verdict.served.items()):
        facts.add_row(f"requests served by release {release}", str(count))
    facts.add_row("requests failed", _judged(verdict.failed))
    facts.add_row(f"values lost or differing, of {verdict.values_checked} checked", _judged(verdict.differing))
    parts: list[RenderableType] = [phases, facts]
    parts += [Text(problem, style="red") for problem in verdict.problems]
    parts += [Text(f"- {example}", style="red") for example in verdict.counterexamples]
    parts.append(
        Text(f"PASSED in {verdict.seconds:.0f} s", style="bold green")
        if verdict.passed
        else Text(f"FAILED after {verdict.seconds:.0f} s", style="bold red")
    )
    return Group(*parts)


def _judged(count: int) -> Text:
    return Text(str(count), style="green" if count == 0 else "bold red")
