"""Rows that violate a new constraint get the value that was declared for them, once the old release is gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddForeignKey,
    AddUnique,
    ProblemError,
    RenameColumn,
    Runner,
    State,
)
from contraflow.expressions import concat, length, to_text
from contraflow.installed import Installed
from contraflow.lens import Row
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from tests.operations.lives import send, writing
from tests.servers.shared import Database
from tests.upgrades import runner_of, upgrade_of

TEAMS = "CREATE TABLE teams (id INTEGER NOT NULL PRIMARY KEY)"
USERS = "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, slug VARCHAR(40), age INTEGER, team INTEGER)"
OPERATIONS: Mapping[str, Operation] = {
    "unique": AddUnique(
        table="users",
        name="uq_users_slug",
        columns=["slug"],
        repair={"slug": lambda row: concat(row.slug, ":", to_text(row.id))},
        reads=["id"],
    ),
    "check": AddCheck(
        table="users",
        name="ck_users_age",
        columns=["age"],
        condition=lambda row: row.age >= 0,
        copies=True,
        repair={"age": lambda row: sa.case((row.age < -9, 9), else_=row.team)},
        reads=["team"],
    ),
    "key": AddForeignKey(
        table="users",
        name="fk_users_team",
        columns=["team"],
        target="teams",
        target_columns=["id"],
        repair={"team": lambda _row: sa.null()},
    ),
}


def runner(database: Database, *operations: Operation) -> Runner:
    return runner_of(database, *operations, batch_size=2, max_batch_size=2)


def test_rows_are_mended_when_the_old_release_is_gone(database: Database) -> None:
    engine = database.engine
    send(engine, [TEAMS, USERS, "INSERT INTO teams VALUES (1), (2)"])
    rows = [
        "(1, 'a', 1, 1), (2, 'a', -1, 2), (3, NULL, NULL, NULL), (4, 'b', -20, 7), (5, NULL, 5, 8)",
        "(6, 'A b', 6, 1), (7, 'b', 7, 9), (8, 'a', -2, 1)",
    ]
    before = "SELECT id, slug, age, team FROM users ORDER BY id"

    def read() -> list[Any]:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(before)]

    send(engine, [f"INSERT INTO users VALUES {some}" for some in rows])
    old = read()
    with runner(database, *OPERATIONS.values()) as run:
        assert run.check() == []
        run.upgrade()
        assert read() == old, "the old release goes on to write and read them"
        run.rollback()
        assert read() == old
        run.upgrade()
        assert "UPDATE" in " ".join(one.statement.sql for one in run.plan().phases["contract"])
        with writing(engine, ["INSERT INTO users VALUES (100, 'new', 1, 1)", "DELETE FROM users WHERE id = 100"]):
            run.contract()
        assert run.status().state is State.CONTRACTED
    assert read() == [
        (1, "a", 1, 1),
        (2, "a:2", 2, 2),
        (3, None, None, None),
        (4, "b", 9, None),
        (5, None, 5, None),
        (6, "A b", 6, 1),
        (7, "b:7", 7, None),
        (8, "a:8", 1, 1),
    ]
    wrongs = ("(9, 'a', 1, 1)", "(9, 'c', -1, 1)", "(9, 'c', 1, 9)")
    for wrong in wrongs:
        with pytest.raises(sa.exc.DBAPIError):
            send(engine, [f"INSERT INTO users VALUES {wrong}"])


def test_a_value_that_makes_no_row_fit_is_found_out(database: Database) -> None:
    """Contract gives up, and rollback is open."""
    engine = database.engine
    send(engine, [USERS, "INSERT INTO users (id, slug) VALUES (1, 'a'), (2, 'a')"])
    same = AddUnique(table="users", name="uq", columns=["slug"], repair={"slug": lambda row: row.slug})
    with runner(database, same) as run:
        run.upgrade()
        with pytest.raises(ProblemError, match="CF014"):
            run.contract()
        run.rollback()
        assert run.status().rolled_back is not None


def test_a_renamed_column_is_mended_for_both_names(database: Database) -> None:
    engine = database.engine
    send(engine, [USERS, "INSERT INTO users (id, slug) VALUES (1, 'a'), (2, '')"])
    operations = (
        RenameColumn(table="users", old="slug", new="name"),
        AddCheck(
            table="users",
            name="ck_users_name",
            columns=["name"],
            condition=lambda row: length(row["name"]) > 0,
            copies=True,
            repair={"name": lambda _row: "none"},
        ),
    )
    with runner(database, *operations) as run:
        run.upgrade()
        run.contract()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM users WHERE id = 2").scalar() == "none"


def _a(_row: Row) -> str:
    return "a"


def _b(_row: Row) -> str:
    return "b"


def table(*columns: sa.Column[Any]) -> sa.Table:
    return sa.Table("users", sa.MetaData(), *columns, sa.Column("slug", sa.String(9)), sa.Column("age", sa.Integer))


def test_what_is_kept_in_the_journal_and_in_the_fingerprint() -> None:
    users = table(sa.Column("id", sa.Integer, primary_key=True), sa.Column("team", sa.Integer))
    (installed,) = plan(upgrade_of(*OPERATIONS.values()), {(None, "users"): users}).installed
    assert Installed.from_dict(installed.as_dict()) == installed
    assert {mend.of: mend.column for mend in installed.mends} == {
        "uq_users_slug": "slug",
        "ck_users_age": "age",
        "fk_users_team": "team",
    }
    plain = AddUnique(table="users", name="uq", columns=["slug"])
    assert "repair" not in plain.describe()
    others = [AddUnique(table="users", name="uq", columns=["slug"], repair={"slug": value}) for value in (_a, _b)]
    assert len({str(one.describe()) for one in (plain, *others)}) == 3


def test_what_cannot_be_declared() -> None:
    key = sa.Column("id", sa.Integer, primary_key=True)

    def refused(code: str, users: sa.Table, **more: Any) -> None:
        with pytest.raises(ProblemError, match=code):
            plan(upgrade_of(AddUnique(table="users", name="uq", columns=["slug"], **more)), {(None, "users"): users})

    refused("CF116", table(key), repair={"slug": lambda _row: "", "age": lambda _row: 1})
    refused("CF102", table(key._copy()), repair={"slug": lambda row: row.nothing})
    refused("CF116", table(key._copy()), repair={"id": lambda _row: 1})
    refused("CF116", table(), repair={"slug": lambda _row: "x"})
    refused("CF101", table(key._copy()), repair={"nothing": lambda _row: "x"})
    own = AddForeignKey(
        table="users",
        name="fk",
        columns=["age"],
        target="users",
        target_columns=["id"],
        repair={"age": lambda _row: sa.null()},
    )
    with pytest.raises(ProblemError, match="its own table"):
        plan(upgrade_of(own), {(None, "users"): table(key._copy())})
