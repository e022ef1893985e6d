"""What else reads a column that contract drops: refused while there is a way back, on every server."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow.engine import State
from contraflow.operations.columns import RenameColumn
from contraflow.operations.planning import Declared, Upgrade
from contraflow.problems import ProblemError
from tests.engine import service
from tests.servers.shared import Database

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
