"""How often a transaction must be run again because rows refer to rows that change.

Two writers of the old release let random rows refer to random rows of another table, by natural key; one writer of the
new release does so by key; and one changes the natural keys, which all rows that refer follow. One row a transaction,
as fast as they can. A transaction that was run again counts as a retry; none fails, and afterwards both shapes agree.

    python -m bench.reference_deadlocks [--server postgresql ...] [--seconds 5]
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from contraflow import CreateIndex, Declared, DropIndex, Options, ReferColumns, Runner, Upgrade
from contraflow.rehearsal import servers
from contraflow.retry import run_transaction
from tests.servers.shared import new_engine

SIZES = ((20, 5), (2000, 500))
"""Rows that refer, and those that they refer to."""
METADATA = sa.MetaData()
CITIES = sa.Table(
    "cities",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(40), nullable=False, unique=True),
)
USERS = sa.Table(
    "users",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("city", sa.String(40), nullable=True),
    sa.Index("ix_users_city", "city"),
)
NEW_USERS = sa.table("users", sa.column("id"), sa.column("city_id"))
OPERATIONS = (
    ReferColumns(
        table="users",
        columns={"city": "name"},
        column=sa.Column("city_id", sa.Integer),
        to="cities",
        key="id",
        lossy=True,
    ),
    DropIndex(table="users", name="ix_users_city"),
    CreateIndex(table="users", name="ix_users_city_id", columns=["city_id"]),
)


@dataclass(kw_only=True)
class Tally:
    """What one writer came to."""

    done: int = 0
    tried: int = 0
    longest: float = 0.0


def old_write(chance: random.Random, rows: int, cities: int, _number: int) -> sa.Update:
    """The old release lets a row refer by a name, which may just be changing."""
    name = f"c{chance.randint(1, cities)} {chance.randint(0, 1)}"
    return sa.update(USERS).where(USERS.c.id == chance.randint(1, rows)).values(city=name)


def new_write(chance: random.Random, rows: int, cities: int, _number: int) -> sa.Update:
    """The new release lets a row refer by key."""
    return (
        sa.update(NEW_USERS).where(NEW_USERS.c.id == chance.randint(1, rows)).values(city_id=chance.randint(1, cities))
    )


def rename(chance: random.Random, _rows: int, cities: int, number: int) -> sa.Update:
    """What is referred to gets another name."""
    city = chance.randint(1, cities)
    return sa.update(CITIES).where(CITIES.c.id == city).values(name=f"c{city} {number % 2}")


Make = Callable[[random.Random, int, int, int], sa.Update]
WRITERS: tuple[Make, ...] = (old_write, old_write, new_write, rename)


def write(url: sa.URL, make: Make, size: tuple[int, int], seed: int, end: float, tally: Tally) -> None:
    """Write until the end."""
    chance = random.Random(seed)
    engine = new_engine(url)
    while (began := time.monotonic()) < end:
        statement = make(chance, *size, tally.done)

        def work(tx: sa.Connection, statement: sa.Update = statement) -> None:
            tally.tried += 1
            tx.execute(statement)

        run_transaction(engine, work, attempts=None)
        tally.done += 1
        tally.longest = max(tally.longest, time.monotonic() - began)
    engine.dispose()


def measure(server: servers.Server, size: tuple[int, int], seconds: float) -> str:
    """One line of the table."""
    rows, cities = size
    url = server.create_database()
    engine = new_engine(url)
    upgrade = Upgrade(old=None, new="r1", changes=(Declared(revision="r1", operations=OPERATIONS),))
    try:
        METADATA.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(CITIES), [{"id": n, "name": f"c{n} 0"} for n in range(1, cities + 1)])
            connection.execute(
                sa.insert(USERS), [{"id": n, "city": f"c{n % cities + 1} 0"} for n in range(1, rows + 1)]
            )
        with Runner(url, upgrade, options=Options(lock_timeout=0.3)) as run:
            run.upgrade()
            end = time.monotonic() + seconds
            tallies = [Tally() for _ in WRITERS]
            threads = [
                threading.Thread(target=write, args=(url, make, size, seed, end, tally))
                for seed, (make, tally) in enumerate(zip(WRITERS, tallies, strict=True))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            run.verify()
        done, tried = sum(tally.done for tally in tallies), sum(tally.tried for tally in tallies)
        longest = max(tally.longest for tally in tallies) * 1000
        differing = (
            "SELECT count(*) FROM users u LEFT JOIN cities c ON c.id = u.city_id WHERE u.city_id IS NOT NULL"
            " AND (c.name IS NULL OR c.name <> u.city)"
        )
        with engine.connect() as connection:
            wrong = connection.exec_driver_sql(differing).scalar_one()
        return (
            f"| {server.kind} | {rows} | {cities} | {done} | {done / seconds:.0f} |"
            f" {(tried - done) / done * 1000:.1f} | {longest:.0f} | {wrong} |"
        )
    finally:
        engine.dispose()
        server.drop_database(url)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    lines = [
        "| server | rows | referred to | transactions | a second | retries per 1000 | longest, ms | rows that differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in options.server or ["sqlite", "postgresql", "mariadb", "mysql"]:
        with servers.start(name) as server:
            lines += [measure(server, size, options.seconds) for size in SIZES]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
