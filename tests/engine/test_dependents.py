"""What else reads a column that contract drops: refused while there is a way back, on every server."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow.dialects.readers import names_table
from contraflow.engine import State
from contraflow.operations.base import Operation
from contraflow.operations.columns import DropColumn, RenameColumn
from contraflow.operations.planning import Declared, Upgrade
from contraflow.operations.tables import DropTable, RenameTable
from contraflow.problems import ProblemError
from tests.engine import service
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

RENAME = Upgrade(
    old="r0",
    new="r1",
    changes=(Declared(revision="r1", operations=(RenameColumn(table="words", old="word", new="term"),)),),
)
COLUMNS = "id INTEGER PRIMARY KEY, size INTEGER, capital VARCHAR(20) GENERATED ALWAYS AS (UPPER(word)) STORED"
TABLE = f"CREATE TABLE words ({COLUMNS}, word VARCHAR(20))"
CHECKED = f"CREATE TABLE words ({COLUMNS}, word VARCHAR(20) CHECK (word <> 'no'))"
VIEW = "CREATE VIEW shown AS SELECT w.id, w.word AS shown FROM words w"
MYSQL_TRIGGER = "CREATE TRIGGER own_trigger BEFORE UPDATE ON words FOR EACH ROW SET NEW.size = LENGTH(NEW.word)"
FUNCTION = (
    "CREATE FUNCTION own_function() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN NEW.size := length(NEW.word); RETURN NEW; END$$"
)
POSTGRESQL_TRIGGER = "CREATE TRIGGER own_trigger BEFORE UPDATE ON words FOR EACH ROW EXECUTE FUNCTION own_function()"
SQLITE_TRIGGER = (
    "CREATE TRIGGER own_trigger AFTER UPDATE OF word ON words"
    " BEGIN UPDATE words SET size = length(NEW.word) WHERE id = NEW.id; END"
)
PARTIAL_INDEX = "CREATE INDEX where_word ON words (size) WHERE word IS NOT NULL"
FUNCTIONAL_INDEX = "CREATE INDEX where_word ON words ((LOWER(word)))"
CREATE = {
    "sqlite": (TABLE, VIEW, SQLITE_TRIGGER),
    "postgresql": (TABLE, VIEW, FUNCTION, POSTGRESQL_TRIGGER),
    "mariadb": (CHECKED, VIEW, MYSQL_TRIGGER),
    "mysql": (TABLE, VIEW, MYSQL_TRIGGER),
}
# Somebody makes these while the upgrade is open: what stands before is refused before expand.
CREATE_LATER = {
    "sqlite": (PARTIAL_INDEX,),
    "postgresql": (PARTIAL_INDEX,),
    "mariadb": (),
    "mysql": (FUNCTIONAL_INDEX,),
}
NO_CAPITAL = ("capital|column", "ALTER TABLE words DROP COLUMN capital")
NO_VIEW = ("view shown", "DROP VIEW shown")
NO_TRIGGER = ("trigger own_trigger", "DROP TRIGGER own_trigger")
REMOVE = {
    "sqlite": (NO_CAPITAL, NO_VIEW, NO_TRIGGER, ("index where_word", "DROP INDEX where_word")),
    "postgresql": (
        NO_CAPITAL,
        NO_VIEW,
        ("trigger own_trigger", "DROP TRIGGER own_trigger ON words"),
        ("index where_word", "DROP INDEX where_word"),
    ),
    "mariadb": (
        NO_CAPITAL,
        NO_VIEW,
        NO_TRIGGER,
        ("CHECK of word", "ALTER TABLE words MODIFY COLUMN word VARCHAR(20)"),
    ),
    "mysql": (NO_CAPITAL, NO_VIEW, NO_TRIGGER, ("index where_word", "DROP INDEX where_word ON words")),
}


def test_what_reads_an_old_column_is_named_before_contract_begins(database: Database) -> None:
    kind = "postgresql" if database.kind.startswith("postgresql") else database.kind
    send(database, *CREATE[kind], "INSERT INTO words (id, word) VALUES (1, 'one')")
    with service.runner(database.url, RENAME) as runner:
        assert runner.check() == []
        runner.upgrade()
        send(database, *CREATE_LATER[kind])
        for reader, remove in REMOVE[kind]:
            told = runner.check()
            assert {problem.code for problem in told} == {"CF111"}
            assert any(word in problem.what for problem in told for word in reader.split("|")), told
            with pytest.raises(ProblemError) as raised:
                runner.contract()
            assert list(raised.value.problems) == told
            assert runner.status().state is State.VERIFIED
            # Both releases go on.
            send(database, "UPDATE words SET term = 'two' WHERE id = 1", "UPDATE words SET word = 'one' WHERE id = 1")
            send(database, remove)
        assert runner.check() == []
        runner.contract()
        send(database, "UPDATE words SET term = 'three' WHERE id = 1")


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_sequence_that_a_new_default_uses(database: Database) -> None:
    send(database, "CREATE TABLE words (id INTEGER PRIMARY KEY, word SERIAL)")
    with service.runner(database.url, RENAME) as runner:
        runner.upgrade()
        (told,) = runner.check()
        assert "sequence words_word_seq" in told.what
        send(database, "ALTER SEQUENCE words_word_seq OWNED BY words.term")
        assert runner.check() == []
        runner.contract()
        send(database, "INSERT INTO words (id) VALUES (1)")


def send(database: Database, *texts: str) -> None:
    with database.engine.begin() as connection:
        for sql in texts:
            connection.execute(sa.text(sql.replace(":=", "\\:=")))


READ = "CREATE VIEW shown AS SELECT id FROM words"
OTHER = "CREATE TABLE others (id INTEGER PRIMARY KEY)"
OTHERS_TRIGGER = {
    "sqlite": "CREATE TRIGGER copies AFTER INSERT ON others BEGIN INSERT INTO words (id) VALUES (NEW.id); END",
    "mysql": "CREATE TRIGGER copies AFTER INSERT ON others FOR EACH ROW INSERT INTO words (id) VALUES (NEW.id)",
}
OTHERS_TRIGGER["mariadb"] = OTHERS_TRIGGER["mysql"]
ROUTINE = {
    "postgresql": "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS 'SELECT count(word) FROM words'",
    "mysql": "CREATE FUNCTION counted() RETURNS INT READS SQL DATA RETURN (SELECT count(word) FROM words)",
}
ROUTINE["mariadb"] = ROUTINE["mysql"]
WORDS = "CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20))"


def test_what_reads_a_table_that_goes_is_named_before_contract_begins(database: Database) -> None:
    kind = "postgresql" if database.kind.startswith("postgresql") else database.kind
    trigger = [OTHERS_TRIGGER[kind]] if kind in OTHERS_TRIGGER else []
    send(database, WORDS, OTHER, READ, *trigger)
    with service.runner(database.url, upgrade_of(DropTable(table="words"))) as runner:
        assert runner.check() == []
        runner.upgrade()
        told = runner.check()
        assert [problem.code for problem in told] == ["CF111"] * (1 + len(trigger))
        assert "view shown reads it" in " ".join(problem.what for problem in told)
        with pytest.raises(ProblemError, match="CF111"):
            runner.contract()
        send(database, "DROP VIEW shown", *(["DROP TRIGGER copies"] if trigger else []))
        runner.contract()


def test_views_of_a_renamed_table_go_on_or_are_named(database: Database) -> None:
    send(database, WORDS, READ)
    by_name = database.kind in ("mysql", "mariadb")
    with service.runner(database.url, upgrade_of(RenameTable(table="words", new="terms"))) as runner:
        runner.upgrade()
        assert [problem.code for problem in runner.check()] == ["CF111"] * by_name
        if by_name:
            send(database, "CREATE OR REPLACE VIEW shown AS SELECT id FROM terms")
        runner.contract()
    send(database, "INSERT INTO terms (id) VALUES (1)")
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM shown")).scalar() == 1


@pytest.mark.only_on("postgresql", "postgresql15", "mysql", "mariadb")
@pytest.mark.parametrize("operation", [DropTable(table="words"), DropColumn(table="words", column="word")], ids=repr)
def test_a_routine_is_named_and_asks_for_a_reason(database: Database, operation: Operation) -> None:
    kind = "postgresql" if database.kind.startswith("postgresql") else database.kind
    send(database, WORDS, ROUTINE[kind])
    with service.runner(database.url, upgrade_of(operation)) as runner:
        runner.upgrade()
        (told,) = runner.check()
        assert told.code == "CF122"
        assert "counted" in told.what
        with pytest.raises(ProblemError, match="CF122"):
            runner.contract()
        assert runner.status().state is State.VERIFIED
        runner.contract(force="nobody calls it")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT * FROM words", True),
        ('INSERT INTO public."words" VALUES (1)', True),
        ("DELETE FROM `db`.`words`", True),
        ("UPDATE ONLY words SET x = 1", True),
        ("SELECT 1 FROM (words w)", True),
        ("SELECT words FROM others", False),
        ("SELECT * FROM words_2", False),
        ("SELECT * FROM words.others", False),
        ("UPDATE others SET words = 1", False),
    ],
)
def test_a_table_is_told_from_other_names(text: str, found: bool) -> None:
    assert names_table(text, "words") is found


@pytest.mark.only_on("mysql", "mariadb")
def test_a_trigger_that_stands_before_the_sync_comes_before_it(database: Database) -> None:
    """Triggers fire in the order in which they were made; so what it stores is what the sync reads."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE words (id INTEGER PRIMARY KEY, size INTEGER, word VARCHAR(20))")
        connection.exec_driver_sql("INSERT INTO words VALUES (1, 1, 'x')")
        for event in ("INSERT", "UPDATE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER lowers_{event} BEFORE {event} ON words FOR EACH ROW SET NEW.word = LOWER(NEW.word)"
            )
    with service.runner(database.url, RENAME) as runner:
        assert runner.check() == []
        runner.upgrade()
        with database.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO words (id, word) VALUES (2, 'ADA')")
            connection.exec_driver_sql("UPDATE words SET word = 'BOB' WHERE id = 1")
            connection.exec_driver_sql("INSERT INTO words (id, term) VALUES (3, 'CY'), (4, 'DEE')")
            connection.exec_driver_sql(
                "UPDATE words SET size = 2 WHERE id = 4"
            )  # what the old release's rule makes of it
            read = connection.exec_driver_sql("SELECT word, term FROM words ORDER BY id").all()
        assert [tuple(row) for row in read] == [("bob", "bob"), ("ada", "ada"), ("CY", "CY"), ("dee", "dee")]
        runner.verify()


CONTRARY = {
    "inserted": "AFTER INSERT ON words BEGIN UPDATE words SET size = 1, Word = lower(NEW.word) WHERE id = NEW.id; END",
    "updated": "AFTER UPDATE ON words BEGIN UPDATE OR IGNORE words SET (size, word) = (1, 'x') WHERE id = NEW.id; END",
    "indirect": "AFTER UPDATE OF word ON words BEGIN UPDATE others SET id = 1; END",
}
FRIENDLY = {
    "sized": "AFTER INSERT ON words BEGIN UPDATE words SET size = length(NEW.word) WHERE word = NEW.word; END",
    "ranked": "AFTER UPDATE OF rank ON words BEGIN UPDATE words SET word = '' WHERE NEW.rank = 0; END",
    "copied": "AFTER INSERT ON words BEGIN INSERT INTO others (id) VALUES (NEW.id); END",
    "of_others": "AFTER UPDATE ON others BEGIN UPDATE words SET word = 'other'; END",
}


@pytest.mark.only_on("sqlite")
def test_a_trigger_of_sqlite_that_updates_a_synced_column(database: Database) -> None:
    """It would overwrite what the new release writes, with what the old column was before the sync."""
    made = [f"CREATE TRIGGER {name} {text}" for name, text in FRIENDLY.items()]
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE words (id INTEGER PRIMARY KEY, size INTEGER, rank INTEGER, word TEXT)")
        connection.exec_driver_sql("CREATE TABLE others (id INTEGER)")
        for statement in made:
            connection.exec_driver_sql(statement)
    for name, text in CONTRARY.items():
        with service.runner(database.url, RENAME) as runner:
            assert runner.check() == []
            with database.engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE TRIGGER {name} {text}")
            (problem,) = runner.check()
            assert problem.code == "CF205"
            changing = "of_others" if name == "indirect" else name
            assert f"the trigger {changing} changes word of words" in problem.what
            with pytest.raises(ProblemError, match="beside the sync"):
                runner.expand()
            with database.engine.begin() as connection:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
    with service.runner(database.url, RENAME) as runner:
        runner.upgrade()
        with database.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO words (id, term) VALUES (1, 'CY')")
            connection.exec_driver_sql("UPDATE words SET rank = 0")
            assert connection.exec_driver_sql("SELECT word, term FROM words").one() == ("", "")
        runner.verify()


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_trigger_that_changes_a_synced_column_after_the_sync(database: Database) -> None:
    """Triggers fire in the order of their names: one that comes first is part of what the old release writes."""
    bodies = {
        "zz_looks": "IF NEW.word = OLD.word OR NEW.size = 1 THEN NEW.size := 2; END IF; /* NEW.word := '' */",
        "zz_lowers": "-- as ever\n  NEW.word = lower(NEW.word);",
    }
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE words (id INTEGER PRIMARY KEY, size INTEGER, word VARCHAR(20))")
        for name, body in bodies.items():
            connection.exec_driver_sql(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} RETURN NEW; END$$"
            )
        connection.exec_driver_sql("INSERT INTO words VALUES (1, 1, 'x')")
        for name in ("zz_looks", "zz_lowers"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON words FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
    with service.runner(database.url, RENAME) as runner:
        (problem,) = runner.check()
        assert problem.code == "CF205"
        assert "zz_lowers of words changes word" in problem.what
        with database.engine.begin() as connection:
            connection.exec_driver_sql(problem.instead.partition(": ")[2])
        assert runner.check() == []
        runner.upgrade()
        with database.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO words (id, word) VALUES (2, 'ADA')")
            connection.exec_driver_sql("UPDATE words SET word = 'BOB' WHERE id = 1")
            read = connection.exec_driver_sql("SELECT word, term FROM words ORDER BY id").all()
        assert [tuple(row) for row in read] == [("bob", "bob"), ("ada", "ada")]
        runner.verify()


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_column_that_comes_from_a_parent_table(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (word VARCHAR(20))")
        connection.exec_driver_sql("CREATE TABLE words (id INTEGER PRIMARY KEY) INHERITS (things)")
    with service.runner(database.url, RENAME) as runner:
        (problem,) = runner.check()
        assert (problem.code, problem.what) == ("CF205", "words inherits word from another table.")
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE words NO INHERIT things")
        runner.run("contract")
    assert [column["name"] for column in sa.inspect(database.engine).get_columns("words")] == ["id", "term"]
