"""Natural keys that become foreign keys, in the shapes they come in, on every server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddCompanion,
    AddForeignKey,
    CreateIndex,
    CreateTable,
    Declared,
    DropForeignKey,
    DropIndex,
    Fault,
    NewUuid,
    Options,
    ProblemError,
    ReferColumns,
    Runner,
    State,
    Upgrade,
    classify,
)
from contraflow.expressions import substr
from contraflow.operations.base import Operation
from tests.operations.lives import exact
from tests.servers.shared import Database


def _text(name: str, *, nullable: bool = False, **more: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(40), nullable=nullable, **more)


def _key() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)


def runner(database: Database, *operations: Operation, later: Sequence[Operation] = ()) -> Runner:
    changes = [Declared(revision="r1", operations=operations)]
    changes += [Declared(revision="r2", operations=tuple(later))] if later else []
    upgrade = Upgrade(old=None, new=changes[-1].revision, changes=tuple(changes))
    return Runner(database.url, upgrade, options=Options(lock_timeout=0.3))


def send(database: Database, *statements: str) -> None:
    """Each statement in a transaction of its own; foreign keys count."""
    for statement in statements:
        with database.engine.begin() as connection:
            if database.kind == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.exec_driver_sql(statement)


def read(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


# --- a natural key under a foreign key that cascades ------------------------------------------------------------------


def cities() -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table("cities", metadata, _key(), _text("name", unique=True))
    sa.Table(
        "users",
        metadata,
        _key(),
        _text("city"),
        sa.ForeignKeyConstraint(
            ["city"], ["cities.name"], name="fk_users_city", onupdate="CASCADE", ondelete="CASCADE"
        ),
        sa.Index("ix_users_city", "city"),
    )
    return metadata


REFERENCE = ReferColumns(
    table="users",
    columns={"city": "name"},
    column=sa.Column("city_id", sa.Integer, nullable=False),
    to="cities",
    key="id",
)
INDEX = CreateIndex(table="users", name="ix_users_city_id", columns=["city_id"])
KEYED = (
    REFERENCE,
    DropForeignKey(table="users", columns=["city"]),
    DropIndex(table="users", name="ix_users_city"),
    INDEX,
    AddForeignKey(
        table="users", name="fk_users_city_id", columns=["city_id"], target="cities", target_columns=["id"],
        ondelete="CASCADE",
    ),
)  # fmt: skip


def test_a_foreign_key_becomes_another_one(database: Database) -> None:
    cities().create_all(database.engine)
    send(
        database,
        "INSERT INTO cities (id, name) VALUES (1, 'Ulm'), (2, 'Rom'), (3, 'Bonn')",
        "INSERT INTO users (id, city) VALUES (1, 'Ulm'), (2, 'Rom'), (3, 'Bonn'), (4, 'Ulm')",
    )
    start = [exact(database.engine, table) for table in ("users", "cities")]
    with runner(database, *KEYED) as run:
        assert run.check() == []
        run.expand()
        # The foreign key changes the column, and then the other table's trigger does, before the backfill and after.
        send(
            database, "UPDATE cities SET name = 'Köln' WHERE id = 3", "INSERT INTO users (id, city) VALUES (5, 'Köln')"
        )
        run.rollback()
        assert [exact(database.engine, table) for table in ("users", "cities")] == start
        run.upgrade()
        send(
            database,
            "UPDATE cities SET name = 'Roma' WHERE id = 2",
            "INSERT INTO users (id, city_id) VALUES (6, 2)",
            "UPDATE users SET city_id = 2 WHERE id = 1",
            "UPDATE users SET city = 'Roma' WHERE id = 4",
            "DELETE FROM cities WHERE id = 3",
        )
        assert read(database, "SELECT id, city, city_id FROM users ORDER BY id") == [
            (1, "Roma", 2),
            (2, "Roma", 2),
            (4, "Roma", 2),
            (6, "Roma", 2),
        ]
        run.verify()
        run.contract()
    assert read(database, "SELECT id, city_id FROM users ORDER BY id") == [(1, 2), (2, 2), (4, 2), (6, 2)]
    (key,) = sa.inspect(database.engine).get_foreign_keys("users")
    assert (key["constrained_columns"], key["referred_columns"]) == (["city_id"], ["id"])


# --- one column, which may be NULL, and rows that are made ------------------------------------------------------------


def test_null_refers_to_nothing(database: Database) -> None:
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), _text("city", nullable=True))
    metadata.create_all(database.engine)
    made = sa.Table(
        "cities",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        _text("name", unique=True),
        _text("from", nullable=True),
    )
    reference = ReferColumns(
        table="users",
        columns={"city": "name"},
        column=sa.Column("city_id", sa.Integer),
        to="cities",
        key="id",
        create=True,
        values={"from": lambda row: row.city},
    )
    send(database, "INSERT INTO users (id, city) VALUES (1, 'Ulm'), (2, NULL)")
    with runner(database, CreateTable(definition=made), reference, INDEX) as run:
        run.upgrade()
        send(
            database,
            "INSERT INTO users (id, city) VALUES (3, NULL), (4, 'Rom')",
            "UPDATE users SET city = NULL WHERE id = 1",
            "UPDATE users SET city = 'Ulm' WHERE id = 2",
            "INSERT INTO users (id) VALUES (5)",
            "UPDATE users SET city_id = NULL WHERE id = 4",
        )
        run.verify()
        assert read(
            database, "SELECT u.id, u.city, c.name FROM users u LEFT JOIN cities c ON c.id = u.city_id ORDER BY 1"
        ) == [
            (1, None, None),
            (2, "Ulm", "Ulm"),
            (3, None, None),
            (4, None, None),
            (5, None, None),
        ]
        assert read(database, "SELECT name FROM cities ORDER BY name") == [("Rom",), ("Ulm",)]
        run.contract()
    assert read(database, "SELECT count(city_id) FROM users") == [(1,)]


def test_a_row_that_cannot_be_made_fails_the_statement_alike_everywhere(database: Database) -> None:
    """Another row has its key already: no server may take that for the row that was looked for."""
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), _text("city"))
    sa.Table("cities", metadata, _text("code", primary_key=True), _text("name", unique=True))
    metadata.create_all(database.engine)
    companion = AddCompanion(
        table="users",
        column=sa.Column("city_code", sa.String(40), nullable=False),
        to="cities",
        key="code",
        columns={"city": "name"},
        values={"code": lambda row: substr(row.city, 1, 3)},
    )
    send(database, "INSERT INTO cities (code, name) VALUES ('Ulm', 'Ulm am Rhein')")
    with runner(database, companion) as run:
        run.expand()
        send(database, "INSERT INTO users (id, city) VALUES (1, 'Rom')")
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            send(database, "INSERT INTO users (id, city) VALUES (2, 'Ulm')")
        assert classify(refusal.value) is Fault.DUPLICATE_KEY
        run.migrate()
        assert read(database, "SELECT id, city_code FROM users") == [(1, "Rom")]


@pytest.mark.parametrize("hyphens", [True, False], ids=["with hyphens", "without"])
def test_each_row_that_is_made_gets_a_uuid_of_its_own(database: Database, hyphens: bool) -> None:
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), _text("city"))
    native = database.kind.startswith("postgresql") and hyphens
    key = sa.Column("code", sa.Uuid() if native else sa.String(36), primary_key=True)
    sa.Table("cities", metadata, key, _text("name", unique=True))
    metadata.create_all(database.engine)
    companion = AddCompanion(
        table="users",
        column=sa.Column("city_code", sa.Uuid() if native else sa.String(36), nullable=False),
        to="cities",
        key="code",
        columns={"city": "name"},
        values={"code": NewUuid(hyphens=hyphens)},
    )
    send(database, "INSERT INTO users (id, city) VALUES (1, 'Rom'), (2, 'Ulm'), (3, 'Rom')")
    with runner(database, companion) as run:
        run.upgrade()
        send(database, "INSERT INTO users (id, city) VALUES (4, 'Zug'), (5, 'Genf'), (6, 'Zug')")
        run.contract()
    rows = read(database, "SELECT c.name, u.city_code FROM users u JOIN cities c ON c.code = u.city_code")
    codes = {name: str(code) for name, code in rows}
    assert len(rows) == 6
    assert set(codes) == {"Rom", "Ulm", "Zug", "Genf"}
    assert len(set(codes.values())) == 4
    form = r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}" if hyphens else "[0-9a-f]{32}"
    assert all(re.fullmatch(form, code) for code in codes.values())


# --- an upgrade that grows, and one that is planned again from the journal --------------------------------------------


def test_an_upgrade_grows_before_it_is_migrated(database: Database) -> None:
    cities().create_all(database.engine)
    send(database, "INSERT INTO cities (id, name) VALUES (1, 'Ulm')", "INSERT INTO users (id, city) VALUES (1, 'Ulm')")
    later = [AddColumn(table="users", column=sa.Column("note", sa.String(9), nullable=False, server_default="-"))]
    with runner(database, *KEYED) as run:
        run.expand()
        send(database, "INSERT INTO users (id, city) VALUES (2, 'Ulm')")
    with runner(database, *KEYED, later=later) as run:
        run.expand()
        send(
            database,
            "UPDATE cities SET name = 'Neu-Ulm' WHERE id = 1",
            "INSERT INTO users (id, city) VALUES (3, 'Neu-Ulm')",
        )
        run.upgrade()
        assert read(database, "SELECT id, city, city_id, note FROM users ORDER BY id") == [
            (number, "Neu-Ulm", 1, "-") for number in (1, 2, 3)
        ]
    with Runner(database.url, options=Options(lock_timeout=0.3)) as run:  # nothing but the journal
        run.contract()
        assert run.status().state is State.CONTRACTED
    assert read(database, "SELECT id, city_id FROM users ORDER BY id") == [(1, 1), (2, 1), (3, 1)]


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.only_on("postgresql", "postgresql15")
def test_the_old_release_needs_no_rights_on_the_other_table(database: Database) -> None:
    """It never touched it: what its statements make there is made with the rights of who upgrades."""
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), _text("city"))
    metadata.create_all(database.engine)
    role = f"old_{database.url.database}"
    made = sa.Table("cities", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), _text("name", unique=True))
    reference = ReferColumns(
        table="users",
        columns={"city": "name"},
        column=sa.Column("city_id", sa.Integer, nullable=False),
        to="cities",
        key="id",
        create=True,
    )
    send(database, f'CREATE ROLE "{role}"', f'GRANT SELECT, INSERT, UPDATE ON users TO "{role}"')
    try:
        with runner(database, CreateTable(definition=made), reference, INDEX) as run:
            run.expand()
            with database.engine.begin() as connection:
                connection.exec_driver_sql(f'SET LOCAL ROLE "{role}"')
                # Nor may it be led astray by where it looks for tables.
                connection.exec_driver_sql("CREATE TEMP TABLE cities (id integer, name text) ON COMMIT DROP")
                connection.exec_driver_sql("INSERT INTO users (id, city) VALUES (1, 'Ulm')")
            run.upgrade()
            assert read(database, "SELECT u.city_id = c.id, c.name FROM users u, cities c") == [(True, "Ulm")]
            run.rollback()
    finally:
        send(database, f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


# --- schemas ----------------------------------------------------------------------------------------------------------


@pytest.mark.only_on("postgresql", "mysql", "mariadb")
def test_tables_of_another_schema(database: Database) -> None:
    schema = f"other_{database.url.database}"
    send(database, f"CREATE SCHEMA {schema}")
    try:
        send(
            database,
            f"CREATE TABLE {schema}.cities (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE)",
            f"CREATE TABLE {schema}.users (id INTEGER NOT NULL PRIMARY KEY, city VARCHAR(40) NOT NULL)",
            f"INSERT INTO {schema}.cities VALUES (1, 'Ulm')",
            f"INSERT INTO {schema}.users VALUES (1, 'Ulm')",
        )
        reference = ReferColumns(
            table="users",
            schema=schema,
            columns={"city": "name"},
            column=sa.Column("city_id", sa.Integer, nullable=False),
            to="cities",
            key="id",
            scans=True,
        )
        with runner(database, reference) as run:
            run.upgrade()
            send(
                database,
                f"UPDATE {schema}.cities SET name = 'Neu-Ulm', id = 7",
                f"INSERT INTO {schema}.users (id, city) VALUES (2, 'Neu-Ulm')",
                f"INSERT INTO {schema}.users (id, city_id) VALUES (3, 7)",
            )
            rows = f"SELECT id, city, city_id FROM {schema}.users ORDER BY id"
            assert read(database, rows) == [(number, "Neu-Ulm", 7) for number in (1, 2, 3)]
            run.contract()
    finally:
        send(database, f"DROP SCHEMA {schema}{' CASCADE' if database.kind == 'postgresql' else ''}")


# --- alike, and not the same ------------------------------------------------------------------------------------------


@pytest.mark.only_on("mysql", "mariadb")
@pytest.mark.parametrize("create", [True, False], ids=["made", "found"])
def test_what_is_alike_and_not_the_same_is_told_and_never_lost(database: Database, create: bool) -> None:
    """These servers' own collations see no case: one city stands for both."""
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), _text("city"))
    cities = sa.Table("cities", metadata, sa.Column("id", sa.Integer, primary_key=True), _text("name", unique=True))
    metadata.create_all(database.engine)
    wish: dict[str, Any] = {
        "table": "users",
        "columns": {"city": "name"},
        "column": sa.Column("city_id", sa.Integer, nullable=False),
        "to": cities.name,
        "key": "id",
        "create": create,
        "scans": True,
    }
    send(database, "INSERT INTO users (id, city) VALUES (1, 'Ulm'), (2, 'ULM')")
    if not create:
        send(database, "INSERT INTO cities (name) VALUES ('Ulm')")
    with runner(database, ReferColumns(**wish)) as run:
        (problem,) = run.check()
        assert problem.code == "CF108"
        assert "no row of cities has exactly the same city" in problem.what
        send(database, "UPDATE users SET city = 'Ulm' WHERE id = 2")
        run.upgrade()
        send(database, "INSERT INTO users (id, city) VALUES (3, 'ulm')")
        assert read(database, "SELECT city, city_id FROM users ORDER BY id") == [("Ulm", 1), ("Ulm", 1), ("ulm", 1)]
        with pytest.raises(ProblemError, match=r"(?s)CF012.*1 row of users.*city='ulm'"):
            run.verify()
        run.rollback()
    with runner(database, ReferColumns(**wish, lossy=True)) as run:
        run.run("contract")
    assert read(database, "SELECT city_id FROM users ORDER BY id") == [(1,), (1,), (1,)]


# --- statements that use both tables ----------------------------------------------------------------------------------


@pytest.mark.only_on("mysql", "mariadb")
def test_which_statements_the_server_refuses_for_using_both_tables(database: Database) -> None:
    """Error 1442, where a trigger would write a table that its statement uses; elsewhere they go on."""
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), _text("city"))
    sa.Table("cities", metadata, sa.Column("id", sa.Integer, primary_key=True), _text("name", unique=True))
    metadata.create_all(database.engine)
    reference = ReferColumns(
        table="users",
        columns={"city": "name"},
        column=sa.Column("city_id", sa.Integer, nullable=False),
        to="cities",
        key="id",
        create=True,
        scans=True,
    )
    send(database, "INSERT INTO users (id, city) VALUES (1, 'Ulm')", "INSERT INTO cities (name) VALUES ('Zug')")
    with runner(database, reference) as run:
        run.upgrade()
        send(
            database,
            "INSERT INTO users (id, city) SELECT id + 10, name FROM cities WHERE name = 'Zug'",
            "UPDATE users SET city = (SELECT name FROM cities WHERE name = 'Ulm') WHERE id > 10",
            "DELETE FROM cities WHERE id NOT IN (SELECT city_id FROM users)",
            "UPDATE cities SET name = name WHERE id IN (SELECT city_id FROM users)",
        )
        for statement in (
            "INSERT INTO users (id, city) SELECT id + 20, CONCAT(name, '!') FROM cities",
            "UPDATE cities SET name = 'Neu-Ulm' WHERE id IN (SELECT city_id FROM users)",
            "DELETE FROM cities WHERE id IN (SELECT city_id FROM users)",
        ):
            with pytest.raises(sa.exc.DBAPIError, match="1442"):
                send(database, statement)
        run.verify()
    assert read(database, "SELECT city FROM users") == [("Ulm",), ("Ulm",)]
    assert read(database, "SELECT name FROM cities") == [("Ulm",)]
