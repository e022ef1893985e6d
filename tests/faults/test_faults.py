"""The classification and the typed exceptions, without a server."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from contraflow import faults
from contraflow.faults import Fault, _codes, _names
from contraflow.faults._typed import _TYPES


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, n INTEGER NOT NULL)")
    yield engine
    engine.dispose()


def error_of(engine: sa.Engine, statement: str = "INSERT INTO t VALUES (1, NULL)") -> DBAPIError:
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql(statement)
    return caught.value


def test_install_is_idempotent_and_can_be_undone(engine: sa.Engine) -> None:
    plain = error_of(engine)
    assert type(plain) is IntegrityError
    for _ in range(2):
        faults.install(engine)
        error = error_of(engine)
        assert isinstance(error, faults.NotNullViolation)
        assert isinstance(error, IntegrityError)
        assert str(error) == str(plain)
        assert (error.statement, error.params, error.code) == (plain.statement, plain.params, plain.code)
    for _ in range(2):
        faults.uninstall(engine)
        assert type(error_of(engine)) is IntegrityError


def test_an_engine_with_options_shares_it(engine: sa.Engine) -> None:
    faults.install(engine)
    faults.install(engine.execution_options(logging_token="x"))
    assert len(engine.dialect.dispatch.handle_error) == 1
    faults.uninstall(engine.execution_options(logging_token="y"))
    assert type(error_of(engine)) is IntegrityError


def test_an_engine_at_the_address_of_one_that_is_gone() -> None:
    """Whose dialect, with the listener, lives on: as it does until the next garbage collection."""
    gone = sa.create_engine("sqlite://")
    address, dialect = id(gone), gone.dialect
    faults.install(gone)
    del gone
    others: list[sa.Engine] = []
    while len(others) < 1000 and (not others or id(others[-1]) != address):
        others.append(sa.create_engine("sqlite://"))
    faults.install(others[-1])
    assert isinstance(error_of(others[-1], "SELEC 1"), faults.BadSyntax)
    assert others[-1].dialect is not dialect


def test_nothing_runs_on_the_happy_path(engine: sa.Engine) -> None:
    """Only an error may cost: no event of statements, connections or the pool gets a listener."""

    def listeners(dispatch: Any) -> dict[str, int]:
        return {name: len(getattr(dispatch, name)) for name in dispatch._event_names}

    before = listeners(engine.dispatch), listeners(engine.pool.dispatch)
    faults.install(engine)
    assert (listeners(engine.dispatch), listeners(engine.pool.dispatch)) == before
    assert not engine._has_events


def test_another_listener_goes_first(engine: sa.Engine) -> None:
    class OfTheApplicationError(Exception):
        pass

    @event.listens_for(engine, "handle_error", retval=True)
    def translate(context: Any) -> Exception:
        return OfTheApplicationError()

    faults.install(engine)
    with engine.connect() as connection, pytest.raises(OfTheApplicationError):
        connection.exec_driver_sql("SELEC 1")


def test_an_engine_made_by_execution_options_shares_it(engine: sa.Engine) -> None:
    faults.install(engine)
    assert isinstance(error_of(engine.execution_options(isolation_level="SERIALIZABLE")), faults.NotNullViolation)


def test_pickled_and_back(engine: sa.Engine) -> None:
    faults.install(engine)
    error = error_of(engine)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.diagnosis, copy.statement) == (str(error), error.diagnosis, error.statement)  # type: ignore[attr-defined]


def test_every_fault_has_one_class_of_its_own_and_a_meaning() -> None:
    assert set(_TYPES) == set(Fault) - {Fault.OTHER}
    assert all(fault.meaning for fault in Fault)
    for fault, declared in _TYPES.items():
        assert issubclass(declared, faults.TransientFault) == fault.transient
        assert getattr(faults, declared.__name__) is declared


def test_a_value_that_sqlalchemy_cannot_convert_is_left_alone(engine: sa.Engine) -> None:
    faults.install(engine)
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Uuid))
    with engine.connect() as connection, pytest.raises(sa.exc.StatementError) as caught:
        connection.execute(table.insert(), {"id": object()})
    assert not isinstance(caught.value, faults.DatabaseFault)


def test_errors_that_are_not_of_a_database() -> None:
    assert faults.classify(ValueError("40001")) is Fault.OTHER
    assert faults.classify(KeyboardInterrupt()) is Fault.OTHER
    assert faults.classify(ConnectionResetError()) is Fault.DISCONNECT
    assert faults.classify(ConnectionRefusedError()) is Fault.UNAVAILABLE


def psycopg_error(sqlstate: str) -> Exception:
    """What psycopg makes of a server's code, whatever its message, which psycopg has for any text."""
    import psycopg.errors

    try:
        kind = psycopg.errors.lookup(sqlstate)
    except KeyError:
        kind = type("Unknown", (psycopg.OperationalError,), {"sqlstate": sqlstate, "__module__": "psycopg.errors"})
    return kind("restart transaction: duplicate key value violates; server closed the connection")


# CockroachDB, "Error codes" and "Transaction retry error reference", and pkg/sql/pgwire/pgcode of v24.3 to 26.3.
COCKROACHDB = {
    "40001": Fault.SERIALIZATION,  # RETRY_WRITE_TOO_OLD, RETRY_SERIALIZABLE, ABORT_REASON_..., ReadWithinUncertainty
    "40003": Fault.COMMIT_UNKNOWN,
    "XXA00": Fault.COMMITTED_IN_PART,
    "55P03": Fault.LOCK_TIMEOUT,
    "57014": Fault.CANCELLED,
    "57P01": Fault.DISCONNECT,
    "57P03": Fault.UNAVAILABLE,
    "53300": Fault.UNAVAILABLE,
    "53200": Fault.RESOURCES,
    "58C00": Fault.UNAVAILABLE,
    "XXC03": Fault.UNAVAILABLE,
    "08C00": Fault.UNAVAILABLE,
    "55C01": Fault.SCHEMA_CHANGED,
    "25006": Fault.READ_ONLY,
    "25P02": Fault.TRANSACTION_ABORTED,
    "25000": Fault.OTHER,
    "0A000": Fault.OTHER,
    "XXUUU": Fault.OTHER,
    "23505": Fault.DUPLICATE_KEY,
    "22C01": Fault.DATA,
}


@pytest.mark.parametrize(("sqlstate", "fault"), COCKROACHDB.items())
def test_cockroachdb_by_code_alone(sqlstate: str, fault: Fault) -> None:
    assert faults.classify(psycopg_error(sqlstate)) is fault
    wrapped = OperationalError("SELECT 1", {}, psycopg_error(sqlstate))
    typed = faults.typed(wrapped)
    assert typed.fault is fault
    assert isinstance(typed, OperationalError)


def test_codes_are_well_formed_and_unambiguous() -> None:
    assert all(len(code) == 5 and code == code.upper() for code in _codes.SQLSTATE)
    for table in (_codes.SQLSTATE, _codes.MYSQL, _codes.SQLITE):
        assert Fault.OTHER not in table.values()
    named = {*_codes.SQLSTATE.values(), *_codes.SQLSTATE_CLASS.values(), *_codes.MYSQL.values(), Fault.OTHER}
    assert named == set(Fault)


def test_what_loses_the_transaction() -> None:
    assert Fault.DUPLICATE_KEY.loses_transaction("postgresql")
    assert Fault.DUPLICATE_KEY.loses_transaction("cockroachdb")
    for server in ("mysql", "mariadb", "sqlite"):
        assert not Fault.DUPLICATE_KEY.loses_transaction(server)
        assert not Fault.LOCK_TIMEOUT.loses_transaction(server)
    assert Fault.DEADLOCK.loses_transaction("mysql")
    with pytest.raises(ValueError, match="oracle"):
        Fault.DEADLOCK.loses_transaction("oracle")


@pytest.mark.parametrize(
    "text",
    [
        "Duplicate entry 'it's-2' for key 'orders.u'",
        "Doppelter Eintrag 'it's-2' für Schlüssel 'orders.u'",
        "Duplicata du champ 'it's-2' pour la clef 'orders.u'",
    ],
)
def test_mysql_names_in_any_language(text: str) -> None:
    assert _names.mysql(Fault.DUPLICATE_KEY, text) == {"key": "it's-2", "constraint": "u", "table": "orders"}


def test_postgresql_names_in_any_language() -> None:
    assert _names.postgresql_key('Key (a, "b, ""c")=(1, x) already exists.') == (("a", 'b, "c'), "1, x")
    assert _names.postgresql_key("Schlüssel »(lower(n::text), a)=(é, 1)« existiert bereits.") == (
        ("lower(n::text)", "a"),
        "é, 1",
    )
    assert _names.postgresql_key("Failing row contains (1, null).") == (None, None)
    assert _names.mysql(Fault.FOREIGN_KEY, "a foreign key constraint fails") == {}
    assert _names.mysql(Fault.DUPLICATE_KEY, "Can't write") == {}


SQLITE_TEXTS = {
    "UNIQUE constraint failed: t.a, t.b": (Fault.DUPLICATE_KEY, "IntegrityError"),
    "FOREIGN KEY constraint failed": (Fault.FOREIGN_KEY, "IntegrityError"),
    "NOT NULL constraint failed: t.n": (Fault.NOT_NULL, "IntegrityError"),
    "CHECK constraint failed: n > 0": (Fault.CHECK, "IntegrityError"),
    "cannot store TEXT value in INT column t.n": (Fault.DATA, "IntegrityError"),
    "no, says the trigger": (Fault.RAISED, "IntegrityError"),
    "database is locked": (Fault.LOCK_TIMEOUT, "OperationalError"),
    "attempt to write a readonly database": (Fault.READ_ONLY, "OperationalError"),
    "interrupted": (Fault.CANCELLED, "OperationalError"),
    "unable to open database file": (Fault.UNAVAILABLE, "OperationalError"),
    "database or disk is full": (Fault.RESOURCES, "OperationalError"),
    "no such table: main.t": (Fault.NO_SUCH_TABLE, "OperationalError"),
    "no such column: x": (Fault.NO_SUCH_COLUMN, "OperationalError"),
    'near "selec": syntax error': (Fault.SYNTAX, "OperationalError"),
    "something new": (Fault.OTHER, "OperationalError"),
}


@pytest.mark.parametrize(("text", "expected"), SQLITE_TEXTS.items())
def test_sqlite_without_its_code(text: str, expected: tuple[Fault, str]) -> None:
    """As under Python 3.10, which does not hand on SQLite's result code."""
    fault, kind = expected
    assert faults.classify(getattr(sqlite3, kind)(text)) is fault
