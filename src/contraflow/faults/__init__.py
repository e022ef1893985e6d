"""One classification of database errors for every server, driver and style of application.

`classify` names the fault of any exception; `install` makes an engine raise typed ones::

    contraflow.install(engine)
    try:
        connection.execute(users.insert(), {"name": "ann"})
    except contraflow.DuplicateKey as error:  # also a sqlalchemy.exc.IntegrityError
        error.columns, error.constraint

Usable alone: it imports SQLAlchemy, and no driver.
"""

from __future__ import annotations

from contraflow.faults._codes import Fault
from contraflow.faults._diagnosis import Diagnosis, diagnose
from contraflow.faults._typed import (
    AlreadyExists,
    BadSyntax,
    Cancelled,
    CheckViolation,
    CommittedInPart,
    CommitUnknown,
    ConstraintViolation,
    DatabaseFault,
    Deadlock,
    Disconnected,
    DuplicateKey,
    ExclusionViolation,
    ForeignKeyViolation,
    InvalidData,
    LockTimeout,
    NoSuchColumn,
    NoSuchDatabase,
    NoSuchTable,
    NotNullViolation,
    OutOfResources,
    PermissionDenied,
    RaisedByDatabase,
    ReadOnly,
    SchemaChanged,
    SerializationFailure,
    StatementTimeout,
    TransactionAborted,
    TransientFault,
    Unavailable,
    install,
    typed,
    uninstall,
)

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
    "Diagnosis",
    "Disconnected",
    "DuplicateKey",
    "ExclusionViolation",
    "Fault",
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
    "classify",
    "diagnose",
    "install",
    "typed",
    "uninstall",
]


def classify(error: BaseException) -> Fault:
    """The fault of ``error``, a driver's exception or SQLAlchemy's; `Fault.OTHER` for anything else.

    Decided by SQLSTATE, error number or SQLite result code; `diagnose` says more, and tells the exceptions to
    that rule. Prefer SQLAlchemy's exception to the driver's where there is one: it knows whether the
    connection is lost.
    """
    return diagnose(error).fault
