"""How often a transaction must be run again because two releases lock the two rows of one thing in opposite order.

Two writers of each release write the columns of one pair of tables, in the table that their release has them in, one
row a transaction, as fast as they can, on few rows (hot) and on many. A transaction that was run again counts as a
retry; none fails, and afterwards the two tables agree.

    python -m bench.pair_deadlocks [--server postgresql ...] [--seconds 5]
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from dataclasses import dataclass

import sqlalchemy as sa

from contraflow.rehearsal import servers
from contraflow.retry import run_transaction
from tests.pairs.bench import SCENES, Bench
from tests.servers.shared import Database, new_engine

ROWS = (20, 2000)
WRITERS = 4
SCENE = next(scene for scene in SCENES if scene.name == "split")


@dataclass(kw_only=True)
class Tally:
    """What one writer came to."""

    done: int = 0
    tried: int = 0
    longest: float = 0.0


def write(url: sa.URL, table: sa.Table, rows: int, seed: int, end: float, tally: Tally) -> None:
    """Write random rows of one table until the end."""
    chance = random.Random(seed)
    key = next(iter(table.primary_key))
    engine = new_engine(url)
    while (began := time.monotonic()) < end:
        row, value = chance.randint(1, rows), f"{seed} {tally.done}"

        def work(tx: sa.Connection, row: int = row, value: str = value) -> None:
            tally.tried += 1
            tx.execute(sa.update(table).where(key == row).values(bio=value))

        run_transaction(engine, work, attempts=None)
        tally.done += 1
        tally.longest = max(tally.longest, time.monotonic() - began)
    engine.dispose()


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
        end = time.monotonic() + seconds
        tallies = [Tally() for _ in range(WRITERS)]
        threads = [
            threading.Thread(target=write, args=(url, (bench.main, bench.companion)[seed % 2], rows, seed, end, tally))
            for seed, tally in enumerate(tallies)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, tried = sum(tally.done for tally in tallies), sum(tally.tried for tally in tallies)
        longest = max(tally.longest for tally in tallies) * 1000
        return (
            f"| {server.kind} | {rows} | {done} | {done / seconds:.0f} | {(tried - done) / done * 1000:.1f} |"
            f" {longest:.0f} | {bench.differing()} |"
        )
    finally:
        bench.close()
        engine.dispose()
        server.drop_database(url)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    lines = [
        "| server | rows | transactions | a second | retries per 1000 | longest, ms | rows that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in options.server or ["sqlite", "postgresql", "mariadb", "mysql"]:
        with servers.start(name) as server:
            lines += [measure(server, rows, options.seconds) for rows in ROWS]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
