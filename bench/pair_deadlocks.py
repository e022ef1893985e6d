"""How often a transaction must be run again because two releases lock the two rows of one thing in opposite order.

Two writers of each release write the columns of one pair of tables, in the table that their release has them in, one
row a transaction, as fast as they can, on few rows (hot) and on many. A transaction that was run again counts as a
retry; none fails, and afterwards the two tables agree.

    python -m bench.pair_deadlocks [--server postgresql ...] [--seconds 5]
"""

from __future__ import annotations

import random

import sqlalchemy as sa

from bench.contention import Make, contend, run
from contraflow.rehearsal import servers
from tests.pairs.bench import SCENES, Bench
from tests.servers.shared import Database, new_engine

ROWS = (20, 2000)
WRITERS = 4
SCENE = next(scene for scene in SCENES if scene.name == "split")


def writer(table: sa.Table, rows: int, number: int) -> Make:
    """Writes random rows of one table."""
    key = next(iter(table.primary_key))

    def make(chance: random.Random, done: int) -> sa.Update:
        return sa.update(table).where(key == chance.randint(1, rows)).values(bio=f"{number} {done}")

    return make


def measure(server: servers.Server, rows: int, seconds: float) -> str:
    """One line of the table."""
    url = server.create_database()
    engine = new_engine(url)
    bench = Bench.made(Database(server=server, url=url, engine=engine), SCENE)
    try:
        for row in range(1, rows + 1):
            bench.insert(bench.main, row, {"bio": "x"})
        bench.install()
        bench.backfill()
        ends = (bench.main, bench.companion)
        told = contend(url, [writer(ends[number % 2], rows, number) for number in range(WRITERS)], seconds)
        return f"| {server.kind} | {rows} | {told} | {bench.differing()} |"
    finally:
        bench.close()
        engine.dispose()
        server.drop_database(url)


if __name__ == "__main__":
    run(__doc__, "rows", ROWS, measure)
