"""One upgrade under a long load: failed requests, lost values, the worst stall; what CI does with 20 000 requests.

    python -m bench.load --life "table is split" --server postgresql --requests 1000000

An upgrade is told by a part of its name (``--list`` shows all). Its row in bench/RESULTS.md is written when it ends,
one for each upgrade and server; ``--dry`` leaves the file alone. Exits with 1 if a request failed or a value was lost.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys

from bench.harness import started
from bench.report import RESULTS, grouped
from contraflow.rehearsal.servers import KINDS
from tests.operations.courses import COURSES, Course
from tests.operations.load import Result, carry
from tests.servers.shared import Database, new_engine

BEGIN, END = "<!-- begin load -->", "<!-- end load -->"


def measure(kind: str, course: Course, requests: int) -> Result:
    """The upgrade on a scratch server of its own."""
    with started(kind, say=_say) as server:
        url = server.create_database()
        engine = new_engine(url)
        try:
            return carry(Database(server=server, url=url, engine=engine), course, requests)
        finally:
            engine.dispose()


def record(result: Result, text: str) -> str:
    """``text`` with the result's row, in the place of an earlier one of the same upgrade and server."""
    before, opened, rest = text.partition(f"{BEGIN}\n")
    table, closed, after = rest.partition(END)
    if not opened or not closed:
        raise ValueError(f"{RESULTS.name} has no {BEGIN} ... {END}")
    head, rule, *rows = table.splitlines()
    mine = f"| {result.life} | {result.server} |"
    today = dt.datetime.now(dt.timezone.utc).date()
    row = (
        f"{mine} {grouped(result.requests)} | {len(result.failed)} | {len(result.lost)} | {result.retried} |"
        f" {result.worst * 1000:.0f} | {result.phase} | {result.requests / result.seconds:.0f} | {today} |"
    )
    rows = sorted([*(other for other in rows if not other.startswith(mine)), row])
    return "\n".join([f"{before}{BEGIN}", head, rule, *rows, f"{END}{after}"])


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--life", action="append", default=[], help="part of a name; repeatable. Without it, all.")
    parser.add_argument("--server", action="append", choices=KINDS, default=[], help="repeatable. Without it, all.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--list", action="store_true", help="show the names, and do nothing.")
    parser.add_argument("--dry", action="store_true", help="leave bench/RESULTS.md as it is.")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(course.name for course in COURSES))
        return 0
    wanted = [course for course in COURSES if any(part in course.name for part in arguments.life or [""])]
    if not wanted:
        parser.error(f"no upgrade has {' or '.join(map(repr, arguments.life))} in its name; --list shows them.")
    bad = False
    for kind in arguments.server or KINDS:
        for course in wanted:
            result = measure(kind, course, arguments.requests)
            for what in (*result.failed, *result.lost)[:10]:
                _say(what)
            bad = bad or bool(result.failed or result.lost)
            print(result.as_dict() | {"failed": len(result.failed), "lost": len(result.lost)})
            if not arguments.dry:
                RESULTS.write_text(record(result, RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
