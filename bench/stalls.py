"""The longest that two concurrent writers stall in each phase, with and without a long reader."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import sqlalchemy as sa

from bench.harness import Plan, Session, Spread, database, started
from bench.report import Table, grouped
from bench.scenes import SCENES, create_table, fill
from bench.writers import failures, long_reader, observe
from contraflow import Runner
from contraflow.rehearsal.servers import Server

__all__ = ["measure"]

PAUSE = 0.002
SETTLE = 0.5
"""Seconds that the writers run before a phase begins and after it; the time before is the noise to compare with."""

RENAME = SCENES[0]


def measure(kind: str, plan: Plan) -> list[Table]:
    """Measure one server: worst stalls, without anything, and in each phase."""
    tables = []
    with started(kind, plan.say) as server:
        for rows in plan.rows:
            table = Table(
                title=f"worst stall of two writers in ms, {grouped(rows)} rows",
                server=f"{kind} {server.version}",
                columns=("phase", "writers", "before it", "alone", "with a long reader", "phase alone, s", "failed"),
            )
            found: dict[str, _Phase] = {}
            for repetition in range(plan.repetitions):
                for reader in (False, True):
                    plan.say(f"{rows} rows, {repetition + 1} of {plan.repetitions}{', a long reader' * reader}")
                    for path in (("expand", "migrate", "verify", "contract"), ("expand", "migrate", "rollback")):
                        _upgrade(server, rows, path, found, plan.hold if reader else None)
            for name in ("expand", "migrate", "verify", "contract", "rollback"):
                found[name].write(table)
            tables.append(table)
    return tables


class _Phase:
    """What was seen of one phase."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.before: list[float] = []
        self.alone: list[float] = []
        self.reader: list[float] = []
        self.seconds: list[float] = []
        self.errors: list[str] = []

    def write(self, table: Table) -> None:
        """Its row."""
        form = [Spread(values=tuple(values), form=".0f") for values in (self.before, self.alone, self.reader)]
        side = "new" if self.name == "contract" else "old"
        table.add(self.name, f"{side} release's", *form, Spread(values=tuple(self.seconds)), failures(self.errors))


def _upgrade(server: Server, rows: int, path: tuple[str, ...], found: dict[str, _Phase], hold: float | None) -> None:
    with _table(server, rows) as url, Runner(url, RENAME.upgrade("users")) as runner:
        for name in path:
            phase = found.setdefault(name, _Phase(name))
            # The old nodes are gone when the old shape goes.
            column = RENAME.new[0] if name == "contract" else "full_name"
            with observe(url, "users", column, rows=rows, writers=2, pause=PAUSE) as observed:
                ready = time.monotonic()
                time.sleep(SETTLE)
                before = time.monotonic()
                with long_reader(url, "users", hold) if hold else contextlib.nullcontext():
                    began = time.monotonic()
                    getattr(runner, name)()
                    ended = time.monotonic()
                time.sleep(SETTLE)
            phase.before.append(observed.worst(ready, before))
            (phase.reader if hold else phase.alone).append(observed.worst(began, ended))
            phase.errors += observed.errors
            if not hold:
                phase.seconds.append(ended - began)


@contextlib.contextmanager
def _table(server: Server, rows: int) -> Iterator[sa.URL]:
    with database(server) as url:
        with contextlib.closing(Session(url)) as session:
            create_table(session.connection, "users")
            fill(session.connection, "users", rows)
        yield url
