"""What `retry` promises, on SQLite, with a clock and a sleep of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from contraflow import faults
from contraflow.faults import Fault
from contraflow.retry import Attempt, TransactionMisused, exponential, retry, run_transaction
from tests.faults.test_faults import psycopg_error


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


def url(tmp_path: Path, driver: str = "sqlite") -> str:
    return f"{driver}:///{tmp_path}/retry.db"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url(tmp_path), connect_args={"timeout": 0})
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Counter(id=1, n=0))
    yield engine
    engine.dispose()


def failure(sqlstate: str = "40001") -> OperationalError:
    return OperationalError("UPDATE counter", {}, psycopg_error(sqlstate))


def count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(Counter.n)).scalar_one())


def increment(tx: sa.Connection) -> None:
    tx.execute(sa.update(Counter).values(n=Counter.n + 1))


class Work:
    """Increments, and fails the first ``times``, after what it has done."""

    def __init__(self, times: int, error: Callable[[], Exception] = failure) -> None:
        self.times = times
        self.error = error
        self.runs = 0

    def __call__(self, tx: sa.Connection) -> int:
        self.runs += 1
        increment(tx)
        if self.runs <= self.times:
            raise self.error()
        return self.runs


class Time:
    """A clock that `sleep` alone moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_the_whole_transaction_is_run_again(engine: sa.Engine) -> None:
    time, seen = Time(), list[Attempt]()
    work = Work(3)
    result = run_transaction(engine, work, clock=time.clock, sleep=time.sleep, jitter=lambda: 0.5, on_retry=seen.append)
    assert (result, work.runs, count(engine)) == (4, 4, 1)
    assert time.slept == [attempt.delay for attempt in seen] == pytest.approx([0.002, 0.006, 0.018])
    assert [attempt.number for attempt in seen] == [1, 2, 3]
    assert {attempt.fault for attempt in seen} == {Fault.SERIALIZATION}
    assert seen[2].elapsed == pytest.approx(0.026 - 0.018)


def test_attempts_are_used_up_and_the_last_error_comes_out_unchanged(engine: sa.Engine) -> None:
    seen: list[Attempt] = []
    errors = [failure(), failure(), failure()]
    remaining = iter(errors)
    work = Work(9, lambda: next(remaining))
    with pytest.raises(OperationalError) as caught:
        run_transaction(engine, work, attempts=3, sleep=Time().sleep, on_retry=seen.append)
    assert caught.value is errors[2]
    assert [attempt.delay is None for attempt in seen] == [False, False, True]
    assert count(engine) == 0


def test_deadline(engine: sa.Engine) -> None:
    time = Time()
    work = Work(99)
    with pytest.raises(OperationalError):
        run_transaction(
            engine,
            work,
            attempts=None,
            deadline=10,
            clock=time.clock,
            sleep=time.sleep,
            backoff=lambda _number, _fault: 3,
            jitter=lambda: 1,
        )
    assert (work.runs, time.now) == (4, 1009)


def test_backoff_grows_and_is_bounded() -> None:
    conflict = [exponential(n, Fault.DEADLOCK) for n in range(1, 60)]
    outage = [exponential(n, Fault.UNAVAILABLE) for n in range(1, 60)]
    assert conflict == sorted(conflict)
    assert (conflict[0], conflict[-1], outage[0], outage[-1]) == (0.004, 1.0, 0.1, 2.0)


@pytest.mark.parametrize("options", [{"attempts": 0}, {"deadline": -1}])
def test_options_are_checked(engine: sa.Engine, options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        run_transaction(engine, increment, **options)
    with pytest.raises(TypeError, match="cannot run transactions"):
        run_transaction("sqlite://", increment)  # type: ignore[call-overload]


def test_what_is_not_transient_is_not_run_again(engine: sa.Engine) -> None:
    for error in (failure("23505"), failure("57014"), ValueError("mine"), ConnectionRefusedError(), TimeoutError()):
        work = Work(9, iter([error]).__next__)
        with pytest.raises(type(error)) as caught:
            run_transaction(engine, work, sleep=Time().sleep)
        assert caught.value is error
        assert work.runs == 1
    assert count(engine) == 0


def test_an_exception_that_the_application_made_of_it_counts(engine: sa.Engine) -> None:
    class BusyError(Exception):
        pass

    def busy() -> Exception:
        error = BusyError()
        error.__cause__ = failure()
        return error

    work = Work(2, busy)
    assert run_transaction(engine, work, sleep=Time().sleep) == 3
    assert count(engine) == 1


@pytest.mark.parametrize("installed", [False, True])
def test_commit_unknown_by_code(engine: sa.Engine, installed: bool) -> None:
    if installed:
        faults.install(engine)
    work = Work(1, lambda: failure("40003"))
    with pytest.raises(faults.CommitUnknown) as caught:
        run_transaction(engine, work, sleep=Time().sleep)
    assert isinstance(caught.value, OperationalError)
    work = Work(1, lambda: failure("40003"))
    assert run_transaction(engine, work, sleep=Time().sleep, idempotent=True) == 2


def test_interrupts_are_not_retried_and_roll_back(engine: sa.Engine) -> None:
    def work(tx: sa.Connection) -> None:
        increment(tx)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_transaction(engine, work)
    assert count(engine) == 0


def test_busy_at_begin_is_retried(engine: sa.Engine) -> None:
    """SQLITE_BUSY: another writer holds the database while BEGIN IMMEDIATE is sent."""
    with engine.connect() as holder:
        increment(holder)

        def release(_seconds: float) -> None:
            holder.commit()

        seen: list[Attempt] = []
        run_transaction(engine, increment, sleep=release, on_retry=seen.append)
    assert [attempt.fault for attempt in seen] == [Fault.LOCK_TIMEOUT]
    assert count(engine) == 2


def test_nested_calls_join(engine: sa.Engine) -> None:
    runs = {"outer": 0, "inner": 0}

    @retry(engine, attempts=1)
    def inner(tx: sa.Connection, step: int) -> sa.Connection:
        runs["inner"] += 1
        tx.execute(sa.update(Counter).values(n=Counter.n + step))
        if runs["inner"] == 1:
            raise failure()
        return tx

    @retry(engine, sleep=Time().sleep)
    def outer(tx: sa.Connection) -> None:
        runs["outer"] += 1
        increment(tx)
        assert inner(step=10) is tx

    outer()
    assert runs == {"outer": 2, "inner": 2}
    assert count(engine) == 11


def test_another_thread_does_not_join(engine: sa.Engine) -> None:
    found: list[object] = []

    def outer(tx: sa.Connection) -> None:
        def other() -> None:
            try:
                run_transaction(engine, increment, attempts=1)
            except OperationalError as error:
                found.append(faults.classify(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    run_transaction(engine, outer)
    assert found == [Fault.LOCK_TIMEOUT]  # it asked for a transaction of its own


class TestWhatEscapes:
    def test_results_and_generators(self, engine: sa.Engine) -> None:
        def rows(tx: sa.Connection) -> object:
            return (row for row in tx.execute(sa.select(Counter.n)))

        escaping: list[Callable[[sa.Connection], object]] = [
            lambda tx: tx.execute(sa.select(Counter.n)),
            lambda tx: tx.execute(sa.select(Counter.n)).scalars(),
            lambda tx: tx.execute(sa.select(Counter.n)).mappings(),
            lambda tx: [tx.execute(sa.update(Counter).values(n=5))],
            rows,
        ]
        for work in escaping:
            with pytest.raises(TransactionMisused, match="lives only as long"):
                run_transaction(engine, work)
        assert count(engine) == 0

    def test_values_may_leave(self, engine: sa.Engine) -> None:
        query = sa.select(Counter.id, Counter.n)
        assert run_transaction(engine, lambda tx: tx.execute(query).one()) == (1, 0)
        assert run_transaction(engine, lambda tx: {"rows": tx.execute(query).all()}) == {"rows": [(1, 0)]}

    def test_generator_functions_are_refused_when_decorated(self) -> None:
        engine = sa.create_engine("sqlite://")
        with pytest.raises(TypeError, match="generator"):

            @retry(engine)
            def rows(tx: sa.Connection) -> Iterator[object]:
                yield from tx.execute(sa.select(Counter.n))

    def test_coroutines_need_an_async_bind(self, engine: sa.Engine) -> None:
        async def work(_tx: sa.Connection) -> None: ...

        with pytest.raises(TypeError, match="async"):
            retry(engine)(work)
        with pytest.raises(TransactionMisused, match="coroutine"):
            run_transaction(engine, work)  # type: ignore[unused-coroutine]


class TestMisuse:
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_ending_the_transaction_inside(self, engine: sa.Engine, end: str) -> None:
        def work(tx: sa.Connection) -> None:
            increment(tx)
            getattr(tx, end)()

        with pytest.raises(TransactionMisused, match="ended inside"):
            run_transaction(engine, work)

    def test_autocommit(self, engine: sa.Engine) -> None:
        """Except on SQLite, where `retry` sends BEGIN itself."""
        run_transaction(engine.execution_options(isolation_level="AUTOCOMMIT"), increment)
        assert count(engine) == 1

    def test_a_session_in_the_middle_of_something(self, engine: sa.Engine) -> None:
        with Session(engine) as session:
            session.get(Counter, 1)
            with pytest.raises(TransactionMisused, match="in a transaction already"):
                run_transaction(session, lambda _tx: None)
            assert session.in_transaction()


def test_sessions(engine: sa.Engine) -> None:
    runs = 0

    def work(tx: Session) -> int:
        nonlocal runs
        runs += 1
        counter = tx.get_one(Counter, 1)
        counter.n += 1
        tx.add(Counter(id=runs + 1, n=runs))
        if runs % 2:
            raise failure()
        return counter.n

    make = sessionmaker(engine)
    assert run_transaction(make, work, sleep=Time().sleep) == 1
    with Session(engine) as session:
        assert run_transaction(session, work, sleep=Time().sleep) == 2
        assert not session.in_transaction()
    with Session(engine) as session:
        assert session.scalars(sa.select(Counter.id).order_by(Counter.id)).all() == [1, 3, 5]


def test_a_flush_that_fails_is_the_work_and_not_the_commit(engine: sa.Engine) -> None:
    with pytest.raises(IntegrityError) as caught:
        run_transaction(sessionmaker(engine), lambda tx: tx.add(Counter(id=1, n=1)))
    assert faults.classify(caught.value) is Fault.DUPLICATE_KEY


def test_the_connection_is_free_while_it_waits(tmp_path: Path, engine: sa.Engine) -> None:
    small = sa.create_engine(url(tmp_path), pool_size=1, max_overflow=0, pool_timeout=0)
    used: list[int] = []

    def sleep(_seconds: float) -> None:
        with small.connect() as connection:  # would time out if the pool's only connection were held
            used.append(connection.execute(sa.select(Counter.n)).scalar_one())

    run_transaction(small, Work(2), sleep=sleep)
    assert used == [0, 0]
    small.dispose()


class TestAsync:
    def test_engines_and_sessions(self, tmp_path: Path, engine: sa.Engine) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        async def main() -> None:
            asynchronous = create_async_engine(url(tmp_path, "sqlite+aiosqlite"))
            runs = 0

            @retry(asynchronous, sleep=sleep)
            async def outer(tx: Any, step: int) -> int:
                nonlocal runs
                runs += 1
                await tx.execute(sa.update(Counter).values(n=Counter.n + step))
                assert await run_transaction(asynchronous, same) is tx
                if runs < 3:
                    raise failure()
                return runs

            async def same(tx: Any) -> Any:
                await asyncio.sleep(0)
                return tx

            async def orm(tx: AsyncSession) -> int:
                counter = await tx.get_one(Counter, 1)
                counter.n += 1
                return counter.n

            assert await outer(step=4) == 3
            make = async_sessionmaker(asynchronous)
            assert await run_transaction(make, orm) == 5
            async with make() as session:
                assert await run_transaction(session, orm) == 6
            await asynchronous.dispose()

        asyncio.run(main())
        assert len(slept) == 2
        assert count(engine) == 6

    @pytest.mark.usefixtures("engine")
    def test_tasks_do_not_join_each_other(self, tmp_path: Path) -> None:
        async def main() -> None:
            asynchronous = create_async_engine(url(tmp_path, "sqlite+aiosqlite"), connect_args={"timeout": 0})

            async def inner(_tx: Any) -> None: ...

            async def as_task() -> None:
                await run_transaction(asynchronous, inner, attempts=1)

            async def outer(_tx: Any) -> Fault:
                with pytest.raises(OperationalError) as caught:
                    await asyncio.create_task(as_task())
                return faults.classify(caught.value)

            # It asked for a transaction of its own, while the outer one held SQLite's only lock.
            assert await run_transaction(asynchronous, outer) is Fault.LOCK_TIMEOUT
            await asynchronous.dispose()

        asyncio.run(main())

    def test_cancelled_in_the_middle(self, tmp_path: Path, engine: sa.Engine) -> None:
        async def main() -> None:
            asynchronous = create_async_engine(url(tmp_path, "sqlite+aiosqlite"))
            begun = asyncio.Event()

            async def work(tx: Any) -> None:
                await tx.execute(sa.update(Counter).values(n=100))
                begun.set()
                await asyncio.Event().wait()

            task = asyncio.ensure_future(run_transaction(asynchronous, work))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asynchronous.pool.checkedout() == 0  # type: ignore[attr-defined]
            await asynchronous.dispose()

        asyncio.run(main())
        assert count(engine) == 0
