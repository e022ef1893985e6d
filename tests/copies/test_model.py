"""A column that follows other tables agrees with the model on every server, whatever is written in which order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.copies.bench import SCENES, Bench, Model, Scene, Values
from tests.servers.shared import Database

KEYS = (1, 2)
PLACES = ("Ulm", "ulm", "Rom", None)
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "goods": {"maker": (1, 2, None), "note": ("n", "m"), "place": PLACES},
    "labels": {"place": PLACES, "note": ("n", "m")},
    "stored": {"good": KEYS, "store": (1, 2, None), "note": ("n", "m")},
    "stores": {"place": PLACES, "note": ("n", "m")},
}
WALKS, STATEMENTS, BEFORE = 3, 110, 12


@dataclass(kw_only=True)
class Walk:
    """Random statements of both releases, sent to a server and to the model."""

    bench: Bench
    chance: random.Random
    model: Model
    filled: bool = False
    history: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self) -> None:
        """Rows from before, then the triggers, then the backfill, with statements all the time."""
        self.bench.remove()
        for _ in range(BEFORE):
            self.statement()
        self.bench.install()
        self.model.installed = True
        for number in range(STATEMENTS):
            if number == BEFORE:
                self.bench.backfill()
                self.model.settle()
                self.filled = True
                assert self.bench.backfill() == 0
            self.statement()
            if self.filled:
                assert self.bench.read("goods") == self.model.rows["goods"], self.history[-20:]
                assert self.bench.missed() == 0, self.history[-20:]

    def statement(self) -> None:
        rare: tuple[Callable[[], None], ...] = (self.many, self.upsert, self.delete, self.rekey)
        self.chance.choice((*(self.write,) * 8, *rare))()

    def both(self, kind: str, *given: Any) -> None:
        self.history.append((kind, *given))
        getattr(self.bench, kind)(*given)
        getattr(self.model, kind)(*given)

    def given(self, table: str) -> Values:
        """Some of the columns. Before the backfill, nobody writes the new one."""
        names = [name for name in CHOICES[table] if self.filled or (table, name) != ("goods", "place")]
        chosen = self.chance.sample(names, self.chance.randint(1, len(names)))
        return {name: self.chance.choice(CHOICES[table][name]) for name in names if name in chosen}

    def one(self) -> tuple[str, int]:
        table = self.chance.choice(list(CHOICES))
        return table, self.chance.choice((1, 2, 3) if table == "stored" else KEYS)

    def write(self) -> None:
        """Insert the row, or update the one that is there."""
        table, key = self.one()
        given = self.given(table)
        if key in self.model.rows[table]:
            self.both("update", table, [key], given)
        else:
            self.both("insert", table, key, {"good": 1, **given} if table == "stored" else given)

    def many(self) -> None:
        """Several rows of a table whose order cannot matter, by one statement."""
        table = self.chance.choice(("goods", "labels", "stores"))
        given = self.given("goods") if table == "goods" else {"place": self.chance.choice(PLACES[:-1])}
        self.both("update", table, list(KEYS), given)

    def upsert(self) -> None:
        table, key = self.one()
        name = "note" if table in ("goods", "stored") else "place"
        given = {name: self.chance.choice(CHOICES[table][name])}
        if table != "stored":
            self.both("upsert", table, key, given)

    def delete(self) -> None:
        table, key = self.one()
        self.both("delete", table, [key])

    def rekey(self) -> None:
        table, key = self.one()
        to = self.chance.randint(1, 3)
        if key in self.model.rows[table] and to not in self.model.rows[table]:
            self.both("rekey", table, key, to)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_copy_agrees_with_the_model(database: Database, scene: Scene) -> None:
    bench = Bench.made(database, scene)
    try:
        for seed in range(WALKS):
            Walk(bench=bench, chance=random.Random(seed), model=Model(scene=scene))()
    finally:
        bench.close()
