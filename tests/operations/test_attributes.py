"""What a column has besides its type, changed under its own name; and what stands on a table and stays."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    ChangeDefault,
    DropColumn,
    ProblemError,
    RenameColumn,
    RenameTable,
    State,
)
from contraflow.dialects.sqlite_text import set_default
from contraflow.installed import DefaultChange, Installed
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from tests.operations.lives import send, writing
from tests.servers.shared import Database
from tests.upgrades import runner_of, upgrade_of

WORDS = "CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20) NOT NULL, size INTEGER, spare INTEGER)"


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
    with runner_of(database, *operations) as run:
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


@pytest.mark.only_on("sqlite", "postgresql", "mariadb", "mysql")
@pytest.mark.parametrize("dropped", [("a",), ("a", "c"), ("a", "s"), ("a", "b", "c", "s")], ids=",".join)
def test_computed_columns_go_and_others_stay(database: Database, dropped: tuple[str, ...]) -> None:
    """On MySQL one that stands before another of its kind cannot be dropped instantly."""
    engine = database.engine
    columns = ", ".join(f"{name} VARCHAR(20) GENERATED ALWAYS AS (upper(word)) VIRTUAL" for name in "abc")
    stored = "s VARCHAR(20) GENERATED ALWAYS AS (lower(word)) STORED"
    send(engine, [f"CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20), {columns}, {stored})"])
    send(engine, ["INSERT INTO words (id, word) VALUES (1, 'One')"])
    operations = [DropColumn(table="words", column=name) for name in dropped]
    with runner_of(database, computed("upper(word)"), *operations) as run:
        assert run.check() == []
        run.upgrade()
        run.rollback()
        run.upgrade()
        run.contract()
    left = [column["name"] for column in sa.inspect(engine).get_columns("words")]
    assert left == [name for name in ("id", "word", "a", "b", "c", "s", "capital") if name not in dropped]
    assert one(engine, "SELECT capital FROM words") == "ONE"


def test_computed_columns_that_are_refused() -> None:
    assert refused(computed("upper(word)", persisted=True)) == {"CF110"}
    assert refused(computed("upper(word)", nullable=False)) == {"CF116"}
    assert refused(computed("upper(word)"), DropColumn(table="words", column="word")) == {"CF111"}
    numbered = sa.Column("number", sa.Integer, sa.Identity())
    assert refused(AddColumn(table="words", column=numbered)) == {"CF110"}
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

    with runner_of(database, *operations) as run:
        sizes("words", 1)
        run.upgrade()
        sizes("words", 2)
        sizes("terms", 3)
        run.rollback()
        sizes("words", 4)
        run.upgrade()
        run.contract()
        sizes("terms", 5)


# --- defaults ---

DEFAULTED = (
    "CREATE TABLE words (id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b INTEGER DEFAULT -1,"
    " c CHAR(9) DEFAULT 'it''s' NOT NULL)"
)
CHANGES = (
    ChangeDefault(table="words", column="a", default=sa.text("5")),
    ChangeDefault(table="words", column="b", default=None, omitted="new"),
    ChangeDefault(table="words", column="c", default=None),
)


def test_defaults_change_for_the_release_that_counts(database: Database) -> None:
    engine = database.engine
    send(engine, [DEFAULTED])
    before = sa.inspect(engine).get_columns("words")
    with runner_of(database, *CHANGES) as run:
        assert run.check() == []
        run.expand()
        run.expand()
        run.rollback()
        assert str(sa.inspect(engine).get_columns("words")) == str(before)
        with writing(engine, ["INSERT INTO words (id, a) VALUES (9, 1)", "DELETE FROM words WHERE id = 9"]):
            run.upgrade()
        send(engine, ["INSERT INTO words (id) VALUES (1)"])
        with engine.connect() as connection:
            row = connection.exec_driver_sql("SELECT a, b, c FROM words WHERE id = 1").one()
        assert (row.a, row.b, str(row.c).strip()) == (5, None, "it's")
        run.contract()
    with pytest.raises(sa.exc.DBAPIError):
        send(engine, ["INSERT INTO words (id) VALUES (2)"])
    send(engine, ["INSERT INTO words (id, c) VALUES (2, 'c')"])


def test_a_default_of_null_is_none(database: Database) -> None:
    """What tools write into schemas, and SQLite and PostgreSQL keep: it leaves no INSERT undecidable."""
    send(database.engine, ["CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20) DEFAULT NULL)"])
    with runner_of(database, RenameColumn(table="words", old="word", new="term")) as run:
        assert run.check() == []
        run.upgrade()
        send(database.engine, ["INSERT INTO words (id) VALUES (1)", "INSERT INTO words (id, word) VALUES (2, 'two')"])
        run.contract()
    assert one(database.engine, "SELECT term FROM words WHERE id = 1") is None
    assert one(database.engine, "SELECT term FROM words WHERE id = 2") == "two"


def test_the_journal_keeps_both_defaults() -> None:
    table = sa.Table("words", sa.MetaData(), sa.Column("a", sa.Integer, nullable=False, server_default="1"))
    phases = plan(upgrade_of(ChangeDefault(table="words", column="a", default=None)), {(None, "words"): table})
    (installed,) = phases.installed
    assert Installed.from_dict(installed.as_dict()) == installed
    assert installed.redefaulted == (DefaultChange(column="a", old="'1'", new=None, late=True),)
    assert phases.expand == ()


def test_defaults_that_are_asked_for() -> None:
    assert refused(ChangeDefault(table="words", column="n", default="1")) == {"CF106"}
    assert refused(ChangeDefault(table="words", column="none", default="1", omitted="old")) == {"CF101"}


@pytest.mark.parametrize(
    ("column", "default", "changed"),
    [
        ("n INT", "1", "n INT DEFAULT 1"),
        ("n INT DEFAULT 1 NOT NULL", "-2.5", "n INT DEFAULT -2.5 NOT NULL"),
        ("n INT DEFAULT -12.50 NOT NULL", None, "n INT NOT NULL"),
        ("n TEXT DEFAULT ('a' || (1)) UNIQUE", "'b'", "n TEXT DEFAULT 'b' UNIQUE"),
        ("n TEXT DEFAULT 'x, DEFAULT'", "upper('b')", "n TEXT DEFAULT (upper('b'))"),
        ("n TEXT NOT NULL", None, "n TEXT NOT NULL"),
    ],
)
def test_the_default_in_sqlite_s_text(column: str, default: str | None, changed: str) -> None:
    text = f"CREATE TABLE t (id INT, {column}, z TEXT DEFAULT 'z')"
    assert set_default(text, "n", default) == f"CREATE TABLE t (id INT, {changed}, z TEXT DEFAULT 'z')"
