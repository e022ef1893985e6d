"""What an exception of a driver or of SQLAlchemy says: its fault, its codes, and the names in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.exc import StatementError

from contraflow.faults import _names as names
from contraflow.faults._codes import MYSQL, PREPARED_PLAN_ROUTINE, SQLITE, SQLSTATE, SQLSTATE_CLASS, Fault

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is known about one error; None where the server or the driver does not tell.

    :ivar fault: the class of the error.
    :ivar sqlstate: five characters, from PostgreSQL, CockroachDB and those MySQL drivers that hand it on.
    :ivar errno: MySQL's or MariaDB's error number, or SQLite's extended result code.
    :ivar constraint: name of the constraint or unique index; on MySQL and MariaDB the index (``PRIMARY`` for
    a
        primary key).
    :ivar columns: columns of the key or the column of the value, as the server spells them.
    :ivar table: name of the table, without schema.
    :ivar key: the offending key's values as one text, as the server wrote it: for people, not for parsing.
    """

    fault: Fault
    sqlstate: str | None = None
    errno: int | None = None
    constraint: str | None = None
    columns: tuple[str, ...] | None = None
    table: str | None = None
    key: str | None = None


def diagnose(error: BaseException) -> Diagnosis:
    """Read ``error``, a driver's exception or SQLAlchemy's. Codes decide, never the text of a message.

    Two exceptions, because nothing else is there: SQLite's result code 1 (its texts exist in English only)
    and, under Python 3.10, whose `sqlite3` hides the result codes, SQLite altogether. Where a driver hands on
    no code for a lost or refused connection (psycopg2 always, psycopg while connecting), the driver's own
    flags decide, through SQLAlchemy's ``connection_invalidated``; an unknown database, a wrong password and a
    refused connection cannot be told apart there, all three are UNAVAILABLE.
    """
    known = getattr(error, "diagnosis", None)
    if isinstance(known, Diagnosis):
        return known
    # What SQLAlchemy found out from the driver when the error came by; None when it never saw the error.
    lost = error.connection_invalidated if isinstance(error, StatementError) else None
    driver = _driver_exception(error)
    read = _reader_of(driver)
    diagnosis = read(driver, lost) if read is not None else _read_foreign(driver)
    if lost and diagnosis.fault is Fault.OTHER:
        return replace(diagnosis, fault=Fault.DISCONNECT)
    return diagnosis


def _driver_exception(error: BaseException) -> BaseException:
    """The exception that the driver itself raised: inside SQLAlchemy's, and inside its emulated DBAPI's."""
    if isinstance(error, StatementError):
        if error.orig is None:
            return error
        error = error.orig
    if type(error).__module__.startswith("sqlalchemy.") and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def _reader_of(error: BaseException) -> _Reader | None:
    for base in type(error).__mro__:
        reader = _READERS.get(base.__module__.partition(".")[0])
        if reader is not None:
            return reader
    return None


def _read_postgresql(error: BaseException, lost: bool | None) -> Diagnosis:
    """psycopg, psycopg2 and asyncpg; the first two have the fields in ``diag``, asyncpg as attributes."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if not isinstance(sqlstate, str):
        return Diagnosis(fault=_postgresql_without_code(error, lost))
    diag = getattr(error, "diag", None)

    def field(name: str, of_asyncpg: str) -> str | None:
        value = getattr(error, of_asyncpg, None) if diag is None else getattr(diag, name, None)
        return value if isinstance(value, str) and value else None

    if sqlstate == "0A000":
        routine = field("source_function", "server_source_function")
        fault = Fault.SCHEMA_CHANGED if routine == PREPARED_PLAN_ROUTINE else Fault.OTHER
    else:
        fault = SQLSTATE.get(sqlstate) or SQLSTATE_CLASS.get(sqlstate[:2], Fault.OTHER)
    column = field("column_name", "column_name")
    columns, key = names.postgresql_key(field("message_detail", "detail") or "")
    return Diagnosis(
        fault=fault,
        sqlstate=sqlstate,
        constraint=field("constraint_name", "constraint_name"),
        columns=(column,) if column else columns,
        table=field("table_name", "table_name"),
        key=key,
    )


def _postgresql_without_code(error: BaseException, lost: bool | None) -> Fault:
    classes = _class_names(error)
    if "DataError" in classes:  # a value that the driver refused before it was sent
        return Fault.DATA
    if "ConnectionTimeout" in classes or getattr(error, "pgconn", None) is not None:
        return Fault.UNAVAILABLE  # psycopg hands out the half-made connection when connecting fails
    if lost is False:
        # Of psycopg2's OperationalErrors without code and without cursor, on a connection that is not closed,
        # the failed connect is what is left.
        is_psycopg2 = type(error).__module__.partition(".")[0] == "psycopg2"
        connecting = is_psycopg2 and "OperationalError" in classes and getattr(error, "cursor", None) is None
        return Fault.UNAVAILABLE if connecting else Fault.OTHER
    return Fault.DISCONNECT if classes & {"OperationalError", "InterfaceError"} else Fault.OTHER


def _read_mysql(error: BaseException, lost: bool | None) -> Diagnosis:
    """PyMySQL, mysqlclient, mysql-connector, mariadb, aiomysql and asyncmy."""
    args: tuple[object, ...] = error.args
    errno = getattr(error, "errno", None)
    if not isinstance(errno, int):
        errno = args[0] if args and isinstance(args[0], int) else None
    sqlstate = getattr(error, "sqlstate", None)
    sqlstate = sqlstate if isinstance(sqlstate, str) and sqlstate else None
    if errno is None or errno <= 0:
        # No number of the server's: the driver itself refused. PyMySQL and mysqlclient say 0 on a closed
        # connection.
        classes = _class_names(error)
        closed = errno == 0 or lost is None
        if "DataError" in classes:
            return Diagnosis(fault=Fault.DATA, sqlstate=sqlstate)
        if closed and classes & {"InterfaceError", "OperationalError"}:
            return Diagnosis(fault=Fault.DISCONNECT, sqlstate=sqlstate)
        return Diagnosis(fault=Fault.OTHER, sqlstate=sqlstate)
    fault = MYSQL.get(errno, Fault.OTHER)
    found = names.mysql(fault, str(args[1]) if len(args) > 1 else str(error))
    return Diagnosis(fault=fault, sqlstate=sqlstate, errno=errno, **found)


def _read_sqlite(error: BaseException, lost: bool | None) -> Diagnosis:  # noqa: ARG001
    text = str(error)
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int):  # Python 3.10, or an error of the sqlite3 module's own
        code = names.sqlite_code(text, _class_names(error))
    if code is None:
        return Diagnosis(fault=Fault.DATA if "DataError" in _class_names(error) else Fault.OTHER)
    if code == 1:
        fault = names.sqlite_statement_fault(text)
    else:
        fault = SQLITE.get(code) or SQLITE.get(code & 0xFF) or Fault.OTHER
    return Diagnosis(fault=fault, errno=code, **names.sqlite(fault, text))


def _read_foreign(error: BaseException) -> Diagnosis:
    """Not a driver's exception. asyncpg lets those of the operating system through."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        return Diagnosis(fault=Fault.DISCONNECT)
    if isinstance(error, (OSError, asyncio.TimeoutError)):
        return Diagnosis(fault=Fault.UNAVAILABLE)
    return Diagnosis(fault=Fault.OTHER)


def _class_names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


_Reader = Callable[[BaseException, "bool | None"], Diagnosis]

_READERS: dict[str, _Reader] = {
    **dict.fromkeys(("psycopg", "psycopg2", "asyncpg"), _read_postgresql),
    **dict.fromkeys(("pymysql", "MySQLdb", "mysql", "mariadb", "mariadb_shared", "asyncmy"), _read_mysql),
    "sqlite3": _read_sqlite,
}
"""By the top-level module that defines the exception's class: no driver is imported to ask."""
