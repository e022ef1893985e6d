"""`retry` on real servers: nothing lost, nothing doubled, and nobody left behind."""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from contraflow import faults
from contraflow.faults import Fault
from contraflow.rehearsal import servers
from contraflow.rehearsal.proxy import COMMIT, FaultProxy, Harm, When
from contraflow.retry import Attempt, TransactionMisused, retry, run_transaction
from tests.faults.drivers import FAMILY, Driver, drivers_of
from tests.faults.test_provoked_sessions import NETWORKED, sql_elsewhere
from tests.servers.shared import Database, new_engine

WORKERS = 8
ROUNDS = 12
ACCOUNTS = 3


@pytest.fixture(autouse=True)
def accounts(request: pytest.FixtureRequest) -> None:
    if "database" in request.fixturenames:
        create_accounts(request.getfixturevalue("database").engine)


def create_accounts(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE a (id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL)")
        connection.exec_driver_sql("CREATE TABLE log (id VARCHAR(40) NOT NULL PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO a VALUES (1, 100), (2, 100), (3, 100), (9, 0)")


def transfer(tx: sa.Connection, amount: int, source: int, target: int) -> None:
    """Read, then write what was read changed; and count in the same transaction."""
    read = "SELECT n FROM a WHERE id = {}"
    for account, change in ((source, -amount), (target, amount), (9, 1)):
        n = tx.exec_driver_sql(read.format(account)).scalar_one()
        tx.exec_driver_sql(f"UPDATE a SET n = {n + change} WHERE id = {account}")


async def transfer_async(tx: Any, *picked: int) -> None:
    await tx.run_sync(transfer, *picked)


def picks(seed: int) -> list[tuple[int, int, int]]:
    chance = random.Random(seed)
    found = []
    for _ in range(ROUNDS):
        source, target = chance.sample(range(1, ACCOUNTS + 1), 2)
        found.append((chance.randint(1, 9), source, target))
    return found


def verify(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sum(n) FROM a WHERE id <> 9").scalar() == 100 * ACCOUNTS
        assert connection.exec_driver_sql("SELECT n FROM a WHERE id = 9").scalar() == WORKERS * ROUNDS


def serializable(kind: str) -> dict[str, Any]:
    """SQLite knows no other level."""
    return {} if kind == "sqlite" else {"isolation_level": "SERIALIZABLE"}


def test_nothing_is_lost_or_doubled(database: Database) -> None:
    engine = new_engine(database.url, pool_size=WORKERS, **serializable(database.kind))
    seen: Counter[Fault] = Counter()

    def note(attempt: Attempt) -> None:
        seen[attempt.fault] += 1

    def worker(seed: int) -> None:
        for amount, source, target in picks(seed):
            retry(engine, attempts=None, on_retry=note)(transfer)(amount, source, target)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(worker, range(WORKERS)))
    engine.dispose()
    verify(database.engine)
    conflict = {"postgresql": Fault.SERIALIZATION, "mysql": Fault.DEADLOCK}.get(FAMILY[database.kind])
    assert conflict is None or seen[conflict] > 0, seen


def test_nothing_is_lost_or_doubled_async(database: Database) -> None:
    name = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy", "sqlite": "sqlite+aiosqlite"}
    url = Driver.of(name[FAMILY[database.kind]], database.url).url

    async def main() -> None:
        engine = create_async_engine(url, pool_size=WORKERS, **serializable(database.kind))

        async def worker(seed: int) -> None:
            for picked in picks(seed):
                await retry(engine, attempts=None)(transfer_async)(*picked)

        await asyncio.gather(*(worker(seed) for seed in range(WORKERS)))
        await engine.dispose()

    asyncio.run(main())
    verify(database.engine)


@pytest.mark.only_on("postgresql", "postgresql15")
def test_write_skew_shows_at_commit_and_is_run_again(driver: Driver, database: Database) -> None:
    """Two doctors on call; each may leave if the other stays. One COMMIT fails with 40001 and is run again."""
    runs = 0

    def leave(tx: sa.Connection) -> bool:
        nonlocal runs
        runs += 1
        if tx.exec_driver_sql("SELECT sum(n) FROM a WHERE id <= 2").scalar_one() <= 100:
            return False
        tx.exec_driver_sql("UPDATE a SET n = 0 WHERE id = 1")
        if runs == 1:
            with database.engine.connect().execution_options(isolation_level="SERIALIZABLE") as rival:
                assert rival.exec_driver_sql("SELECT sum(n) FROM a WHERE id <= 2").scalar_one() == 200
                rival.exec_driver_sql("UPDATE a SET n = 0 WHERE id = 2")
                rival.commit()
        return True

    seen: list[Attempt] = []
    assert driver.run(lambda e: in_transaction(driver, e, leave, on_retry=seen.append), **serializable("")) is False
    assert [attempt.fault for attempt in seen] == [Fault.SERIALIZATION]


def readable(driver: Driver, proxy: FaultProxy) -> Driver:
    """``driver`` through ``proxy``, and not encrypted, as MySQL and some of its drivers would agree to be."""
    plain = {
        "mysql+pymysql": {"ssl_disabled": "true"},
        "mysql+mysqlconnector": {"ssl_disabled": "true"},
        "mysql+mysqldb": {"ssl_mode": "DISABLED"},
    }
    url = driver.url.set(host="127.0.0.1", port=proxy.port)
    return Driver(url.update_query_dict(plain.get(driver.name, {})))


def in_transaction(driver: Driver, engine: sa.Engine, work: Callable[[sa.Connection], Any], **options: Any) -> Any:
    """`run_transaction`, for async drivers through an async engine made around the sync one."""
    if not driver.is_async:
        return run_transaction(engine, work, **options)
    from sqlalchemy.ext.asyncio import AsyncEngine

    async def main(tx: Any) -> Any:
        return await tx.run_sync(work)

    return sa.util.await_only(run_transaction(AsyncEngine(engine), main, **options))


@pytest.mark.only_on("mariadb", "mysql")
def test_a_lock_timeout_is_rolled_back_whole(driver: Driver, database: Database) -> None:
    """The server rolls back the one statement only; committing then would keep half of the transaction."""
    holder = database.engine.connect()
    holder.exec_driver_sql("UPDATE a SET n = 0 WHERE id = 2")
    seen: list[Attempt] = []

    def release(attempt: Attempt) -> None:
        seen.append(attempt)
        holder.rollback()

    def work(tx: sa.Connection) -> None:
        tx.exec_driver_sql("SET innodb_lock_wait_timeout = 1")
        tx.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 1")
        tx.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 2")

    driver.run(lambda engine: in_transaction(driver, engine, work, on_retry=release))
    holder.close()
    assert [attempt.fault for attempt in seen] == [Fault.LOCK_TIMEOUT]
    with database.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT n FROM a WHERE id <= 2").scalars().all()
    assert found == [101, 101]


@pytest.mark.only_on("mariadb", "mysql")
def test_a_deadlock_that_is_swallowed_is_run_again(database: Database) -> None:
    """Going on after it would commit what comes later, without what came before."""
    runs = 0
    victim_holds = threading.Event()

    def rival() -> None:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("UPDATE a SET n = n + 10")
            connection.exec_driver_sql("INSERT INTO log VALUES ('x'), ('y'), ('z')")
            victim_holds.set()
            connection.exec_driver_sql("SELECT n FROM a WHERE id = 77 FOR UPDATE")
            connection.exec_driver_sql("UPDATE b SET n = 0")
            connection.commit()

    sql_elsewhere(database, "CREATE TABLE b (n INTEGER)")
    sql_elsewhere(database, "INSERT INTO b VALUES (1)")

    def work(tx: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        tx.exec_driver_sql("UPDATE b SET n = n + 1")
        if runs == 1:
            thread.start()
            assert victim_holds.wait(300)
        try:
            tx.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 1")
        except sa.exc.DBAPIError:
            assert runs == 1
        tx.exec_driver_sql("INSERT INTO log VALUES ('done')")

    thread = threading.Thread(target=rival)
    run_transaction(database.engine, work)
    thread.join(300)
    assert runs == 2
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM a WHERE id = 1").scalar() == 111
        assert connection.exec_driver_sql("SELECT n FROM b").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM log").scalar() == 4


@pytest.mark.only_on("postgresql", "postgresql15")
def test_an_error_that_is_swallowed(driver: Driver, database: Database) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK then, and no driver raises: the work would be lost in silence."""

    def swallow(tx: sa.Connection) -> None:
        tx.exec_driver_sql("INSERT INTO log VALUES ('kept')")
        with pytest.raises(faults.DuplicateKey):
            tx.exec_driver_sql("INSERT INTO a VALUES (1, 1)")

    def in_savepoint(tx: sa.Connection) -> None:
        tx.exec_driver_sql("INSERT INTO log VALUES ('kept')")
        with pytest.raises(faults.DuplicateKey), tx.begin_nested():
            tx.exec_driver_sql("INSERT INTO a VALUES (1, 1)")

    with pytest.raises(TransactionMisused, match="begin_nested") as caught:
        driver.run(lambda engine: in_transaction(driver, engine, swallow))
    assert isinstance(caught.value.__cause__, faults.DuplicateKey)
    driver.run(lambda engine: in_transaction(driver, engine, in_savepoint))
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM log").scalars().all() == ["kept"]


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_stale_plan_gets_a_new_connection(database: Database) -> None:
    engine = sa.create_engine(database.url, connect_args={"prepare_threshold": 0})
    altered = False

    def work(tx: sa.Connection) -> int:
        nonlocal altered
        length = len(tx.exec_driver_sql("SELECT * FROM log").keys())
        if not altered:
            altered = True
            tx.commit()
            sql_elsewhere(database, "ALTER TABLE log ADD COLUMN x INTEGER")
            tx.exec_driver_sql("SELECT * FROM log")
        return length

    assert run_transaction(engine, work) == 2
    engine.dispose()


@pytest.mark.only_on(*NETWORKED)
def test_a_lost_answer_to_commit(driver: Driver, database: Database) -> None:
    """Whether COMMIT was carried out or not, the client cannot know, and the caller is told so."""
    assert isinstance(database.url.port, int)

    def work(tx: sa.Connection) -> None:
        tx.exec_driver_sql(f"INSERT INTO log VALUES ('{name}')")

    def idempotent(tx: sa.Connection) -> None:
        tx.exec_driver_sql(f"DELETE FROM log WHERE id = '{name}'")
        work(tx)

    def twice(engine: sa.Engine) -> None:
        options: dict[str, Any] = {"idempotent": True, "on_retry": seen.append, "backoff": lambda _n, _f: 0.0}
        in_transaction(driver, engine, idempotent, **options)

    seen: list[Attempt] = []
    for when in When:
        name = uuid.uuid4().hex
        with FaultProxy("127.0.0.1", database.url.port) as proxy:
            through = readable(driver, proxy)
            proxy.harm(COMMIT, Harm.CUT, when=when)
            with pytest.raises(faults.CommitUnknown):
                through.run(lambda engine: in_transaction(driver, engine, work))
            assert proxy.fired == 1
            expected = 1 if when is When.ANSWERED else 0
            assert occurrences(database, name) == expected

            proxy.harm(COMMIT, Harm.CUT, when=when)
            seen.clear()
            through.run(twice)
            assert [attempt.fault for attempt in seen] == [Fault.COMMIT_UNKNOWN]
            assert occurrences(database, name) == 1


def occurrences(database: Database, name: str) -> object:
    """How often ``name`` is in the log, once its writer's session, cut off by the proxy, is over."""
    with database.engine.connect() as connection:
        if FAMILY[database.kind] == "mysql":  # reads wait for the lock of an unfinished INSERT
            return connection.exec_driver_sql(f"SELECT count(*) FROM log WHERE id = '{name}' FOR UPDATE").scalar()
        connection.exec_driver_sql("LOCK TABLE log IN SHARE MODE")
        return connection.exec_driver_sql(f"SELECT count(*) FROM log WHERE id = '{name}'").scalar()


@pytest.mark.only_on(*NETWORKED)
def test_connections_cut_before_commit_are_run_again(driver: Driver, database: Database) -> None:
    assert isinstance(database.url.port, int)

    def work(tx: sa.Connection) -> None:
        tx.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 1")
        tx.exec_driver_sql("UPDATE a SET n = n + 1 WHERE id = 2")

    with FaultProxy("127.0.0.1", database.url.port) as proxy:
        through = readable(driver, proxy)
        proxy.harm("WHERE id = 2", Harm.CUT, when=When.ANSWERED, times=2)
        proxy.harm("WHERE id = 1", Harm.DELAY, seconds=0.01)
        seen: list[Attempt] = []
        through.run(
            lambda engine: in_transaction(
                driver, engine, work, on_retry=seen.append, backoff=lambda _number, _fault: 0.0
            )
        )
        assert proxy.fired == 3
    assert [attempt.fault for attempt in seen] == [Fault.DISCONNECT] * 2
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM a WHERE id <= 2").scalars().all() == [101, 101]


@pytest.mark.only_on(*NETWORKED)
def test_server_killed_in_the_middle_of_commit(private_server: servers.Server) -> None:
    """The server has committed, its answer is on the way, and it dies: with every driver."""
    url = private_server.create_database()
    engine = sa.create_engine(url)
    create_accounts(engine)
    engine.dispose()
    assert isinstance(url.port, int)
    outcomes: dict[str, BaseException | None] = {}
    for name in drivers_of(private_server.kind):
        with FaultProxy("127.0.0.1", url.port) as proxy:
            proxy.harm(COMMIT, Harm.BLACK_HOLE, when=When.ANSWERED)
            through = readable(Driver.of(name, url), proxy)

            def victim(through: Driver = through, name: str = name) -> None:
                try:
                    through.run(
                        lambda engine: in_transaction(
                            through,
                            engine,
                            lambda tx: tx.exec_driver_sql(f"INSERT INTO log VALUES ('{name}')").close(),
                        )
                    )
                except faults.DatabaseFault as error:
                    outcomes[name] = error

            thread = threading.Thread(target=victim)
            thread.start()
            while not proxy.fired:
                assert thread.is_alive()
            private_server.kill()
            thread.join(300)
            assert not thread.is_alive()
            private_server.restart()
    assert {name: type(error).__name__ for name, error in outcomes.items()} == dict.fromkeys(
        drivers_of(private_server.kind), "CommitUnknown"
    )
    with sa.create_engine(url, poolclass=NullPool).connect() as connection:
        assert set(connection.exec_driver_sql("SELECT id FROM log").scalars()) == set(outcomes)


@pytest.mark.only_on("postgresql")
def test_a_time_limit_of_the_driver_on_commit(database: Database) -> None:
    """The answer never comes, and asyncpg stops waiting: a TimeoutError without any code is no answer."""

    async def main() -> None:
        with FaultProxy("127.0.0.1", int(database.url.port or 0)) as proxy:
            url = database.url.set(drivername="postgresql+asyncpg", host="127.0.0.1", port=proxy.port)
            engine = create_async_engine(url)
            proxy.harm(COMMIT, Harm.BLACK_HOLE, when=When.ANSWERED)

            async def work(tx: Any) -> None:
                await tx.exec_driver_sql("INSERT INTO log VALUES ('late')")
                # From here on: whatever came before may take as long as it does.
                connection = (await tx.get_raw_connection()).driver_connection
                connection._config = connection._config._replace(command_timeout=0.5)

            with pytest.raises(faults.CommitUnknown):
                await run_transaction(engine, work)
            proxy.cut()
            await engine.dispose()

    asyncio.run(main())
