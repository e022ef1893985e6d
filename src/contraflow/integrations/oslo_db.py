"""Make an unmodified oslo.db application understand the errors of CockroachDB, MariaDB and PostgreSQL's SERIALIZABLE.

oslo.db (18.1 looked at) chooses its filters by the name of the dialect and knows ``mysql``, ``postgresql`` and
``sqlite``: on a ``cockroachdb://`` or ``mariadb://`` URL a duplicate is a plain ``DBError``, and a serialization
failure is no ``DBDeadlock`` anywhere, so ``wrap_db_retry`` does not run it again. After `install` both are right::

    from contraflow.integrations import oslo_db

    oslo_db.install()  # once, at any time; engines made before are covered too

What oslo.db's own filters know they go on deciding. What they do not know, the error's code decides, as in
`contraflow.faults`.
"""

from __future__ import annotations

import re
from typing import Any

from oslo_db import exception
from oslo_db.sqlalchemy import engines, exc_filters
from sqlalchemy.exc import DBAPIError, OperationalError

from contraflow.faults import Diagnosis, Fault, diagnose

__all__ = ["install", "uninstall"]

_DIALECTS = ("cockroachdb", "mariadb", "postgresql")
# Options and events that oslo.db has for an engine, by the dialect it knows under the other name.
_LIKE = {"cockroachdb": "postgresql", "mariadb": "mysql"}
_CONFLICTS = frozenset({Fault.SERIALIZATION, Fault.DEADLOCK, Fault.LOCK_TIMEOUT})
_NO_SUCH_TABLE = 1146


def install() -> None:
    """Add the missing filters to oslo.db's registry, for all engines of this process; idempotent."""
    uninstall()
    for dialect in _DIALECTS:
        for kind in (OperationalError, DBAPIError):
            exc_filters.filters(dialect, kind, r".*")(_translate)
    for name, like in _LIKE.items():
        for dispatcher in (engines._init_connection_args, engines._init_events):  # noqa: SLF001 - no public way
            known = any(dispatcher.reg.get(name, {}).values())
            for expression, function in () if known else _functions(dispatcher, like):
                dispatcher.dispatch_for(expression.replace(like, name, 1))(function)


def uninstall() -> None:
    """Remove the filters that `install` added; options of engines that are made later stay as they are."""
    for dialect in _DIALECTS:
        by_class = exc_filters._registry[dialect]  # noqa: SLF001 - there is no public way to remove a filter
        for kind, filters in list(by_class.items()):
            by_class[kind] = [(function, pattern) for function, pattern in filters if function is not _translate]


def _functions(dispatcher: Any, dialect: str) -> list[tuple[str, Any]]:
    """What is registered with one of oslo.db's dispatchers for ``dialect``, with any driver."""
    return [
        (dialect if driver == "*" else f"{dialect}+{driver}", function)
        for driver, functions in dispatcher.reg.get(dialect, {}).items()
        for function in functions
    ]


def _translate(error: DBAPIError, _match: re.Match[str], engine_name: str, is_disconnect: bool) -> None:
    """Raise oslo.db's exception for ``error``; return where its general filters shall decide."""
    diagnosis = diagnose(error)
    fault = diagnosis.fault
    if is_disconnect or fault in (Fault.DISCONNECT, Fault.UNAVAILABLE):
        raise exception.DBConnectionError(error)
    if fault in _CONFLICTS:
        raise exception.DBDeadlock(error)
    if engine_name == "postgresql":
        return  # everything else oslo.db reads from PostgreSQL's messages itself
    if fault is Fault.DUPLICATE_KEY:
        raise exception.DBDuplicateEntry(_columns(diagnosis), error, diagnosis.key)
    if fault is Fault.FOREIGN_KEY:
        key = ", ".join(diagnosis.columns) if diagnosis.columns else None
        raise exception.DBReferenceError(diagnosis.table, diagnosis.constraint, key, _referenced(error), error)
    if fault is Fault.CHECK:
        raise exception.DBConstraintError(diagnosis.table, diagnosis.constraint, error)
    if fault is Fault.DATA:
        raise exception.DBDataError(error)
    if fault is Fault.NO_SUCH_DATABASE:
        raise exception.DBNonExistentDatabase(None, error)
    if fault is Fault.NO_SUCH_TABLE:
        if diagnosis.errno == _NO_SUCH_TABLE:
            raise error  # SQLAlchemy's MySQL dialects look for it themselves
        raise exception.DBNonExistentTable(diagnosis.table, error)


def _columns(diagnosis: Diagnosis) -> list[str]:
    """The columns in a name like ``uniq_table0column0column``; else the server's; else the name itself.

    The first is oslo.db's convention, and what applications compare with.
    """
    name = diagnosis.constraint or ""
    if name.startswith("uniq_"):
        return name[len("uniq_") :].split("0")[1:]
    return list(diagnosis.columns or ([name] if name else []))


def _referenced(error: DBAPIError) -> str | None:
    """The other table of a foreign key, which stands in the message only."""
    match = re.search(r"REFERENCES [`\"](?P<a>[^`\"]+)[`\"]|table [\"](?P<b>[^\"]+)[\"]\.?\s*$", str(error.orig))
    return (match["a"] or match["b"]) if match is not None else None
