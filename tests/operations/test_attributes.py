"""What a column has besides its type, changed under its own name; and what stands on a table and stays."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    Declared,
    DropColumn,
    Options,
    ProblemError,
    RenameColumn,
    RenameTable,
    Runner,
    State,
    Upgrade,
)
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from tests.operations.lives import send, writing
from tests.servers.shared import Database

WORDS = "CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20) NOT NULL, size INTEGER, spare INTEGER)"


def upgrade_of(*operations: Operation) -> Upgrade:
    return Upgrade(old=None, new="r1", changes=(Declared(revision="r1", operations=operations),))


def runner(database: Database, *operations: Operation) -> Runner:
    return Runner(database.url, upgrade_of(*operations), options=Options(lock_timeout=0.3))


def one(engine: sa.Engine, query: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(query).scalar()


def refused(*operations: Operation) -> set[str]:
    columns = (
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("word", sa.String(20)),
        sa.Column("n", sa.Integer),
    )
    with pytest.raises(ProblemError) as caught:
        plan(upgrade_of(*operations), {(None, "words"): sa.Table("words", sa.MetaData(), *columns)})
    return {problem.code for problem in caught.value.problems}


# --- computed columns ---


def computed(text: str, *, persisted: bool | None = False, nullable: bool = True) -> AddColumn:
    column = sa.Column("capital", sa.String(20), sa.Computed(text, persisted=persisted), nullable=nullable)
    return AddColumn(table="words", column=column)


def test_a_computed_column_comes_live(database: Database) -> None:
    engine = database.engine
    send(engine, [WORDS, "INSERT INTO words (id, word) VALUES (1, 'one')"])
    operations = (
        RenameColumn(table="words", old="size", new="length"),
        computed("upper(word)"),
        DropColumn(table="words", column="spare"),
    )
    writes = ["INSERT INTO words (id, word) VALUES (9, 'x')", "DELETE FROM words WHERE id = 9"]
    with runner(database, *operations) as run:
        if database.kind == "postgresql15":
            assert [problem.code for problem in run.check()] == ["CF205"]
            return
        assert run.check() == []
        before = sa.inspect(engine).get_columns("words")
        with writing(engine, writes):
            run.upgrade()
        run.rollback()
        assert str(sa.inspect(engine).get_columns("words")) == str(before)
        with writing(engine, writes):
            run.upgrade()
            assert one(engine, "SELECT capital FROM words WHERE id = 1") == "ONE"
            run.contract()
        assert run.status().state is State.CONTRACTED
    send(engine, ["UPDATE words SET word = 'two', length = 3"])
    assert one(engine, "SELECT capital FROM words WHERE id = 1") == "TWO"
    if database.kind in ("mysql", "mariadb"):
        with engine.connect() as connection:
            assert "capital" in connection.exec_driver_sql("SELECT * FROM words").keys()  # noqa: SIM118


def test_computed_columns_that_are_refused() -> None:
    assert refused(computed("upper(word)", persisted=True)) == {"CF110"}
    assert refused(computed("upper(word)", nullable=False)) == {"CF116"}
    assert refused(computed("upper(word)"), DropColumn(table="words", column="word")) == {"CF111"}
    numbered = sa.Column("number", sa.Integer, sa.Identity(), nullable=True)
    assert "CF110" in refused(AddColumn(table="words", column=numbered))
    with pytest.raises(ProblemError, match="CF116"):
        AddColumn(table="words", column=computed("upper(word)").column, value=lambda row: row.word)


# --- the table's own triggers ---

FUNCTION = (
    "CREATE FUNCTION sized() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.n := length(NEW.word); RETURN NEW; END$$"
)
TRIGGERS = {
    "sqlite": [
        f"CREATE TRIGGER own_{event[0]} AFTER {event} ON words"
        " BEGIN UPDATE words SET n = length(NEW.word) WHERE id = NEW.id; END"
        for event in ("INSERT", "UPDATE OF word")
    ],
    "postgresql": [
        FUNCTION,
        "CREATE TRIGGER own BEFORE INSERT OR UPDATE ON words FOR EACH ROW EXECUTE FUNCTION sized()",
    ],
    "mysql": [
        "CREATE TRIGGER own_i BEFORE INSERT ON words FOR EACH ROW SET NEW.n = length(NEW.word)",
        "CREATE TRIGGER own_u BEFORE UPDATE ON words FOR EACH ROW SET NEW.n = length(NEW.word)",
    ],
}
TRIGGERS["mariadb"] = TRIGGERS["mysql"]


def test_a_table_s_own_triggers_stay(database: Database) -> None:
    engine = database.engine
    kind = "postgresql" if database.kind.startswith("postgresql") else database.kind
    table = (
        "CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20) NOT NULL, n INTEGER, spare INTEGER, mail CHAR(9))"
    )
    send(engine, [table, *TRIGGERS[kind]])
    operations = (
        RenameTable(table="words", new="terms"),
        RenameColumn(table="terms", old="mail", new="email"),
        DropColumn(table="terms", column="spare"),
    )

    def sizes(name: str, key: int) -> None:
        send(engine, [f"INSERT INTO {name} (id, word) VALUES ({key}, 'abc')"])
        assert one(engine, f"SELECT n FROM {name} WHERE id = {key}") == 3
        send(engine, [f"UPDATE {name} SET word = 'abcd' WHERE id = {key}"])
        assert one(engine, f"SELECT n FROM {name} WHERE id = {key}") == 4

    with runner(database, *operations) as run:
        sizes("words", 1)
        run.upgrade()
        sizes("words", 2)
        sizes("terms", 3)
        run.rollback()
        sizes("words", 4)
        run.upgrade()
        run.contract()
        sizes("terms", 5)
