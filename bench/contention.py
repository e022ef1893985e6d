"""Writers in each other's way, one row a transaction, as fast as they can: how often they had to begin again."""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from contraflow.rehearsal import servers
from contraflow.retry import run_transaction
from tests.servers.shared import new_engine

__all__ = ["Make", "contend", "run"]

Make = Callable[[random.Random, int], sa.Update]
"""The next statement of a writer, which has carried out so many."""
Size = TypeVar("Size")


@dataclass(kw_only=True)
class _Tally:
    """What one writer came to."""

    done: int = 0
    tried: int = 0
    longest: float = 0.0


def _write(url: sa.URL, make: Make, seed: int, end: float, tally: _Tally) -> None:
    """Write until the end."""
    chance = random.Random(seed)
    engine = new_engine(url)
    while (began := time.monotonic()) < end:
        statement = make(chance, tally.done)

        def work(tx: sa.Connection, statement: sa.Update = statement) -> None:
            tally.tried += 1
            tx.execute(statement)

        run_transaction(engine, work, attempts=None)
        tally.done += 1
        tally.longest = max(tally.longest, time.monotonic() - began)
    engine.dispose()


def contend(url: sa.URL, writers: Sequence[Make], seconds: float) -> str:
    """Let them write at once: cells of a table, transactions, a second, retries per 1000, and the longest in ms."""
    end = time.monotonic() + seconds
    tallies = [_Tally() for _ in writers]
    threads = [
        threading.Thread(target=_write, args=(url, make, seed, end, tally))
        for seed, (make, tally) in enumerate(zip(writers, tallies, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done, tried = sum(tally.done for tally in tallies), sum(tally.tried for tally in tallies)
    longest = max(tally.longest for tally in tallies) * 1000
    return f"{done} | {done / seconds:.0f} | {(tried - done) / done * 1000:.1f} | {longest:.0f}"


def run(
    doc: str | None, columns: str, sizes: Sequence[Size], measure: Callable[[servers.Server, Size, float], str]
) -> None:
    """Measure each size on each server that is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--server", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    head = f"| server | {columns} | transactions | a second | retries per 1000 | longest, ms | rows that differ |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name in options.server or ["sqlite", "postgresql", "mariadb", "mysql"]:
        with servers.start(name) as server:
            lines += [measure(server, size, options.seconds) for size in sizes]
    print("\n".join(lines))
