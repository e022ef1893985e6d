"""Enumerated columns: values added under one name, renamed and removed under another."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from contraflow import AddEnumValues, ChangeType, Runner
from contraflow.dialects.base import Statement
from contraflow.expressions import recode
from contraflow.problems import ProblemError
from tests.operations.lives import Killed, exact, send
from tests.servers.shared import Database
from tests.upgrades import runner_of, upgrade_of

POSTGRESQL = ("postgresql", "postgresql15")
MYSQL = ("mariadb", "mysql")
NEW = ["it's", "back\\slash", "late"]


def table(database: Database) -> sa.Table:
    made = sa.Table(
        "users",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Enum("new", "o'ld", name="state"), nullable=False, server_default="new"),
        sa.Column("other", sa.Enum("new", "o'ld", name="state")),
        sa.Index("ix_users_state", "state"),
    )
    made.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.execute(made.insert(), [{"id": 1, "state": "new"}, {"id": 2, "state": "o'ld"}])
    return made


def values(database: Database) -> dict[str, list[str]]:
    """The values of the columns, as the server tells them; none where it has no such types."""
    columns: list[Any] = list(sa.inspect(database.engine).get_columns("users"))
    return {
        column["name"]: [value.replace("\\\\", "\\") for value in column["type"].enums]  # as SHOW CREATE has them
        for column in columns
        if isinstance(column["type"], sa.Enum)
    }


def test_values_are_added(database: Database) -> None:
    """Not before contract: until then no release can write what the old one could not read."""
    table(database)
    start, before = exact(database.engine), values(database)
    with runner_of(database, AddEnumValues(table="users", column="state", values=NEW)) as run:
        assert run.check() == []
        run.upgrade()
        if database.kind != "sqlite":
            assert exact(database.engine) == start
            with pytest.raises(sa.exc.DBAPIError):
                send(database.engine, ["INSERT INTO users (id, state) VALUES (3, 'late')"])
        run.rollback()
        assert exact(database.engine) == start
        run.upgrade()
        run.contract()
    with database.engine.begin() as connection:
        for number, value in enumerate(NEW, 10):
            connection.execute(
                sa.text("INSERT INTO users (id, state) VALUES (:id, :state)"), {"id": number, "state": value}
            )
        stored = connection.exec_driver_sql("SELECT state FROM users ORDER BY id").scalars().all()
        assert list(stored) == ["new", "o'ld", *NEW]
        connection.exec_driver_sql("INSERT INTO users (id) VALUES (20)")
    if database.kind in POSTGRESQL:
        assert values(database) == {"state": [*before["state"], *NEW], "other": [*before["state"], *NEW]}
    elif database.kind in MYSQL:
        assert values(database) == {"state": [*before["state"], *NEW], "other": before["other"]}
    else:
        length: Any = sa.inspect(database.engine).get_columns("users")[1]["type"]
        assert length.length == max(map(len, NEW))


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_contract_is_killed_before_each_value(database: Database) -> None:
    table(database)
    operation = AddEnumValues(table="users", column="state", values=NEW)
    with runner_of(database, operation) as run:
        run.upgrade()
    for _ in range(4):
        sent: list[str] = []

        def die(statement: Statement, sent: list[str] = sent) -> None:
            if "ADD VALUE" in statement.sql or "MODIFY" in statement.sql:
                if sent:
                    raise Killed
                sent.append(statement.sql)

        with Runner(database.url, upgrade_of(operation), before_statement=die) as run, contextlib.suppress(Killed):
            run.contract()
    assert values(database)["state"] == ["new", "o'ld", *NEW]


def test_values_are_renamed_and_removed(database: Database) -> None:
    """In a column of another name: each release reads and writes its own values."""
    made = table(database)
    states = sa.Enum("fresh", "gone", name="state_2")
    if database.kind in POSTGRESQL:
        with database.engine.begin() as connection:
            states.create(connection)
    change = ChangeType(
        table="users",
        column="state",
        new=sa.Column("state_2", states, nullable=False, server_default="fresh"),
        forward=lambda row: recode(row["state"], {"new": "fresh", "o'ld": "gone"}, default="gone"),
        backward=lambda row: recode(row["state_2"], {"fresh": "new", "gone": "o'ld"}, default="o'ld"),
    )
    send(
        database.engine,
        ["DROP INDEX ix_users_state ON users" if database.kind in MYSQL else "DROP INDEX ix_users_state"],
    )
    start = exact(database.engine)
    with runner_of(database, change) as run:
        assert run.check() == []
        run.upgrade()
        send(database.engine, ["INSERT INTO users (id, state_2) VALUES (3, 'gone')"])
        with database.engine.begin() as connection:
            connection.execute(made.update().where(made.c.id == 1).values(state="o'ld"))
            rows = connection.exec_driver_sql("SELECT state, state_2 FROM users ORDER BY id").all()
        assert [tuple(row) for row in rows] == [("o'ld", "gone")] * 3
        run.rollback()
        assert exact(database.engine) == start
        run.upgrade()
        run.contract()
    with database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT state_2 FROM users").scalars().all() == ["gone"] * 3


def test_what_cannot_be_added(database: Database) -> None:
    check = "CONSTRAINT ck CHECK (t IN ('a', 'b'))"
    send(database.engine, [f"CREATE TABLE users (id INT PRIMARY KEY, n INT, t VARCHAR(3), s VARCHAR(9), {check})"])

    def codes(column: str, *values: str) -> list[str]:
        with runner_of(database, AddEnumValues(table="users", column=column, values=values)) as run:
            return [problem.code for problem in run.check()]

    assert codes("n", "c") == ["CF116"]
    assert codes("s", "c") == []
    assert "CF111" in codes("t", "c")
    assert "CF111" in codes("t", "cccc")
    for wrong in ([], ["a", "a"]):
        with pytest.raises(ProblemError, match="CF116"):
            AddEnumValues(table="users", column="s", values=wrong)


def test_what_the_type_tells() -> None:
    def code(type_: Any, *values: str) -> str:
        column = sa.Column("state", type_)
        with pytest.raises(ProblemError) as caught:
            AddEnumValues(table="users", column="state", values=values).plan({(None, "users"): {"state": column}})
        return caught.value.problems[0].code

    assert code(sa.Enum("a", "b"), "b") == "CF117"
    assert code(mysql.ENUM(*map(str, range(255))), "more") == "CF205"
    assert code(mysql.SET("a", "b"), "c") == "CF116"
