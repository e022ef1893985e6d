"""UNIQUE in the text of a table, which SQLite itself cannot drop."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import AddUnique, Declared, DropUnique, RenameColumn, Runner, Upgrade
from contraflow.dialects import sqlite_text
from tests.operations.lives import exact, send
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

pytestmark = pytest.mark.only_on("sqlite")

CHANGE = Declared(
    revision="r1",
    operations=(
        RenameColumn(table="users", old="mail", new="email"),
        DropUnique(table="users", columns=["mail"]),
        AddUnique(table="users", name="uq_email", columns=["email"]),
    ),
)
UPGRADE = Upgrade(old=None, new="r1", changes=(CHANGE,))

TABLES = [
    "CREATE TABLE users (id INTEGER PRIMARY KEY, mail TEXT NOT NULL UNIQUE, a TEXT UNIQUE, b TEXT, UNIQUE (b, a))",
    "CREATE TABLE users (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT UNIQUE, mail TEXT, UNIQUE (mail))",
    """CREATE TABLE users (id TEXT PRIMARY KEY, a TEXT, mail TEXT NOT NULL, b TEXT, UNIQUE (a),
        CONSTRAINT uq_mail /* why */ UNIQUE (mail) ON CONFLICT ABORT -- here
        , UNIQUE (b), CHECK (a <> 'UNIQUE (b)'))""",
    """CREATE TABLE users (id TEXT PRIMARY KEY, mail TEXT NOT NULL, a TEXT UNIQUE, b TEXT UNIQUE, UNIQUE (mail))
        WITHOUT ROWID""",
    "CREATE TABLE users (id INT, mail TEXT UNIQUE, a TEXT, b TEXT, UNIQUE (a), UNIQUE (mail), UNIQUE (b)) STRICT",
    """CREATE TABLE "users"(id INTEGER PRIMARY KEY, "mail" VARCHAR(9) CONSTRAINT "u q" unique ON CONFLICT FAIL not null,
        a TEXT UNIQUE ON CONFLICT IGNORE, b TEXT CHECK (b <> '') UNIQUE)""",
]


@pytest.mark.parametrize("create", TABLES)
def test_it_goes_and_the_others_stay(database: Database, create: str) -> None:
    engine = database.engine
    send(engine, [create])
    columns = "id, mail, a, b"
    with engine.begin() as connection:
        for number in range(300):
            connection.exec_driver_sql(
                f"INSERT INTO users ({columns}) VALUES ({number}, 'm{number}', 'a{number}', 'b{number}')"
            )
    start = exact(engine)
    # Another process has the file open, with the schema as it was.
    with engine.connect() as other, Runner(database.url, UPGRADE) as run:
        other.exec_driver_sql("SELECT * FROM users").all()
        other.rollback()
        run.expand()
        run.migrate()
        run.rollback()
        assert exact(engine) == start
        run.run("contract")
        assert "email" in other.exec_driver_sql("SELECT * FROM users WHERE id = 7").mappings().one()
        other.rollback()
        assert other.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        other.rollback()
    inspector = sa.inspect(engine)
    left = {tuple(found["column_names"]) for found in inspector.get_unique_constraints("users")}
    assert left == {("a",), ("b", "a")} if "(b, a)" in create else {("a",), ("b",)}
    assert [index["name"] for index in inspector.get_indexes("users")] == ["uq_email"]
    for column, value in (("email", "m1"), ("b", "b1")):
        if "(b, a)" in create and column == "b":
            continue
        with pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
            send(engine, [f"UPDATE users SET {column} = '{value}' WHERE id = '2'"])
    # The indexes that stay are still the right ones: each finds its row.
    with engine.connect() as connection:
        for column in ("a", "b", "email"):
            value = f"{column[0] if column != 'email' else 'm'}250"
            query = f"SELECT id FROM users WHERE {column} = '{value}'"
            assert [str(row[0]) for row in connection.exec_driver_sql(query)] == ["250"]


@pytest.mark.parametrize(
    ("sql", "columns", "left"),
    [
        ("CREATE TABLE t (a TEXT UNIQUE NOT NULL, b)", ["a"], "CREATE TABLE t (a TEXT  NOT NULL, b)"),
        ("CREATE TABLE t (a, b, UNIQUE (a, b), CHECK (a))", ["a", "b"], "CREATE TABLE t (a, b, CHECK (a))"),
        ("CREATE TABLE t (a UNIQUE, b, UNIQUE(A COLLATE NOCASE DESC))", ["a"], "CREATE TABLE t (a , b)"),
        ("CREATE TABLE t (a, [unique] UNIQUE)", ["unique"], "CREATE TABLE t (a, [unique] )"),
    ],
)
def test_the_text_without_it(sql: str, columns: list[str], left: str) -> None:
    assert sqlite_text.drop_unique(sql, columns) == left


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE t (a, b UNIQUE)", "CREATE TABLE t (a, UNIQUE (a, b))", "CREATE TABLE t (a CHECK (UNIQUE))"]
)
def test_a_text_that_has_none(sql: str) -> None:
    with pytest.raises(ValueError, match="no UNIQUE on a"):
        sqlite_text.drop_unique(sql, ["a"])


@pytest.mark.parametrize(
    "constraint",
    ["UNIQUE (mail)", "CONSTRAINT uq_old UNIQUE (mail)", 'CONSTRAINT "u""q" UNIQUE (mail)'],
)
def test_a_constraint_takes_the_place_of_one_over_the_same_columns(database: Database, constraint: str) -> None:
    send(database.engine, [f"CREATE TABLE users (id INTEGER PRIMARY KEY, mail TEXT, {constraint})"])
    start = exact(database.engine)
    again = upgrade_of(
        DropUnique(table="users", columns=["mail"]), AddUnique(table="users", name="uq_new", columns=["mail"])
    )
    with Runner(database.url, again) as run:
        run.upgrade()
        run.rollback()
        assert exact(database.engine) == start
        run.run()
    shown = sa.inspect(database.engine)
    assert [(index["name"], index["unique"]) for index in shown.get_indexes("users")] == [("uq_new", 1)]
    assert shown.get_unique_constraints("users") == []


def test_constraints_without_commas_are_left_to_people(database: Database) -> None:
    send(database.engine, ["CREATE TABLE users (id INTEGER PRIMARY KEY, mail TEXT, UNIQUE (mail) CHECK (id > 0))"])
    with Runner(database.url, UPGRADE) as run:
        assert ("CF205", True) in [(problem.code, "without a comma" in problem.why) for problem in run.check()]
    with pytest.raises(ValueError, match="without a comma"):
        sqlite_text.drop_unique("CREATE TABLE t (a, UNIQUE (a) CHECK (a > 0))", ["a"])
