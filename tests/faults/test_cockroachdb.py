"""The retry path of CockroachDB: on the double, and the same on a real one by ``--server-url cockroachdb://...``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from contraflow import faults
from contraflow.faults import Fault
from contraflow.rehearsal.proxy import FaultProxy, Harm, When
from contraflow.retry import Attempt, run_transaction
from tests.faults.cockroachdb_double import CockroachDouble
from tests.faults.test_retry_servers import WORKERS, create_accounts, picks, transfer, verify
from tests.servers.shared import Database

pytestmark = pytest.mark.only_on("postgresql", "postgresql15", "cockroachdb")


@dataclass
class Cockroach:
    """CockroachDB, or its double."""

    url: sa.URL
    double: CockroachDouble | None
    plain: sa.Engine

    def engine(self, driver: str = "psycopg") -> sa.Engine:
        name = self.url.drivername if self.double is None else f"postgresql+{driver}"
        engine = sa.create_engine(
            self.url.set(drivername=name),
            isolation_level="SERIALIZABLE",
            pool_size=WORKERS,
        )
        faults.install(engine)
        return engine

    def run(self, work: Callable[[sa.Connection], None], driver: str, on_retry: Callable[[Attempt], None]) -> None:
        """`run_transaction` of ``work`` with the driver, in an event loop if it needs one."""
        if not self.url.set(drivername=f"postgresql+{driver}").get_dialect().is_async:
            engine = self.engine(driver)
            run_transaction(engine, work, on_retry=on_retry)
            engine.dispose()
            return

        async def main() -> None:
            url = self.url.set(drivername=f"postgresql+{driver}")
            engine = create_async_engine(url, isolation_level="SERIALIZABLE")
            faults.install(engine)

            async def work_async(tx: AsyncConnection) -> None:
                await tx.run_sync(work)

            await run_transaction(engine, work_async, on_retry=on_retry)
            await engine.dispose()

        asyncio.run(main())

    def n(self, account: int = 1) -> object:
        with self.plain.connect() as connection:
            return connection.exec_driver_sql(f"SELECT n FROM a WHERE id = {account}").scalar()


@pytest.fixture
def cockroach(database: Database) -> Iterator[Cockroach]:
    create_accounts(database.engine)
    if database.kind == "cockroachdb":
        yield Cockroach(database.url, None, database.engine)
        return
    with CockroachDouble(database.url) as double:
        yield Cockroach(database.url.set(port=double.port), double, database.engine)


@pytest.fixture
def double(cockroach: Cockroach) -> CockroachDouble:
    """For tests that choose the point of refusal: a real server does not let them."""
    assert cockroach.double is not None
    return cockroach.double


def deposit(tx: sa.Connection) -> None:
    n = tx.exec_driver_sql("SELECT n FROM a WHERE id = 1").scalar_one()
    tx.exec_driver_sql(f"UPDATE a SET n = {n + 1} WHERE id = 1")


def test_nothing_is_lost_or_doubled(cockroach: Cockroach) -> None:
    engine = cockroach.engine()
    seen: list[Attempt] = []

    def worker(seed: int) -> None:
        for amount, source, target in picks(seed):

            def work(tx: sa.Connection, amount: int = amount, source: int = source, target: int = target) -> None:
                transfer(tx, amount, source, target)

            run_transaction(engine, work, attempts=None, on_retry=seen.append)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(worker, range(WORKERS)))
    engine.dispose()
    verify(cockroach.plain)
    assert {attempt.fault for attempt in seen} == {Fault.SERIALIZATION}


only_double = pytest.mark.only_on("postgresql", "postgresql15")


@only_double
@pytest.mark.parametrize("with_driver", ["psycopg", "psycopg2", "psycopg_async", "asyncpg"])
@pytest.mark.parametrize("point", ["^SELECT n", "^UPDATE", "^RELEASE SAVEPOINT c"])
def test_it_restarts_by_its_savepoint(
    cockroach: Cockroach, double: CockroachDouble, with_driver: str, point: str
) -> None:
    double.refuse(point, "40001", times=2)
    seen: list[Attempt] = []
    cockroach.run(deposit, with_driver, seen.append)
    assert cockroach.n() == 101
    assert double.refused == 2
    assert [attempt.fault for attempt in seen] == [Fault.SERIALIZATION] * 2
    ours = [statement for statement in double.log if "cockroach_restart" in statement]
    again = "ROLLBACK TO SAVEPOINT cockroach_restart"
    released = ["RELEASE SAVEPOINT cockroach_restart"] * (3 if point == "^RELEASE SAVEPOINT c" else 1)
    assert sorted(ours) == sorted(["SAVEPOINT cockroach_restart", again, again, *released])
    assert ours[0] == "SAVEPOINT cockroach_restart"


@only_double
def test_a_session_begins_the_whole_transaction_again(cockroach: Cockroach, double: CockroachDouble) -> None:
    engine = cockroach.engine()
    double.refuse("^COMMIT", "40001")

    def work(tx: Session) -> None:
        deposit(tx.connection())

    run_transaction(sessionmaker(engine), work)
    engine.dispose()
    assert cockroach.n() == 101
    assert not any("cockroach_restart" in statement for statement in double.log)


@only_double
@pytest.mark.parametrize(
    ("sqlstate", "fault", "expected"),
    [
        ("40003", Fault.COMMIT_UNKNOWN, faults.CommitUnknown),
        ("XXA00", Fault.COMMITTED_IN_PART, faults.CommittedInPart),
        ("57014", Fault.CANCELLED, faults.Cancelled),
    ],
)
def test_what_is_not_run_again(
    cockroach: Cockroach,
    double: CockroachDouble,
    sqlstate: str,
    fault: Fault,
    expected: type[faults.DatabaseFault],
) -> None:
    engine = cockroach.engine()
    double.refuse("^RELEASE SAVEPOINT c", sqlstate, "something happened")
    with pytest.raises(expected) as caught:
        run_transaction(engine, deposit)
    engine.dispose()
    assert caught.value.fault is fault
    assert cockroach.n() == 100


@only_double
@pytest.mark.parametrize("sqlstate", ["55P03", "58C00", "55C01", "57P01"])
def test_what_begins_anew_without_the_savepoint(cockroach: Cockroach, double: CockroachDouble, sqlstate: str) -> None:
    engine = cockroach.engine()
    double.refuse("^UPDATE", sqlstate, "not now")
    run_transaction(engine, deposit, backoff=lambda _number, _fault: 0.0)
    engine.dispose()
    assert cockroach.n() == 101
    assert sum(statement == "SAVEPOINT cockroach_restart" for statement in double.log) == 2


@only_double
def test_a_lost_answer_to_the_release_is_unknown_and_one_to_the_commit_after_it_is_not(
    cockroach: Cockroach, double: CockroachDouble
) -> None:
    with FaultProxy("127.0.0.1", double.port) as proxy:
        through = Cockroach(cockroach.url.set(port=proxy.port), double, cockroach.plain)
        engine = through.engine()
        proxy.harm("RELEASE SAVEPOINT", Harm.CUT, when=When.ANSWERED)
        with pytest.raises(faults.CommitUnknown):
            run_transaction(engine, deposit)
        assert cockroach.n() == 101
        proxy.harm("COMMIT", Harm.CUT, when=When.ANSWERED)
        run_transaction(engine, deposit)  # the release has committed it
        assert proxy.fired == 2
        assert cockroach.n() == 102
        engine.dispose()


@only_double
def test_the_double_is_as_strict_as_cockroachdb(cockroach: Cockroach) -> None:
    """After RELEASE nothing but COMMIT; after an error nothing but ROLLBACK (seen on a fork of CockroachDB 20.1)."""
    engine = cockroach.engine()
    with engine.connect() as connection:
        connection.exec_driver_sql("SAVEPOINT cockroach_restart")
        connection.exec_driver_sql("RELEASE SAVEPOINT cockroach_restart")
        with pytest.raises(faults.DatabaseFault) as caught:
            connection.exec_driver_sql("SELECT 1")
        assert caught.value.diagnosis.sqlstate == "25000"
        connection.rollback()
        with pytest.raises(faults.BadSyntax):
            connection.exec_driver_sql("SELEC")
        with pytest.raises(faults.TransactionAborted):
            connection.exec_driver_sql("SELECT 1")
    engine.dispose()
