"""Writers and a long reader beside an upgrade, each a process or thread of its own, and the stalls they met."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import sqlalchemy as sa

from bench.harness import Session

__all__ = ["Observed", "failures", "long_reader", "observe"]

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(kw_only=True)
class Observed:
    """What the writers met, once they have stopped."""

    statements: tuple[tuple[float, float], ...] = ()
    """When each statement began and how long it took, in seconds of the monotonic clock."""
    errors: tuple[str, ...] = ()

    def worst(self, began: float, ended: float) -> float:
        """The longest statement that ran at least in part between two moments, in milliseconds."""
        return max(self._within(began, ended), default=0.0) * 1000

    def percentile(self, began: float, ended: float, share: float) -> float:
        """The time that ``share`` of those statements stayed below, in milliseconds."""
        found = sorted(self._within(began, ended))
        return found[min(len(found) - 1, int(len(found) * share))] * 1000 if found else 0.0

    def count(self, began: float, ended: float) -> int:
        """How many there were."""
        return len(self._within(began, ended))

    def _within(self, began: float, ended: float) -> list[float]:
        return [took for start, took in self.statements if start + took >= began and start <= ended]


@contextlib.contextmanager
def observe(url: sa.URL, table: str, column: str, *, rows: int, writers: int, pause: float) -> Iterator[Observed]:
    """Run ``writers`` processes on ``table`` while the block runs; what they met is there after it.

    Each updates ``column`` of one row of ``rows`` at a time; every tenth statement inserts a row instead. It rests for
    ``pause`` seconds between two of them. No two write the same row.
    """
    found = Observed()
    stop, ready = _SPAWN.Event(), [_SPAWN.Event() for _ in range(writers)]
    results: Any = _SPAWN.Queue()
    address = url.render_as_string(hide_password=False)
    processes = [
        _SPAWN.Process(
            target=_write, args=(address, table, column, rows, number, writers, pause, ready[number], stop, results)
        )
        for number in range(writers)
    ]
    try:
        for process in processes:
            process.start()
        for number, event in enumerate(ready):
            if not event.wait(60):
                raise RuntimeError(f"writer {number} did not start")
        yield found
    finally:
        stop.set()
        heard = [_heard(results) for process in processes if process.pid is not None]
        for process in processes:
            if process.pid is not None:
                process.join(10)
                process.kill()
    if None in heard:
        raise RuntimeError("a writer ended without a word")
    told = [item for item in heard if item is not None]
    found.statements = tuple(statement for statements, _ in told for statement in statements)
    found.errors = tuple(error for _, errors in told for error in errors)


def _heard(results: Any) -> tuple[list[tuple[float, float]], list[str]] | None:
    try:
        statements, errors = results.get(timeout=60)
    except queue.Empty:
        return None
    return statements, errors


def _write(
    address: str,
    table: str,
    column: str,
    rows: int,
    number: int,
    writers: int,
    pause: float,
    ready: Event,
    stop: Event,
    results: Any,
) -> None:
    """One writer's whole life."""
    session = Session(sa.make_url(address))
    if session.connection.dialect.name == "sqlite":
        session.run("PRAGMA busy_timeout = 30000")
    # The new release's two columns of a split are never written here: the scene of stalls is the rename.
    update = session.text(f"UPDATE {table} SET {column} = ? WHERE id = ?")
    insert = session.text(f"INSERT INTO {table} (id, {column}, email, visits) VALUES (?, ?, ?, ?)")
    statements: list[tuple[float, float]] = []
    errors: list[str] = []
    fresh = time.time_ns() // 1000 * writers + number
    turn = 0
    while not stop.is_set():
        turn += 1
        name = f"Writer{number} Turn{turn}"
        key = 1 + (turn * 7919 * writers + number) % max(writers, rows - rows % writers)
        values: tuple[object, ...]
        if turn % 10 == 0:
            fresh += writers
            text, values = insert, (fresh, name, "writer@example.org", 0)
        else:
            text, values = update, (name, key)
        began = time.monotonic()
        try:
            session.send(text, values)
        except session.error as error:
            errors.append(f"{type(error).__name__}: {error}")
            if len(errors) >= 100:
                break
        statements.append((began, time.monotonic() - began))
        ready.set()
        if pause:
            time.sleep(pause)
    results.put((statements, errors))
    session.close()


@contextlib.contextmanager
def long_reader(url: sa.URL, table: str, seconds: float) -> Iterator[None]:
    """A transaction that has read ``table`` and stays open for ``seconds``, while the block runs and beyond."""
    reading, errors = threading.Event(), []

    def read() -> None:
        try:
            engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
            if engine.dialect.name != "sqlite":
                engine = engine.execution_options(isolation_level="REPEATABLE READ")
            with engine.connect() as connection:
                if engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN")
                connection.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE id < 1000").scalar()
                reading.set()
                time.sleep(seconds)
                connection.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE id < 1000").scalar()
        except sa.exc.DBAPIError as error:
            errors.append(error)
        finally:
            reading.set()

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise RuntimeError("the long reader failed") from errors[0]


def failures(errors: Sequence[str]) -> str:
    """How many statements failed, with the first one's words."""
    return f"{len(errors)}: {errors[0]}" if errors else "0"
