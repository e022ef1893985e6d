"""Every fault, provoked on every server with every driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from contraflow import faults
from contraflow.faults import Fault
from tests.faults.drivers import FAMILY, Driver
from tests.servers.shared import Database

SCHEMA = {
    "all": [
        """CREATE TABLE p (id INTEGER NOT NULL PRIMARY KEY, u INTEGER, a INTEGER, b VARCHAR(9),
        CONSTRAINT p_u UNIQUE (u), CONSTRAINT p_ab UNIQUE (a, b))""",
        "CREATE TABLE f (id INTEGER NOT NULL PRIMARY KEY, p INTEGER, CONSTRAINT f_p FOREIGN KEY (p) REFERENCES p (id))",
        """CREATE TABLE k (id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL, s VARCHAR(5), sm SMALLINT,
        CONSTRAINT n_pos CHECK (n > 0))""",
        "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL)",
        "INSERT INTO p VALUES (1, 1, 1, 'x')",
        "INSERT INTO f VALUES (1, 1)",
        "INSERT INTO t VALUES (1, 0)",
        "INSERT INTO t VALUES (2, 0)",
    ],
    "postgresql": [
        "CREATE TABLE e (r int4range, CONSTRAINT e_r EXCLUDE USING gist (r WITH &&))",
        "INSERT INTO e VALUES ('[1,5)')",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$",
        "CREATE TRIGGER no BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION no()",
    ],
    "mysql": ["CREATE TRIGGER no BEFORE DELETE ON t FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'"],
    "sqlite": [
        "CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'no'); END",
        "CREATE TABLE st (n INT) STRICT",
        "CREATE UNIQUE INDEX p_expr ON p (a + 10)",
    ],
}
ANY = ("postgresql", "mysql", "sqlite")
SERVERS = ("postgresql", "mysql")


@dataclass(frozen=True)
class Case:
    """A statement, the fault it gives, and what the error must name, by family of servers."""

    fault: Fault
    sql: str
    plain: type[DBAPIError] = DBAPIError  # what asyncpg has for most, through SQLAlchemy
    on: tuple[str, ...] = ANY
    names: dict[str, dict[str, object]] = field(default_factory=dict)


CASES = {
    "duplicate primary key": Case(
        Fault.DUPLICATE_KEY,
        "INSERT INTO p VALUES (1, 5, 5, 'y')",
        IntegrityError,
        names={
            "postgresql": {"constraint": "p_pkey", "columns": ("id",), "table": "p", "key": "1"},
            "mysql": {"constraint": "PRIMARY", "columns": None, "key": "1"},
            "sqlite": {"columns": ("id",), "table": "p"},
        },
    ),
    "duplicate of two columns": Case(
        Fault.DUPLICATE_KEY,
        "INSERT INTO p VALUES (2, 5, 1, 'x')",
        IntegrityError,
        on=SERVERS,
        names={
            "postgresql": {"constraint": "p_ab", "columns": ("a", "b"), "table": "p", "key": "1, x"},
            "mysql": {"constraint": "p_ab", "columns": None, "key": "1-x"},
        },
    ),
    "duplicate in an index on an expression": Case(
        Fault.DUPLICATE_KEY,
        "INSERT INTO p VALUES (2, 5, 1, 'z')",
        IntegrityError,
        on=("sqlite",),
        names={"sqlite": {"constraint": "p_expr", "columns": None}},
    ),
    "no parent": Case(
        Fault.FOREIGN_KEY,
        "INSERT INTO f VALUES (2, 999)",
        IntegrityError,
        names={
            "postgresql": {"constraint": "f_p", "columns": ("p",), "table": "f", "key": "999"},
            "mysql": {"constraint": "f_p", "columns": ("p",), "table": "f"},
            "sqlite": {"constraint": None},
        },
    ),
    "has children": Case(
        Fault.FOREIGN_KEY,
        "DELETE FROM p WHERE id = 1",
        IntegrityError,
        names={"postgresql": {"constraint": "f_p", "table": "f"}, "mysql": {"constraint": "f_p", "table": "f"}},
    ),
    "check": Case(
        Fault.CHECK,
        "INSERT INTO k VALUES (1, -1, NULL, NULL)",
        names={
            "postgresql": {"constraint": "n_pos", "table": "k"},
            "mysql": {"constraint": "n_pos"},
            "sqlite": {"constraint": "n_pos"},
        },
    ),
    "null": Case(
        Fault.NOT_NULL,
        "INSERT INTO k VALUES (1, NULL, NULL, NULL)",
        IntegrityError,
        names={
            "postgresql": {"columns": ("n",), "table": "k"},
            "mysql": {"columns": ("n",)},
            "sqlite": {"columns": ("n",), "table": "k"},
        },
    ),
    "left out": Case(Fault.NOT_NULL, "INSERT INTO k (id) VALUES (1)", names={f: {"columns": ("n",)} for f in ANY}),
    "too long": Case(
        Fault.DATA,
        "INSERT INTO k VALUES (1, 1, 'abcdefgh', NULL)",
        on=SERVERS,
        names={"mysql": {"columns": ("s",)}},
    ),
    "out of range": Case(
        Fault.DATA,
        "INSERT INTO k VALUES (1, 1, NULL, 99999)",
        on=SERVERS,
        names={"mysql": {"columns": ("sm",)}},
    ),
    "no number": Case(
        Fault.DATA, "INSERT INTO k VALUES (1, 'abc', NULL, NULL)", on=SERVERS, names={"mysql": {"columns": ("n",)}}
    ),
    "strict table": Case(
        Fault.DATA,
        "INSERT INTO st VALUES ('abc')",
        on=("sqlite",),
        names={"sqlite": {"table": "st", "columns": ("n",)}},
    ),
    "exclusion": Case(
        Fault.EXCLUSION,
        "INSERT INTO e VALUES ('[3,9)')",
        IntegrityError,
        on=("postgresql",),
        names={"postgresql": {"constraint": "e_r", "table": "e"}},
    ),
    "raised": Case(Fault.RAISED, "DELETE FROM t"),
    "no such table": Case(
        Fault.NO_SUCH_TABLE, "SELECT * FROM nosuch", names={"mysql": {"table": "nosuch"}, "sqlite": {"table": "nosuch"}}
    ),
    "no such column": Case(
        Fault.NO_SUCH_COLUMN, "SELECT nosuch FROM t", names={f: {"columns": ("nosuch",)} for f in ("mysql", "sqlite")}
    ),
    "no such column to write": Case(Fault.NO_SUCH_COLUMN, "INSERT INTO t (id, n, nosuch) VALUES (9, 9, 9)"),
    "no such schema": Case(Fault.NO_SUCH_DATABASE, "CREATE TABLE nosuch.t (id INTEGER)"),
    "exists": Case(Fault.ALREADY_EXISTS, "CREATE TABLE t (id INTEGER)"),
    "syntax": Case(Fault.SYNTAX, "SELEC 1"),
}


@pytest.fixture(autouse=True)
def tables(database: Database) -> None:
    """The tables of `SCHEMA`."""
    with database.engine.begin() as connection:
        for statement in (*SCHEMA["all"], *SCHEMA[FAMILY[database.kind]]):
            connection.exec_driver_sql(statement)


def check(error: Exception, fault: Fault) -> faults.DatabaseFault:
    """``error`` is the typed exception of ``fault``; the bare exceptions of SQLAlchemy and the driver say the same."""
    assert isinstance(error, faults.DatabaseFault), repr(error)
    assert error.fault is fault, (error, error.diagnosis)
    assert error.transient is fault.transient
    orig = error.orig
    assert isinstance(orig, Exception)
    assert error.__cause__ is orig
    bare = DBAPIError(error.statement, error.params, orig, connection_invalidated=error.connection_invalidated)
    assert faults.classify(bare) is fault
    return error


def sql(statement: str) -> Callable[[sa.Connection], object]:
    """Run one ``statement``."""

    def work(connection: sa.Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = 1")
        connection.exec_driver_sql(statement)

    return work


def test_statements(driver: Driver, database: Database) -> None:
    family = FAMILY[database.kind]
    wrong = []
    for title, case in CASES.items():
        if family not in case.on:
            continue
        try:
            error = check(driver.fails(sql(case.sql)), case.fault)
            assert isinstance(error, case.plain), type(error).__mro__
            assert isinstance(error.orig, Exception)
            assert faults.classify(error.orig) is case.fault
            for name, value in case.names.get(family, {}).items():
                assert getattr(error, name) == value, (name, error.diagnosis, str(error.orig))
        except AssertionError as failure:
            wrong.append(f"{title}: {failure}")
    assert not wrong, "\n".join(wrong)


def test_a_value_the_driver_refuses(driver: Driver, database: Database) -> None:
    """asyncpg checks values before it sends them; what the others send, the server refuses."""
    if FAMILY[database.kind] == "sqlite":
        statement, value, fault = "INSERT INTO k VALUES (1, :v, NULL, NULL)", 2**70, Fault.OTHER
        error = driver.run(lambda engine: _error_of(engine, statement, value))
        assert isinstance(error, OverflowError)  # not a DB-API error: sqlite3 raises Python's own
        assert faults.classify(error) is fault
        return
    error = driver.run(lambda engine: _error_of(engine, "INSERT INTO k VALUES (:v, 1, NULL, NULL)", 2**40))
    check(error, Fault.DATA)


def _error_of(engine: sa.Engine, statement: str, value: object) -> Exception:
    with engine.connect() as connection, pytest.raises((DBAPIError, OverflowError)) as caught:
        connection.execute(sa.text(statement), {"v": value})
    return caught.value
