"""Typed exceptions, and the listener that raises them in place of SQLAlchemy's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, StatementError

from contraflow.faults._codes import Fault
from contraflow.faults._diagnosis import Diagnosis, diagnose

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = [
    "AlreadyExists",
    "BadSyntax",
    "Cancelled",
    "CheckViolation",
    "CommitUnknown",
    "CommittedInPart",
    "ConstraintViolation",
    "DatabaseFault",
    "Deadlock",
    "Disconnected",
    "DuplicateKey",
    "ExclusionViolation",
    "ForeignKeyViolation",
    "InvalidData",
    "LockTimeout",
    "NoSuchColumn",
    "NoSuchDatabase",
    "NoSuchTable",
    "NotNullViolation",
    "OutOfResources",
    "PermissionDenied",
    "RaisedByDatabase",
    "ReadOnly",
    "SchemaChanged",
    "SerializationFailure",
    "StatementTimeout",
    "TransactionAborted",
    "TransientFault",
    "Unavailable",
    "install",
    "typed",
    "uninstall",
]


class DatabaseFault(DBAPIError):
    """A database error whose fault is known; base of all typed exceptions.

    Each raised one is also an instance of the class that SQLAlchemy would have raised, for example
    `sqlalchemy.exc.IntegrityError`, so handlers that exist keep working; ``statement``, ``params``, ``orig``
    and ``__cause__`` are as SQLAlchemy sets them. Faults of the class OTHER are plain `DatabaseFault`.

    :ivar diagnosis: everything that was read out of the error.
    :cvar declares: the fault that a class stands for, None for the classes of several.
    """

    diagnosis: Diagnosis
    declares: ClassVar[Fault | None] = None

    @property
    def fault(self) -> Fault:
        """The class of the error."""
        return self.diagnosis.fault

    @property
    def transient(self) -> bool:
        """Whether beginning the transaction again may well succeed."""
        return self.diagnosis.fault.transient

    @property
    def constraint(self) -> str | None:
        """Name of the violated constraint or unique index, where the server tells."""
        return self.diagnosis.constraint

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Columns of the key, or the column of the value; MySQL and MariaDB do not tell a key's."""
        return self.diagnosis.columns

    @property
    def table(self) -> str | None:
        """Name of the table, where the server tells."""
        return self.diagnosis.table

    @property
    def key(self) -> str | None:
        """The offending key's values as the server wrote them, for people."""
        return self.diagnosis.key

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self.diagnosis, _plain_class(type(self)), self.args, self.__dict__)


class TransientFault(DatabaseFault):
    """Begin the whole transaction again and it may well succeed; `contraflow.retry` does just that."""


class ConstraintViolation(DatabaseFault):
    """A constraint says no."""


class DuplicateKey(ConstraintViolation):
    """A primary key or unique constraint holds this value already."""

    declares = Fault.DUPLICATE_KEY


class ForeignKeyViolation(ConstraintViolation):
    """A referenced row is missing, or a row is still referenced."""

    declares = Fault.FOREIGN_KEY


class NotNullViolation(ConstraintViolation):
    """NULL was given, or nothing was given, where the column forbids it."""

    declares = Fault.NOT_NULL


class CheckViolation(ConstraintViolation):
    """A CHECK constraint says no."""

    declares = Fault.CHECK


class ExclusionViolation(ConstraintViolation):
    """An exclusion constraint (PostgreSQL) says no."""

    declares = Fault.EXCLUSION


class InvalidData(DatabaseFault):
    """A value is too long, out of range, or of the wrong type or form."""

    declares = Fault.DATA


class NoSuchTable(DatabaseFault):
    """The table or view does not exist."""

    declares = Fault.NO_SUCH_TABLE


class NoSuchColumn(DatabaseFault):
    """The column does not exist."""

    declares = Fault.NO_SUCH_COLUMN


class NoSuchDatabase(DatabaseFault):
    """The database or schema does not exist."""

    declares = Fault.NO_SUCH_DATABASE


class AlreadyExists(DatabaseFault):
    """The object to be created is there already."""

    declares = Fault.ALREADY_EXISTS


class BadSyntax(DatabaseFault):
    """The statement cannot be parsed."""

    declares = Fault.SYNTAX


class PermissionDenied(DatabaseFault):
    """The account may not log in, or may not do this."""

    declares = Fault.PERMISSION


class RaisedByDatabase(DatabaseFault):
    """A trigger or routine raised an error of its own."""

    declares = Fault.RAISED


class SerializationFailure(TransientFault):
    """A concurrent transaction makes this one impossible."""

    declares = Fault.SERIALIZATION


class Deadlock(TransientFault):
    """The server chose this transaction to end a deadlock, or a Galera node lost a conflict."""

    declares = Fault.DEADLOCK


class LockTimeout(TransientFault):
    """A lock could not be had in time. On MySQL and MariaDB the transaction is still open."""

    declares = Fault.LOCK_TIMEOUT


class Cancelled(DatabaseFault):
    """Somebody or a time limit cancelled the statement; catch this one to catch timeouts on every server."""

    declares = Fault.CANCELLED


class StatementTimeout(Cancelled):
    """The statement ran longer than allowed. PostgreSQL does not tell it from a cancel: `Cancelled` there."""

    declares = Fault.STATEMENT_TIMEOUT


class Disconnected(TransientFault):
    """The connection is lost."""

    declares = Fault.DISCONNECT


class Unavailable(TransientFault):
    """No server, or one that is starting, stopping, full, or outside its cluster's quorum."""

    declares = Fault.UNAVAILABLE


class ReadOnly(DatabaseFault):
    """The server, database or transaction does not take writes."""

    declares = Fault.READ_ONLY


class OutOfResources(DatabaseFault):
    """The server is out of disk, memory or another resource."""

    declares = Fault.RESOURCES


class SchemaChanged(TransientFault):
    """A plan or snapshot is older than the table's present definition."""

    declares = Fault.SCHEMA_CHANGED


class TransactionAborted(DatabaseFault):
    """An earlier error of this transaction was swallowed; only ROLLBACK is left (PostgreSQL, CockroachDB)."""

    declares = Fault.TRANSACTION_ABORTED


class CommittedInPart(DatabaseFault):
    """The data is committed, the schema change is not (CockroachDB, XXA00): do not run it again."""

    declares = Fault.COMMITTED_IN_PART


class CommitUnknown(DatabaseFault):
    """Nobody can tell whether the transaction is committed: the answer to COMMIT was lost.

    Raised by `contraflow.retry`, and for SQLSTATE 40003. Look at the data before running it again.
    """

    declares = Fault.COMMIT_UNKNOWN


def _descendants(base: type[DatabaseFault]) -> list[type[DatabaseFault]]:
    return [base, *(deeper for child in base.__subclasses__() for deeper in _descendants(child))]


_TYPES: dict[Fault, type[DatabaseFault]] = {
    declared.declares: declared for declared in _descendants(DatabaseFault) if declared.declares is not None
}


_concretes: dict[tuple[Fault, type[Exception]], type[DatabaseFault]] = {}


def _concrete(fault: Fault, plain: type[Exception]) -> type[DatabaseFault]:
    """The class of ``fault`` that is also ``plain``: named like the former, so tracebacks read well."""
    if (fault, plain) not in _concretes:
        declared = _TYPES.get(fault, DatabaseFault)
        bases = (declared,) if issubclass(declared, plain) else (declared, plain)
        members = {"__module__": "contraflow.faults", "__doc__": declared.__doc__}
        # setdefault: of two threads that get here at once, both use one class.
        _concretes.setdefault((fault, plain), type(declared.__name__, bases, members))
    return _concretes[fault, plain]


def _plain_class(concrete: type[DatabaseFault]) -> type[Exception]:
    plain = concrete.__bases__[-1]
    return plain if issubclass(plain, Exception) and not issubclass(plain, DatabaseFault) else DBAPIError


def _revive(
    diagnosis: Diagnosis, plain: type[Exception], args: tuple[object, ...], state: dict[str, object]
) -> DatabaseFault:
    concrete = _concrete(diagnosis.fault, plain)
    error = concrete.__new__(concrete)
    error.args = args
    error.__dict__.update(state, diagnosis=diagnosis)
    return error


def typed(error: Exception, diagnosis: Diagnosis | None = None) -> DatabaseFault:
    """The typed exception for ``error``: a copy of it that is an instance of its class and of the fault's.

    ``error`` is SQLAlchemy's, or one of the operating system's that asyncpg lets through (a failed connect
    raises those past SQLAlchemy's events, so they stay as they are even on an installed engine). ``diagnosis``
    overrides what `diagnose` would find. The caller raises it
    ``from error.orig``.
    """
    diagnosis = diagnosis or diagnose(error)
    if isinstance(error, DatabaseFault):
        return _revive(diagnosis, _plain_class(type(error)), error.args, error.__dict__)
    if isinstance(error, StatementError):
        return _revive(diagnosis, type(error), error.args, error.__dict__)
    result = _revive(diagnosis, type(error), (), {})
    DBAPIError.__init__(result, None, None, error)
    if isinstance(error, OSError) and isinstance(result, OSError):
        result.errno, result.strerror = error.errno, error.strerror
    return result


def _dialect(engine: sa.Engine | AsyncEngine) -> sa.Dialect:
    """Where SQLAlchemy keeps this event's listeners.

    It would take the engine as well, but remembers listeners by the address of what it was given, for as long as the
    dialect lives: another engine at the address of one that is gone would count as installed.
    """
    return (engine if isinstance(engine, sa.Engine) else engine.sync_engine).dialect


def install(engine: sa.Engine | AsyncEngine) -> None:
    """From now on errors on ``engine`` are raised as `DatabaseFault`. Does nothing if that is so already.

    Works through SQLAlchemy's ``handle_error`` event: a statement that succeeds does not pass any code of
    this library. An engine made by ``execution_options()`` shares it. Where another listener has replaced the
    exception before (oslo.db does), its choice stands. A Galera node that is not primary answers pings, so
    its 1047 is declared a lost connection here, and the pool asks for new ones.
    """
    target = _dialect(engine)
    if not event.contains(target, "handle_error", _on_error):
        event.listen(target, "handle_error", _on_error)


def uninstall(engine: sa.Engine | AsyncEngine) -> None:
    """Undo `install`; does nothing if it is not installed."""
    target = _dialect(engine)
    if event.contains(target, "handle_error", _on_error):
        event.remove(target, "handle_error", _on_error)


_NOT_PRIMARY = 1047
# Two classes until Python 3.11.
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)


def _on_error(context: ExceptionContext) -> BaseException | None:
    if context.is_pre_ping or getattr(context, "chained_exception", None) is not None:
        return None
    error = context.sqlalchemy_exception or context.original_exception
    diagnosis = diagnose(error)
    if isinstance(error, _TIMEOUTS) and context.connection is not None:
        # asyncpg's command_timeout; without a connection it is a connect that took too long.
        diagnosis = replace(diagnosis, fault=Fault.STATEMENT_TIMEOUT)
    elif not isinstance(error, (DBAPIError, OSError)) or not isinstance(error, Exception):
        return None  # a value that SQLAlchemy could not convert, an interrupt: nothing of the database's
    if diagnosis.fault is Fault.DISCONNECT or diagnosis.errno == _NOT_PRIMARY:
        # SQLAlchemy 2.1 does not know the MariaDB connector 2.0's lost connections either.
        context.is_disconnect = True
    result = typed(error, diagnosis)
    result.connection_invalidated = context.is_disconnect
    return result
