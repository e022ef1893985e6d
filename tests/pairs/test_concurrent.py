"""Two writers of each release on the same few rows: none is refused for good, and the tables agree afterwards."""

from __future__ import annotations

import random
import threading

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
    errors: list[BaseException] = []

    def run(table: sa.Table, seed: int) -> None:
        try:
            _writer(database, bench, table, seed)
        except BaseException as error:  # noqa: BLE001 - shown by the test itself
            errors.append(error)

    try:
        bench.install()
        if bench.adapter.product == "postgresql":  # looks for deadlocks after a second only
            name = bench.connection.engine.url.database
            bench.connection.exec_driver_sql(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
        for row in ROWS:
            bench.insert(bench.main, row, {"name": "x"})
        tables = (bench.main, bench.companion)
        threads = [threading.Thread(target=run, args=(tables[seed % 2], seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert bench.differing() == 0
        assert set(bench.read(bench.companion)) <= set(ROWS)
    finally:
        bench.close()
