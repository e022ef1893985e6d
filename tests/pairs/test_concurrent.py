"""Two writers of each release on the same few rows: none is refused for good, and the tables agree afterwards."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from contraflow.retry import run_transaction
from tests.pairs.bench import SCENES, Bench, Scene
from tests.servers.shared import Database, new_engine

ROWS = (1, 2, 3)
WRITES = 40


def _writer(database: Database, bench: Bench, table: sa.Table, seed: int) -> None:
    """Write random values to random rows of one table, two in a transaction, as an application with retries does."""
    chance = random.Random(seed)
    key = next(iter(table.primary_key))
    values = {
        name.partition(".")[2]: found for name, found in bench.scene.values.items() if name.startswith(f"{table.name}.")
    }
    engine = new_engine(database.url)
    try:
        for _ in range(WRITES):
            chosen = [
                (chance.choice(ROWS), {name: chance.choice(found) for name, found in values.items()}) for _ in "12"
            ]

            def work(tx: sa.Connection, chosen: list[tuple[int, dict[str, object]]] = chosen) -> None:
                for row, given in chosen:
                    tx.execute(sa.update(table).where(key == row).values(given))

            run_transaction(engine, work, attempts=None)
    finally:
        engine.dispose()


@pytest.mark.parametrize("scene", [scene for scene in SCENES if "loses letters" in scene.name], ids=lambda _: "lossy")
def test_writers_of_both_tables_at_once(database: Database, scene: Scene) -> None:
    bench = Bench.made(database, scene)
    try:
        bench.install()
        database.hasten_deadlocks()
        for row in ROWS:
            bench.insert(bench.main, row, {"name": "x"})
        tables = (bench.main, bench.companion)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda seed: _writer(database, bench, tables[seed % 2], seed), range(4)))
        assert bench.differing() == 0
        assert set(bench.read(bench.companion)) <= set(ROWS)
    finally:
        bench.close()
