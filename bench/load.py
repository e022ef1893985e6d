"""Upgrades under a long load: failed requests, lost values, the worst stall; what CI does with 20 000 requests.

    python -m bench.load --life "table is split" --server postgresql --requests 1000000

An upgrade is told by a part of its name (``--list`` shows all). Its row in bench/RESULTS.md is written when it ends,
one for each upgrade and server; ``--dry`` leaves the file alone. What has ended stands in ``--state`` as well, so that
the same command goes on with the next one where it was interrupted: a single upgrade begins anew, since its server goes
with the run. ``--hours`` begins no other one after that time. Exits with 1 if a request failed, a value was lost or an
upgrade broke.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.harness import started
from bench.report import RESULTS, Run, grouped
from contraflow.problems import ContraflowError
from tests.operations.courses import COURSES, Course
from tests.operations.load import Result, carry
from tests.servers.shared import ALL, Database, new_engine

BEGIN, END = "<!-- begin load -->", "<!-- end load -->"
SHOWN = 10
"""Of failed requests and lost values, so many are told."""


@dataclass(kw_only=True)
class State:
    """What has ended, in a file that is written after each upgrade."""

    path: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By upgrade and server: the result as plain data, and how many requests were asked for."""

    @classmethod
    def read(cls, path: Path) -> State:
        """As the file has it; nothing without a file."""
        return cls(path=path, done=json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})

    def has(self, course: Course, kind: str, requests: int) -> bool:
        """Whether the upgrade passed there with as many requests."""
        found = self.done.get(_key(course.name, kind))
        return found is not None and found["asked"] >= requests and not (found["failed"] or found["lost"])

    def add(self, result: Result, asked: int) -> None:
        """Keep it, so that a kill at any moment leaves the file as it was before or as it is now."""
        shown = {"failed": result.failed[:SHOWN], "lost": result.lost[:SHOWN]}
        self.done[_key(result.life, result.server)] = {**result.as_dict(), **shown, "asked": asked}
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_text(json.dumps(self.done, indent=1), encoding="utf-8")
        os.replace(beside, self.path)


def _key(life: str, kind: str) -> str:
    return f"{life} | {kind}"


def measure(kind: str, course: Course, requests: int) -> Result:
    """The upgrade on a scratch server of its own."""
    began = time.monotonic()
    with started(kind, say=_say) as server:
        url = server.create_database()
        engine = new_engine(url)
        try:
            return carry(Database(server=server, url=url, engine=engine), course, requests)
        except (ContraflowError, sa.exc.SQLAlchemyError) as error:
            broken = f"the upgrade broke: {error}"
            return Result(life=course.name, server=kind, failed=[broken], seconds=time.monotonic() - began)
        finally:
            engine.dispose()


def record(result: Result, run: Run, asked: int, text: str) -> str:
    """``text`` with the result's row, in the place of an earlier one of the same upgrade and server."""
    before, opened, rest = text.partition(f"{BEGIN}\n")
    section, closed, after = rest.partition(END)
    if not opened or not closed:
        raise ValueError(f"{RESULTS.name} has no {BEGIN} ... {END}")
    head, rule, *rows = [line for line in section.splitlines() if line.startswith("|")]
    mine = f"| {result.life} | {result.server} |"
    today = dt.datetime.now(dt.timezone.utc).date()
    row = (
        f"{mine} {grouped(result.requests)} | {len(result.failed)} | {len(result.lost)} | {result.retried} |"
        f" {result.worst * 1000:.0f} | {result.phase} | {result.requests / result.seconds:.0f} | {today} |"
    )
    rows = sorted([*(other for other in rows if not other.startswith(mine)), row])
    where = f"{run.machine}, {run.versions}, load average before: {run.load}"
    told = f"The last of these: `python -m bench.load --requests {asked}`, {where}"
    return "\n".join([f"{before}{BEGIN}", told, "", head, rule, *rows, f"{END}{after}"])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _wanted(
    kinds: Sequence[str], courses: Sequence[Course], state: State, requests: int
) -> Iterator[tuple[str, Course]]:
    for kind in kinds:
        for course in courses:
            if state.has(course, kind, requests):
                _say(f"{_key(course.name, kind)}: done before")
            else:
                yield kind, course


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--life", action="append", default=[], help="part of a name; repeatable. Without it, all.")
    parser.add_argument("--server", action="append", choices=ALL, default=[], help="repeatable. Without it, all.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--hours", type=float, help="begin no other upgrade after so many.")
    parser.add_argument("--state", type=Path, default=Path("load.json"), help="what has ended. Default: load.json.")
    parser.add_argument("--list", action="store_true", help="show the names, and do nothing.")
    parser.add_argument("--dry", action="store_true", help="leave bench/RESULTS.md as it is.")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(course.name for course in COURSES))
        return 0
    courses = [course for course in COURSES if any(part in course.name for part in arguments.life or [""])]
    if not courses:
        parser.error(f"no upgrade has {' or '.join(map(repr, arguments.life))} in its name; --list shows them.")
    state, asked, began, bad = State.read(arguments.state), arguments.requests, time.monotonic(), False
    for kind, course in _wanted(arguments.server or ALL, courses, state, asked):
        if arguments.hours is not None and time.monotonic() - began >= arguments.hours * 3600:
            _say("the time is over; the same command goes on")
            break
        run = Run.now([])
        result = measure(kind, course, asked)
        state.add(result, asked)
        for what in (*result.failed, *result.lost)[:SHOWN]:
            _say(what)
        bad = bad or bool(result.failed or result.lost)
        print(result.as_dict() | {"failed": len(result.failed), "lost": len(result.lost)}, flush=True)
        if not arguments.dry:
            RESULTS.write_text(record(result, run, asked, RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
