"""Triggers that the application makes while an upgrade is open, and that change what its sync has read."""

from __future__ import annotations

import pytest

from contraflow import ProblemError, RenameColumn, Runner, State
from contraflow.dialects.mysql_text import assigned
from tests.operations.lives import send
from tests.servers.shared import Database
from tests.upgrades import runner_of

RENAME = RenameColumn(table="words", old="word", new="term")


def rule(database: Database, column: str) -> list[str]:
    """A trigger that keeps the column in small letters, made in the way of the server."""
    if database.kind == "sqlite":
        update = f"UPDATE words SET {column} = lower(NEW.{column}) WHERE id = NEW.id"
        return [f"CREATE TRIGGER theirs AFTER UPDATE OF {column} ON words BEGIN {update}; END"]
    if database.kind in ("mysql", "mariadb"):
        return [f"CREATE TRIGGER theirs BEFORE UPDATE ON words FOR EACH ROW SET NEW.{column} = LOWER(NEW.{column})"]
    body = f"$$BEGIN NEW.{column} := lower(NEW.{column}); RETURN NEW; END$$"
    return [
        f"CREATE OR REPLACE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS {body}",
        "CREATE TRIGGER theirs BEFORE UPDATE ON words FOR EACH ROW EXECUTE FUNCTION theirs()",
    ]


def drop(database: Database, name: str = "theirs") -> str:
    return f"DROP TRIGGER {name}" + (" ON words" if database.kind.startswith("postgresql") else "")


def refuses(run: Runner, verb: str) -> str:
    """That the verb tells of the trigger, as check does; and what it says to do."""
    with pytest.raises(ProblemError) as told:
        getattr(run, verb)()
    (problem,) = told.value.problems
    assert run.check()[0] == problem
    assert problem.code == "CF205"
    assert "the trigger theirs " in problem.what
    return problem.instead


def test_a_trigger_that_is_made_after_expand_is_named(database: Database) -> None:
    send(database.engine, ["CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(20))"])
    send(database.engine, ["INSERT INTO words VALUES (1, 'Ann')"])
    with runner_of(database, RENAME) as run:
        run.expand()
        send(database.engine, rule(database, "word"))
        instead = refuses(run, "migrate")
        assert (run.status().state, run.status().pending) == (State.EXPANDED, None)
        # As it says, where the server lets a trigger fire before the sync's.
        name = "theirs"
        if database.kind in ("mysql", "mariadb"):
            (text,) = rule(database, "word")
            before = instead.partition("ROW ")[2].removesuffix(" ...")
            send(database.engine, [drop(database), text.replace("ROW", f"ROW {before}")])
        elif database.kind == "sqlite":
            send(database.engine, [drop(database)])
        else:
            name = "a_theirs"
            send(database.engine, [instead.partition(": ")[2]])
        run.migrate()
        send(database.engine, ["UPDATE words SET word = 'BOB'"])
        run.verify()
        if database.kind != "sqlite":
            send(database.engine, [drop(database, name)])
        send(database.engine, rule(database, "term"))
        refuses(run, "verify")
        send(database.engine, [drop(database)])
        run.verify()
        # No row differs, and there is no sync any more.
        send(database.engine, rule(database, "term"))
        run.contract()
    send(database.engine, ["UPDATE words SET term = 'CY'"])
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT term FROM words").scalar_one() == "cy"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("SET NEW.word = LOWER(NEW.word)", {"word"}),
        ("set new . `Two ``words` := IF(NEW.a = 1, NEW.b = 2, 3), @x = 1, NEW.c=4", {"two `words", "c"}),
        ("BEGIN IF NEW.a = OLD.a THEN SET @n = NEW.b; END IF; SET NEW.c = 'x'; END", {"c"}),
        ("BEGIN UPDATE others SET a = NEW.a, b = 1 WHERE c = 1; END", set()),
        ("BEGIN /* SET NEW.a = 1; */ -- SET NEW.b = 1\n# SET NEW.c = 1;\nSET NEW.d = 'SET NEW.e = 1'; END", {"d"}),
        ('SET NEW.a = 5 --1, NEW.b = "it\'s, NEW.c = 1"', {"a", "b"}),
    ],
)
def test_what_a_trigger_of_mysql_assigns_to(text: str, columns: set[str]) -> None:
    assert assigned(text) == columns
