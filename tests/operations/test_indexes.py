"""Indexes over expressions and over a part of the rows: built, dropped, and told where they cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddUnique,
    CreateIndex,
    CreateTable,
    Declared,
    DropIndex,
    Fault,
    ProblemError,
    RenameColumn,
    Runner,
    State,
    Upgrade,
    classify,
)
from contraflow.installed import Index, Installed
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from tests.operations.lives import TABLE, exact, send, writing
from tests.servers.shared import Database
from tests.upgrades import runner_of, upgrade_of

CREATE = "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, mail VARCHAR(60) NOT NULL, gone INTEGER)"
LOWER = CreateIndex(table=TABLE, name="ix_users_lower", columns=["gone", sa.text("lower(mail)")])
PRESENT = CreateIndex(
    table=TABLE, name="ux_users_mail", columns=["mail"], unique=True, where=sa.text("gone IS NULL AND mail <> 'a:b'")
)


def refusal(error: pytest.ExceptionInfo[sa.exc.DBAPIError]) -> Fault | None:
    return classify(error.value)


@pytest.mark.only_on("sqlite", "postgresql", "postgresql15")
def test_an_index_over_an_expression_and_one_over_a_part_of_the_rows(database: Database) -> None:
    engine = database.engine
    send(engine, [CREATE, "INSERT INTO users (id, mail) VALUES (1, 'ada'), (2, 'bob')"])
    start = exact(engine)
    writes = ["INSERT INTO users (id, mail) VALUES (9, 'new')", "DELETE FROM users WHERE id = 9"]
    with runner_of(database, LOWER, PRESENT) as run:
        assert run.check() == []
        run.expand()
        with writing(engine, writes):
            run.migrate()
        indexes = set(exact(engine)["indexes"])
        assert "ix_users_lower" in indexes
        assert "ux_users_mail" not in indexes, "the old release may write rows that are alike"
        run.rollback()
        assert exact(engine) == start
        run.expand()
        run.migrate()
        send(engine, ["INSERT INTO users (id, mail, gone) VALUES (3, 'ada', 1), (4, 'ada', 1)"])
        run.verify()
        send(engine, ["INSERT INTO users (id, mail) VALUES (5, 'bob')"])
        with pytest.raises(ProblemError, match=r"CF014: .* 2 rows of users are alike"):
            run.verify()
        send(engine, ["UPDATE users SET gone = 1 WHERE id = 5"])
        run.verify()
        run.contract()
    with pytest.raises(sa.exc.DBAPIError) as error:
        send(engine, ["INSERT INTO users (id, mail) VALUES (6, 'ada')"])
    assert refusal(error) is Fault.DUPLICATE_KEY
    send(engine, ["INSERT INTO users (id, mail) VALUES (7, 'a:b'), (8, 'a:b')"])
    texts = definitions(engine)
    assert "lower" in texts["ix_users_lower"]
    assert "WHERE" in texts["ux_users_mail"]

    # Another upgrade takes them away, and renames what they stand on.
    second = Upgrade(
        old="r1",
        new="r2",
        changes=(
            Declared(
                revision="r2",
                operations=(
                    RenameColumn(table=TABLE, old="mail", new="email"),
                    DropIndex(table=TABLE, name="ix_users_lower"),
                    DropIndex(table=TABLE, name="ux_users_mail"),
                    CreateIndex(table=TABLE, name="ix_users_low", columns=[sa.text("lower(email)")]),
                ),
            ),
        ),
    )
    with Runner(database.url, second) as run:
        assert run.check() == []
        run.upgrade()
        assert run.check() == []
        run.contract()
        assert run.status().state is State.CONTRACTED
    assert set(definitions(engine)) == {"ix_users_low"}


def definitions(engine: sa.Engine) -> dict[str, str]:
    query = (
        "SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'users' AND type = 'index' AND sql IS NOT NULL"
        if engine.dialect.name == "sqlite"
        else "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'users' AND indexname <> 'users_pkey'"
    )
    with engine.connect() as connection:
        return {str(name): str(text) for name, text in connection.exec_driver_sql(query)}


def half_built(engine: sa.Engine) -> None:
    build = "CREATE UNIQUE INDEX CONCURRENTLY ux_users_lower ON users (lower(mail))"
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(sa.exc.DBAPIError),
    ):
        connection.exec_driver_sql(build)
    assert exact(engine)["indexes"]["ux_users_lower"] == "invalid"


@pytest.mark.only_on("postgresql", "postgresql15")
def test_what_a_failed_build_left_is_built_anew(database: Database) -> None:
    engine = database.engine
    send(engine, [CREATE, "INSERT INTO users (id, mail) VALUES (1, 'Ada'), (2, 'ada')"])
    unique = CreateIndex(table=TABLE, name="ux_users_lower", columns=[sa.text("lower(mail)")], unique=True)
    with runner_of(database, unique) as run:
        run.expand()
        run.migrate()
        with pytest.raises(ProblemError, match=r"CF014: .* 2 rows of users are alike"):
            run.verify()
        half_built(engine)
        send(engine, ["DELETE FROM users WHERE id = 1"])
        run.verify()
        run.contract()
    assert exact(engine)["indexes"]["ux_users_lower"] == "index"


@pytest.mark.only_on("mysql", "mariadb")
def test_where_they_cannot_be_a_computed_column_takes_their_place(database: Database) -> None:
    engine = database.engine
    send(engine, [CREATE, "INSERT INTO users (id, mail) VALUES (1, 'ada'), (2, 'bob')"])
    with runner_of(database, LOWER, PRESENT) as run:
        problems = run.check()
        assert [problem.code for problem in problems] == ["CF205", "CF205"]
        assert 'sa.Computed("lower(mail)", persisted=False)' in problems[0].instead
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
    partial = CreateIndex(table="t", name="ux_t", columns=["n"], unique=True, where=sa.text("n > 1"))
    with runner_of(database, CreateTable(definition=table), partial) as run:
        assert [problem.code for problem in run.check()] == ["CF205"], "without a word it would be over all rows"
    low = sa.Column("low", sa.String(60), sa.Computed("lower(mail)", persisted=False))
    present = sa.Column("present", sa.String(60), sa.Computed("CASE WHEN gone IS NULL THEN mail END", persisted=False))
    columns = (AddColumn(table=TABLE, column=low), AddColumn(table=TABLE, column=present))
    indexes = (
        CreateIndex(table=TABLE, name="ix_users_low", columns=["low"]),
        AddUnique(table=TABLE, name="ux_users_present", columns=["present"]),
    )
    writes = ["INSERT INTO users (id, mail) VALUES (9, 'new')", "DELETE FROM users WHERE id = 9"]
    left: tuple[Operation, ...] = (*columns, *indexes)
    if database.kind == "mariadb":
        with runner_of(database, *left) as run:
            assert [problem.code for problem in run.check()] == ["CF205", "CF205"]
        with runner_of(database, *columns) as run:
            run.run("contract")
        left = indexes
    second = upgrade_of(*left, new="r2")
    with Runner(database.url, second) as run:
        assert run.check() == []
        with writing(engine, writes):
            run.upgrade()
        send(engine, ["INSERT INTO users (id, mail, gone) VALUES (3, 'ada', 1)"])
        run.contract()
    with pytest.raises(sa.exc.DBAPIError) as error:
        send(engine, ["INSERT INTO users (id, mail) VALUES (4, 'ada')"])
    assert refusal(error) is Fault.DUPLICATE_KEY


@pytest.mark.only_on("mysql")
def test_an_index_over_an_expression_that_is_there_is_known_and_dropped(database: Database) -> None:
    engine = database.engine
    send(engine, [CREATE, "CREATE INDEX ix_users_low ON users ((lower(mail)), gone)"])
    rename = RenameColumn(table=TABLE, old="mail", new="email")
    with runner_of(database, rename) as run:
        assert [problem.code for problem in run.check()] == ["CF111"]
    with runner_of(database, rename, DropIndex(table=TABLE, name="ix_users_low")) as run:
        assert run.check() == []
        run.upgrade()
        assert run.check() == []
        run.contract()
    assert "ix_users_low" not in exact(engine)["indexes"]


@pytest.mark.only_on("mysql")
def test_a_unique_one_is_not_dropped_beside_writers(database: Database) -> None:
    """If the server has learned to, the last line fails."""
    engine = database.engine
    send(engine, [CREATE, "CREATE UNIQUE INDEX ux_users_low ON users ((lower(mail)), gone)"])
    with runner_of(database, DropIndex(table=TABLE, name="ux_users_low")) as run:
        assert [problem.code for problem in run.check()] == ["CF205"]
    with pytest.raises(sa.exc.DBAPIError, match="1846"):
        send(engine, ["ALTER TABLE users DROP INDEX ux_users_low, ALGORITHM=INPLACE"])
    with pytest.raises(sa.exc.DBAPIError, match="1846"):
        send(engine, ["ALTER TABLE users ADD INDEX ix ((lower(mail))), ALGORITHM=INPLACE, LOCK=NONE"])


def test_a_method_and_storage_parameters_are_postgresqls(database: Database) -> None:
    send(database.engine, [CREATE])
    index = CreateIndex(table=TABLE, name="ix", columns=["mail"], using="hash", storage={"fillfactor": 70})
    with runner_of(database, index) as run:
        if not database.kind.startswith("postgresql"):
            assert [problem.code for problem in run.check()] == ["CF205"]
            return
        run.upgrade()
        run.contract()
    with database.engine.connect() as connection:
        text = connection.exec_driver_sql("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix'").scalar()
    assert str(text).endswith("USING hash (mail) WITH (fillfactor='70')")


def test_an_index_that_is_not_plain_is_planned_and_kept() -> None:
    table = sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("mail", sa.String(60), unique=True),
        sa.Column("gone", sa.Integer),
    )

    def built(*operations: Operation) -> Index:
        (installed,) = plan(upgrade_of(*operations), {(None, TABLE): table}).installed
        assert Installed.from_dict(installed.as_dict()) == installed
        return installed.built[0]

    index = built(LOWER)
    assert (index.columns, index.key, index.plain) == (("gone", "mail"), ("gone", "lower(mail)"), ("gone",))
    # The old release keeps mail unique, so no part of its rows can be alike; of an expression nothing is known.
    assert not built(PRESENT).late
    expression = CreateIndex(table=TABLE, name="ux", columns=[sa.text("lower(mail)")], unique=True)
    assert built(expression).late
    plain = CreateIndex(table=TABLE, name="ix", columns=["mail"])
    assert plain.describe() == {
        "operation": "CreateIndex",
        "table": [None, TABLE],
        "name": "ix",
        "columns": ["mail"],
        "unique": False,
    }
    assert len({str(one.describe()) for one in (LOWER, PRESENT, expression, plain)}) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": [sa.text("lower(mail) = :x")]},
        {"columns": [sa.text(" ")]},
        {"columns": ["mail"], "where": sa.column("mail")},
        {"columns": [sa.text("lower(mail)"), sa.text("lower(mail)")]},
        {"columns": ["mail"], "using": "hash (mail) --"},
        {"columns": ["mail"], "storage": {"fillfactor": "70) --"}},
    ],
    ids=["a parameter", "empty", "no text", "twice", "no method", "no value"],
)
def test_what_is_declared_wrongly(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match="CF116"):
        CreateIndex(table=TABLE, name="ix", **wrong)


def test_an_expression_over_no_column_is_refused() -> None:
    table = sa.Table(TABLE, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    with pytest.raises(ProblemError, match="CF116"):
        plan(upgrade_of(CreateIndex(table=TABLE, name="ix", columns=[sa.text("lower(mail)")])), {(None, TABLE): table})
