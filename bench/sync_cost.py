"""What the sync costs a write: CPU time without triggers, with the best hand-written ones, and with the library's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bench import handwritten
from bench.harness import Plan, Session, Spread, cpu_clock, database, product_of, quiet, started
from bench.report import Table
from bench.scenes import MARKER, SCENES, Scene, create_table
from contraflow import Runner
from contraflow.rehearsal.servers import Server

__all__ = ["measure"]

BASE = 20_000
"""Rows that stand in each table before anything is measured."""
BATCH = 1000

Work = tuple[str, list[tuple[Any, ...]]]
"""A statement, and the parameters of each time it is run."""


@dataclass(kw_only=True)
class Variant:
    """One of the three tables."""

    table: str
    scene: Scene
    new: tuple[str, ...]
    """The columns that the new release writes; the plain table has only the old one."""
    last: int = 0
    """The highest key in use."""
    turn: int = field(default=0)
    """Makes every value a new one, so that an update always changes something."""

    def name(self, key: int) -> str:
        """A name that was not there before."""
        return f"Annabel{key}t{self.turn} Leechman"

    def new_values(self, key: int) -> tuple[str, ...]:
        """What the new release writes for :meth:`name`."""
        text = self.name(key)
        return self.scene.new_values(text) if len(self.new) == len(self.scene.new) and self.is_expanded else (text,)

    @property
    def is_expanded(self) -> bool:
        """Whether the table has the new shape too."""
        return self.new != ("full_name",)

    def keys(self, count: int) -> Iterator[int]:
        """Keys of rows that are there, all over the table."""
        return (1 + (self.turn * 31 + place * 7919) % BASE for place in range(count))

    def insert(self, count: int, size: int, columns: tuple[str, ...], values: Callable[[int], tuple[Any, ...]]) -> Work:
        """``count`` INSERT statements of ``size`` rows."""
        names = ", ".join(("id", *columns, "email", "visits"))
        row = f"({', '.join('?' * (len(columns) + 3))})"
        sql = f"INSERT INTO {self.table} ({names}) VALUES {', '.join([row] * size)}"
        parameters = []
        for _ in range(count):
            rows = [(key, *values(key), f"annabel.{key}@example.org", 0) for key in self._fresh(size)]
            parameters.append(tuple(value for row in rows for value in row))
        return sql, parameters

    def _fresh(self, size: int) -> range:
        first = self.last + 1
        self.last += size
        return range(first, self.last + 1)


def _insert_one(variant: Variant, count: int) -> Work:
    return variant.insert(count, 1, ("full_name",), lambda key: (variant.name(key),))


def _insert_many(variant: Variant, count: int) -> Work:
    return variant.insert(count, BATCH, ("full_name",), lambda key: (variant.name(key),))


def _insert_many_new(variant: Variant, count: int) -> Work:
    return variant.insert(count, BATCH, variant.new, variant.new_values)


def _update_synced(variant: Variant, count: int) -> Work:
    sql = f"UPDATE {variant.table} SET full_name = ? WHERE id = ?"
    return sql, [(variant.name(key), key) for key in variant.keys(count)]


def _update_synced_new(variant: Variant, count: int) -> Work:
    sql = f"UPDATE {variant.table} SET {', '.join(f'{name} = ?' for name in variant.new)} WHERE id = ?"
    return sql, [(*variant.new_values(key), key) for key in variant.keys(count)]


def _update_other(variant: Variant, count: int) -> Work:
    return f"UPDATE {variant.table} SET visits = visits + 1 WHERE id = ?", [(key,) for key in variant.keys(count)]


def _update_all(variant: Variant, count: int) -> Work:
    # Turning the text round changes it, and is spelled alike everywhere.
    sql = f"UPDATE {variant.table} SET full_name = replace(full_name, ?, ?) WHERE id <= {BASE}"
    pairs = [("bel", "BEL"), ("BEL", "bel")]
    return sql, [pairs[(variant.turn + place) % 2] for place in range(count)]


def _update_all_other(variant: Variant, count: int) -> Work:
    return f"UPDATE {variant.table} SET visits = visits + ? WHERE id <= {BASE}", [(1,)] * count


WORKLOADS: dict[str, Callable[[Variant, int], Work]] = {
    "INSERT of one row": _insert_one,
    "INSERT of 1000 rows": _insert_many,
    "INSERT of 1000 rows, new release": _insert_many_new,
    "UPDATE of the synced column, one row": _update_synced,
    "UPDATE of the synced column, one row, new release": _update_synced_new,
    "UPDATE of another column, one row": _update_other,
    "UPDATE of the synced column, 20 000 rows": _update_all,
    "UPDATE of another column, 20 000 rows": _update_all_other,
}


def measure(kind: str, plan: Plan) -> list[Table]:
    """Measure one server; a table of ratios."""
    more = {"autovacuum": "off"} if product_of(kind) == "postgresql" else {}
    result = Table(
        title="CPU time of writes, as ratios",
        columns=("lens", "workload", "by hand / none", "Contraflow / none", "Contraflow / by hand"),
    )
    with started(kind, plan.say, **more) as server:
        result.server = f"{kind} {server.version}"
        for scene in SCENES:
            with database(server) as url:
                for row in _measure_scene(server, url, scene, plan):
                    result.add(scene.name, *row)
    return [result]


def _measure_scene(
    server: Server, url: sa.URL, scene: Scene, plan: Plan
) -> Iterator[tuple[str, Spread, Spread, Spread]]:
    product = product_of(server.kind)
    with contextlib.closing(Session(url)) as session:
        if product == "sqlite":
            session.run("PRAGMA synchronous = NORMAL")
        for table in ("plain", "byhand", "synced"):
            create_table(session.connection, table)
        for statement in handwritten.statements(product, scene.name, "byhand"):
            session.run(statement)
        with Runner(url, scene.upgrade("synced")) as runner:
            runner.expand()
        plan.say(f"{scene.name}: do both triggers do the same?")
        prove_equal(session, scene)
        variants = [
            Variant(table="plain", scene=scene, new=("full_name",)),
            Variant(table="byhand", scene=scene, new=scene.new),
            Variant(table="synced", scene=scene, new=scene.new),
        ]
        for variant in variants:
            sql, parameters = variant.insert(
                BASE // BATCH, BATCH, ("full_name",), lambda key: (f"Annabel{key} Leechman",)
            )
            for values in parameters:
                session.run(sql, values)
        clock = cpu_clock(server)
        for name, workload in WORKLOADS.items():
            plan.say(f"{scene.name}: {name}")
            yield (name, *_measure_workload(session, clock, workload, variants, plan, vacuum=product == "postgresql"))


def _measure_workload(
    session: Session,
    clock: Callable[[], float],
    workload: Callable[[Variant, int], Work],
    variants: list[Variant],
    plan: Plan,
    *,
    vacuum: bool,
) -> tuple[Spread, Spread, Spread]:
    count = 1
    while (spent := _window(session, clock, workload(variants[0], count))) < plan.window and count < 100_000:
        count = count * 8 if spent < plan.window / 16 else max(count + 1, int(count * plan.window / spent * 1.1))
    for variant in variants[1:]:
        _window(session, clock, workload(variant, max(1, count // 10)))  # plans and caches
    times: list[list[float]] = []
    for repetition in range(plan.repetitions):
        order = [*variants[repetition % 3 :], *variants[: repetition % 3]]
        spent_by = {}
        for variant in order:
            variant.turn += 1
            spent_by[variant.table] = _window(session, clock, workload(variant, count))
            if vacuum:
                session.run(f"VACUUM {variant.table}")
        times.append([spent_by[variant.table] for variant in variants])
    return (
        Spread(values=tuple(hand / plain for plain, hand, _ in times)),
        Spread(values=tuple(ours / plain for plain, _, ours in times)),
        Spread(values=tuple(ours / hand for _, hand, ours in times)),
    )


def _window(session: Session, clock: Callable[[], float], work: Work) -> float:
    sql, parameters = work
    text = session.text(sql)
    quiet(clock)
    began = clock()
    for values in parameters:
        session.send(text, values)
    quiet(clock)
    return max(clock() - began, 1e-6)


def prove_equal(session: Session, scene: Scene) -> None:
    """Run the same statements on both synced tables and compare every row; leaves both empty.

    Raises ``RuntimeError`` if they differ: then the hand-written triggers do not keep the rule.
    """
    outcomes, contents = [], []
    columns = ", ".join(("full_name", *scene.new))
    for table in ("byhand", "synced"):
        outcome = []
        for statement in _battery(scene, table):
            try:
                session.run(statement)
                outcome.append((statement.replace(table, "t"), "done"))
            except session.error:
                outcome.append((statement.replace(table, "t"), "refused"))
        outcomes.append(outcome)
        contents.append(
            session.rows(
                f"SELECT id, visits, {columns}, {MARKER if table == 'byhand' else _marker(session)} IS NULL"
                f" FROM {table} ORDER BY id"
            )
        )
        session.run(f"DELETE FROM {table}")
    for ours, theirs in ((outcomes[1], outcomes[0]), (contents[1], contents[0])):
        if ours != theirs:
            different = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
            raise RuntimeError(f"the hand-written triggers differ from the sync (ours, theirs): {different}")


def _marker(session: Session) -> str:
    names = [column["name"] for column in sa.inspect(session.connection).get_columns("synced")]
    return names[-1]


def _battery(scene: Scene, table: str) -> Iterator[str]:
    """Statements of both releases, of the backfill and of neither; the values are those that are easily confused."""
    names = ["Ann Lee", "ann lee", "Ann Lee ", "Änn Lee", "Cher", "A B C", "Ann  Lee", "", "O''Hara Ann"]
    new = ", ".join(scene.new)
    unset = ", ".join(f"{name} = NULL" for name in scene.new)

    def values(text: str) -> str:
        parts = scene.new_values(text) if " " in text else (text,) * len(scene.new)
        return ", ".join(f"'{part}'" for part in parts)

    def assigned(text: str) -> str:
        return ", ".join(f"{name} = {part}" for name, part in zip(scene.new, values(text).split(", "), strict=True))

    key = 0
    for place, text in enumerate(names):
        other = names[place - 1]
        rest = "'mail', 0"
        for into, given in (
            ("full_name", f"'{text}'"),
            (new, values(text)),
            (f"full_name, {new}", f"'{text}', {values(text)}"),
            (f"full_name, {new}", f"'{other}', {values(text)}"),
            (f"full_name, {new}", ", ".join(["NULL"] * (1 + len(scene.new)))),
        ):
            key += 1
            yield f"INSERT INTO {table} (id, {into}, email, visits) VALUES ({key}, {given}, {rest})"
        for unsynced in (False, True):
            for assignment in (
                "visits = visits + 1",
                f"full_name = '{other}'",
                f"full_name = '{text}'",
                assigned(other),
                assigned(text),
                f"full_name = '{other}', {assigned(text)}",
                f"full_name = '{text}', {assigned(text)}",
                unset,
            ):
                key += 1
                yield f"INSERT INTO {table} (id, full_name, email, visits) VALUES ({key}, '{text}', {rest})"
                if unsynced:
                    yield f"UPDATE {table} SET {MARKER} = NULL, {unset} WHERE id = {key}"
                yield f"UPDATE {table} SET {assignment} WHERE id = {key}"
                yield f"UPDATE {table} SET visits = visits + 1 WHERE id = {key}"
