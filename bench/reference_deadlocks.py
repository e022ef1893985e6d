"""How often a transaction must be run again because rows refer to rows that change.

Two writers of the old release let random rows refer to random rows of another table, by natural key; one writer of the
new release does so by key; and one changes the natural keys, which all rows that refer follow. One row a transaction,
as fast as they can. A transaction that was run again counts as a retry; none fails, and afterwards both shapes agree.

    python -m bench.reference_deadlocks [--server postgresql ...] [--seconds 5]
"""

from __future__ import annotations

import functools
import random

import sqlalchemy as sa

from bench.contention import contend, run
from contraflow import CreateIndex, Declared, DropIndex, Options, ReferColumns, Runner, Upgrade
from contraflow.rehearsal import servers
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


def old_write(rows: int, cities: int, chance: random.Random, _done: int) -> sa.Update:
    """The old release lets a row refer by a name, which may just be changing."""
    name = f"c{chance.randint(1, cities)} {chance.randint(0, 1)}"
    return sa.update(USERS).where(USERS.c.id == chance.randint(1, rows)).values(city=name)


def new_write(rows: int, cities: int, chance: random.Random, _done: int) -> sa.Update:
    """The new release lets a row refer by key."""
    return (
        sa.update(NEW_USERS).where(NEW_USERS.c.id == chance.randint(1, rows)).values(city_id=chance.randint(1, cities))
    )


def rename(_rows: int, cities: int, chance: random.Random, done: int) -> sa.Update:
    """What is referred to gets another name."""
    city = chance.randint(1, cities)
    return sa.update(CITIES).where(CITIES.c.id == city).values(name=f"c{city} {done % 2}")


WRITERS = (old_write, old_write, new_write, rename)


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
        with Runner(url, upgrade, options=Options(lock_timeout=0.3)) as runner:
            runner.upgrade()
            told = contend(url, [functools.partial(make, *size) for make in WRITERS], seconds)
            runner.verify()
        differing = (
            "SELECT count(*) FROM users u LEFT JOIN cities c ON c.id = u.city_id WHERE u.city_id IS NOT NULL"
            " AND (c.name IS NULL OR c.name <> u.city)"
        )
        with engine.connect() as connection:
            wrong = connection.exec_driver_sql(differing).scalar_one()
        return f"| {server.kind} | {rows} | {cities} | {told} | {wrong} |"
    finally:
        engine.dispose()
        server.drop_database(url)


if __name__ == "__main__":
    run(__doc__, "rows | referred to", SIZES, measure)
