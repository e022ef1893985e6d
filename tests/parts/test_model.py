"""Tables whose rows are kept in step agree with the model on every server, whatever either release writes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.parts.bench import SCENES, Bench, Model, Scene, Values
from tests.servers.shared import Database

KEYS = (1, 2, 3, 4)
CHOICES: dict[str, tuple[Any, ...]] = {
    "note": ("a", "A", "a ", None),
    "total": (1, 2, None),
    "archived": (True, False, None),
    "extra": ("x", None),
}
WALKS, STATEMENTS, BEFORE = 2, 90, 10


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
        self.bench.remove_triggers()
        self.bench.clear()
        for _ in range(BEFORE):
            self.statement()
        self.bench.install()
        for number in range(STATEMENTS):
            if number == BEFORE:
                self.bench.backfill()
                self.filled = True
                assert self.bench.backfill() == 0
            self.statement()
            if self.filled:
                for table in self.bench.scene.tables:
                    assert self.bench.read(table) == self.model.read(table), (table, self.history[-20:])
                assert not any(self.bench.drift()), self.history[-20:]

    @property
    def scene(self) -> Scene:
        return self.bench.scene

    def statement(self) -> None:
        rare: tuple[Callable[[], None], ...] = (self.many, self.upsert, self.delete, self.rekey, self.move)
        self.chance.choice((*(self.write,) * 6, *rare))()

    def both(self, kind: str, *given: Any, **more: Any) -> None:
        self.history.append((kind, *given))
        getattr(self.bench, kind)(*given, **more)
        getattr(self.model, kind)(*given, **more)

    def table(self) -> str:
        """Before the backfill, only the old release writes."""
        old = ["orders"] if self.scene.old == "whole" else list(self.scene.parts)
        return self.chance.choice(list(self.scene.tables) if self.filled else old)

    def given(self, table: str) -> Values:
        """Some of the columns, on the table's own side of the condition."""
        columns, _, mine = (CHOICES, {}, bool) if table == "orders" else self.scene.parts[table]
        names = [name for name in columns if name in CHOICES]
        chosen = self.chance.sample(names, self.chance.randint(1, len(names)))
        given = {name: self.chance.choice(CHOICES[name]) for name in names if name in chosen}
        if table != "orders" and "archived" in names:
            given["archived"] = next(value for value in CHOICES["archived"] if mine(value))
        return given

    def write(self) -> None:
        """Insert the row, or update the one that is there."""
        table, key = self.table(), self.chance.choice(KEYS)
        if key in self.model.read(table):
            self.both("update", table, [key], self.given(table))
        elif key not in self.model.rows:
            self.both("insert", table, key, self.given(table))

    def many(self) -> None:
        table = self.table()
        self.both("update", table, list(KEYS), self.given(table))

    def upsert(self) -> None:
        table, key = self.table(), self.chance.choice(KEYS)
        if key in self.model.read(table) or key not in self.model.rows:
            self.both("upsert", table, key, self.given(table))

    def delete(self) -> None:
        self.both("delete", self.table(), self.chance.sample(KEYS, self.chance.randint(1, 2)))

    def rekey(self) -> None:
        table, key, to = self.table(), self.chance.choice(KEYS), self.chance.choice((*KEYS, 5))
        if key in self.model.read(table) and to not in self.model.rows:
            self.both("rekey", table, key, to)

    def move(self) -> None:
        """From one part to the other, in either order."""
        if len(self.scene.parts) < 2 or not self.filled:
            return
        table, other = self.chance.sample(list(self.scene.parts), 2)
        if mine := list(self.model.read(table)):
            first = self.chance.choice(("insert", "delete"))
            self.both("move", table, other, self.chance.choice(mine), self.given(other), first=first)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_tables_agree_with_the_model(database: Database, scene: Scene) -> None:
    bench = Bench.made(database, scene)
    try:
        for seed in range(WALKS):
            Walk(bench=bench, chance=random.Random(seed), model=Model(scene=scene))()
    finally:
        bench.close()
