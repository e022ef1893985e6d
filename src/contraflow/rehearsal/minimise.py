"""From a rehearsal that failed to a smaller one that fails alike, and to a script that shows it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal

__all__ = ["Smaller", "minimise", "script"]

_SHORTEST = 1.0
"""Seconds of load below which nothing is gained: starting takes longer."""


@dataclass(frozen=True, kw_only=True)
class Smaller:
    """The smallest rehearsal that was found to fail alike.

    :ivar record: what it found.
    :ivar runs: how many rehearsals it took to find it.
    """

    rehearsal: Rehearsal
    record: Record
    runs: int

    @property
    def script(self) -> str:
        """A script that carries it out: see `script`."""
        return script(self.rehearsal, self.record)

    def reproduces(self, record: Record) -> Record:
        """``record`` with the script beside each finding that this rehearsal found, too."""
        text, found = self.script, _symptom(self.record)
        findings = (
            replace(finding, reproduce=text) if (finding.kind, finding.table) in found else finding
            for finding in record.findings
        )
        return replace(record, findings=tuple(findings))


def minimise(
    rehearsal: Rehearsal,
    record: Record,
    *,
    run: Callable[[Rehearsal], Record] = Rehearsal.run,
    most: int = 30,
    again: int = 2,
    progress: Callable[[str], None] = lambda _line: None,
) -> Smaller:
    """Leave out faults, clients, rows and seconds as long as it fails alike: with a finding of the same kind in the
    same table, or refused as before.

    The seed decides what the clients choose, not how their transactions interleave: a smaller rehearsal may pass once
    and fail the next time. So the result is small, and was seen to fail; it is not the smallest there is.

    :param record: of ``rehearsal``, which failed.
    :param run: carries out a rehearsal.
    :param most: how many rehearsals may be run.
    :param again: how often one that passes is run before it counts as passing.
    :param progress: called with a line of text before each.
    :raises ValueError: if ``record`` is not one of a failure.
    """
    if record.verdict != "failed":
        raise ValueError(f"there is nothing to minimise: the verdict is {record.verdict!r}")
    search = _Search(symptom=_symptom(record), run=run, left=most, again=again, progress=progress)
    found = Smaller(rehearsal=rehearsal, record=record, runs=0)
    for smaller in (_fewer_faults, _fewer_workers, _fewer_rows, _fewer_seconds):
        found = search.shrink(found, smaller)
    return replace(found, runs=most - search.left)


def script(rehearsal: Rehearsal, record: Record) -> str:
    """A Python script that carries out ``rehearsal`` again, tells what it finds, and ends with 1 if it fails.

    It names files by their full paths, and needs Contraflow and nothing else. A server's URL, which may hold a
    password, is left out: it is taken from the environment (``CONTRAFLOW_URL``).
    """
    usual = Rehearsal()
    chosen = {
        name: getattr(rehearsal, name)
        for name in (field.name for field in dataclasses.fields(Rehearsal))
        if name not in _APART and getattr(rehearsal, name) != getattr(usual, name)
    }
    chosen = {"config": Path(rehearsal.config or "alembic.ini"), **chosen}
    lines = [f"    {name}={_code(value)}," for name, value in chosen.items()]
    standard = ["from pathlib import Path"]
    if rehearsal.data is not None:
        lines.append(f"    data={_code(Path(rehearsal.data))},")
    if rehearsal.url is not None:
        standard.insert(0, "import os")
        lines.append("    url=os.environ['CONTRAFLOW_URL'],")
    imports = ["from contraflow.rehearsal.rehearse import Rehearsal"]
    if any(isinstance(value, Workload) for value in chosen.values()):
        imports.insert(0, "from contraflow.rehearsal.nodes import Workload")
    if rehearsal.faults:
        imports.insert(0, "from contraflow.rehearsal.faults import parse")
        named = [f"        parse({str(fault)!r})," for fault in rehearsal.faults]
        lines += ["    faults=(", *named, "    ),"]
    found = [f"# {line}" for line in record.reason.splitlines()]
    return "\n".join(
        [
            f"# Rehearses {record.old}:{record.new} again, on {record.server} {record.server_version}. What was found:",
            *found,
            "",
            *standard,
            "",
            *imports,
            "",
            "rehearsal = Rehearsal(",
            *lines,
            ")",
            _REST,
        ]
    )


_APART = frozenset({"config", "data", "url", "faults", "command", "instead"})
"""What a script writes in a way of its own, or not at all."""

_REST = """\
record = rehearsal.run(progress=print)
print(f"{record.verdict}: {record.reason}")
for finding in record.findings:
    print(f"- {finding.kind}: {finding.table} {finding.key}: {finding.what}")
    for event in finding.history:
        print(f"    {event.at:8.3f} s  {event.release}  {event.action}  {dict(event.values)}  {event.outcome}")
raise SystemExit(record.verdict != "passed")
"""


def _code(value: object) -> str:
    """An expression that yields ``value``."""
    if isinstance(value, Path):
        return f"Path({str(value.absolute())!r})"
    if isinstance(value, Workload):
        given = {"python": value.python, "call": value.call, "folder": value.folder, "recordings": value.recordings}
        return f"Workload({', '.join(f'{name}={_code(one)}' for name, one in given.items())})"
    if isinstance(value, tuple):
        return f"({''.join(f'{_code(one)}, ' for one in value)})"
    return repr(value)


# -- the search ---


def _symptom(record: Record) -> frozenset[tuple[str, str]]:
    """What tells a failure from another; nothing for an upgrade that was refused."""
    return frozenset((finding.kind, finding.table) for finding in record.findings)


@dataclass(kw_only=True)
class _Search:
    symptom: frozenset[tuple[str, str]]
    run: Callable[[Rehearsal], Record]
    left: int
    again: int
    progress: Callable[[str], None]

    def shrink(self, found: Smaller, candidates: Callable[[Rehearsal], Iterator[Rehearsal]]) -> Smaller:
        """Take the first smaller one that fails alike, and go on from there, until none does."""
        while True:
            smaller = next(filter(None, map(self._try, candidates(found.rehearsal))), None)
            if smaller is None:
                return found
            found = smaller

    def _try(self, rehearsal: Rehearsal) -> Smaller | None:
        for _ in range(self.again):
            if self.left == 0:
                return None
            self.left -= 1
            self.progress(
                f"{len(rehearsal.faults)} faults, {rehearsal.workers} workers, {rehearsal.rows} rows,"
                f" {rehearsal.seconds:g} seconds"
            )
            record = self.run(rehearsal)
            alike = _symptom(record) & self.symptom if self.symptom else not record.findings
            if record.verdict == "failed" and alike:
                return Smaller(rehearsal=rehearsal, record=record, runs=0)
        return None


def _fewer_faults(rehearsal: Rehearsal) -> Iterator[Rehearsal]:
    """Without any; then with ever larger parts left out, down to single ones (as in delta debugging)."""
    faults = rehearsal.faults
    size = len(faults)
    while size > 0:
        for start in range(0, len(faults), size):
            yield replace(rehearsal, faults=faults[:start] + faults[start + size :])
        size //= 2


def _fewer_workers(rehearsal: Rehearsal) -> Iterator[Rehearsal]:
    yield from (replace(rehearsal, workers=number) for number in _below(rehearsal.workers, 1))


def _fewer_rows(rehearsal: Rehearsal) -> Iterator[Rehearsal]:
    yield from (replace(rehearsal, rows=number) for number in _below(rehearsal.rows, 1))


def _fewer_seconds(rehearsal: Rehearsal) -> Iterator[Rehearsal]:
    if rehearsal.seconds > _SHORTEST:
        yield replace(rehearsal, seconds=max(_SHORTEST, rehearsal.seconds / 2))


def _below(number: int, least: int) -> Iterator[int]:
    """Smaller numbers, the smallest first: it is the one that helps most."""
    yield from sorted({least, number // 4, number // 2} & set(range(least, number)))
