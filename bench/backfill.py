"""How fast the backfill is, against the upper bound: one plain UPDATE of the whole table without triggers."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

import sqlalchemy as sa

from bench.harness import Plan, Session, Spread, database, product_of, started
from bench.report import Table, grouped
from bench.scenes import SCENES, Scene, create_table, fill
from bench.writers import failures, observe
from contraflow import Runner
from contraflow.rehearsal.servers import Server

__all__ = ["measure"]

PAUSE = 0.002
"""Rest between two statements of the writer: 200 to 400 statements a second, a busy node's share."""


def measure(kind: str, plan: Plan) -> list[Table]:
    """Measure one server: rates against the bound, and what a writer beside it meets."""
    result = Table(
        title="backfill, and one writer beside it",
        columns=(
            "lens",
            "rows",
            "one UPDATE, rows/s",
            "migrate, rows/s",
            "migrate / bound",
            "with a writer / bound",
            "writer's worst, ms",
            "writer's p99, ms",
            "failed",
        ),
    )
    with started(kind, plan.say) as server:
        result.server = f"{kind} {server.version}"
        for scene in SCENES:
            for rows in plan.rows:
                result.add(scene.name, grouped(rows), *_measure(server, scene, rows, plan))
    return [result]


def _measure(server: Server, scene: Scene, rows: int, plan: Plan) -> tuple[object, ...]:
    bounds, rates, ratios, beside, worst, late = [], [], [], [], [], []
    errors: list[str] = []
    for repetition in range(plan.repetitions):
        plan.say(f"{scene.name}, {rows} rows, {repetition + 1} of {plan.repetitions}")
        bound = rows / _bound(server, scene, rows)
        with _expanded(server, scene, rows) as (url, runner):
            rate = rows / _timed(runner)
        with (
            _expanded(server, scene, rows) as (url, runner),
            observe(url, "users", "full_name", rows=rows, writers=1, pause=PAUSE) as observed,
        ):
            began = time.monotonic()
            seconds = _timed(runner)
            ended = time.monotonic()
        bounds.append(bound)
        rates.append(rate)
        ratios.append(rate / bound)
        beside.append(rows / seconds / bound)
        worst.append(observed.worst(began, ended))
        late.append(observed.percentile(began, ended, 0.99))
        errors += observed.errors
    return (
        grouped(statistics.median(bounds)),
        grouped(statistics.median(rates)),
        Spread(values=tuple(ratios)),
        Spread(values=tuple(beside)),
        Spread(values=tuple(worst), form=".0f"),
        Spread(values=tuple(late), form=".0f"),
        failures(errors),
    )


def _timed(runner: Runner) -> float:
    began = time.perf_counter()
    runner.migrate()
    return time.perf_counter() - began


def _bound(server: Server, scene: Scene, rows: int) -> float:
    """Seconds of one UPDATE of the whole table, with the new columns in place and no trigger."""
    with database(server) as url, contextlib.closing(Session(url)) as session:
        create_table(session.connection, "users")
        fill(session.connection, "users", rows)
        for name in scene.new:
            session.run(f"ALTER TABLE users ADD COLUMN {name} VARCHAR(120)")
        began = time.perf_counter()
        session.run(f"UPDATE users SET {scene.images(product_of(server.kind))}")
        return time.perf_counter() - began


@contextlib.contextmanager
def _expanded(server: Server, scene: Scene, rows: int) -> Iterator[tuple[sa.URL, Runner]]:
    """A filled table, expanded, and a runner for it."""
    with database(server) as url:
        with contextlib.closing(Session(url)) as session:
            create_table(session.connection, "users")
            fill(session.connection, "users", rows)
        with Runner(url, scene.upgrade("users")) as runner:
            runner.expand()
            yield url, runner
