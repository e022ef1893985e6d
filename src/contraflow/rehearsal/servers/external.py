"""Servers that run anyway: given by URL, used, never stopped."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from contraflow.rehearsal.servers.base import (
    Databases,
    MySQLDatabases,
    PostgreSQLDatabases,
    Server,
    SQLiteDatabases,
    version_number,
)

__all__ = ["attach"]


def attach(url: str | sa.URL, *, kind: str | None = None) -> Server:
    """A `Server` for one that runs already; databases are made on it, it is not stopped or killed.

    :param url: any database on it that exists, with an account that may create databases; for SQLite the
        folder where databases are made.
    :param kind: what to call it; by default what the server itself says it is, since the URL may be wrong:
        MariaDB answers behind ``mysql://`` and CockroachDB behind ``postgresql://``.
    :raises ProblemError: CF201 if it does not answer, CF204 if the driver is not installed.
    :raises ValueError: if the URL is of a kind of database that Contraflow does not know.
    """
    url = sa.make_url(url)
    databases = _databases(url)
    with databases.connection():
        text = databases.version()
    return Server(
        kind=kind or _kind(url, text),
        version=version_number(text),
        databases=databases,
    )


def _databases(url: sa.URL) -> Databases:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return SQLiteDatabases(Path(url.database or "."))
    if backend in {"postgresql", "cockroachdb"}:
        return PostgreSQLDatabases(url)
    if backend in {"mysql", "mariadb"}:
        return MySQLDatabases(url)
    raise ValueError(f"Contraflow does not know databases of the kind {backend!r}")


def _kind(url: sa.URL, version: str) -> str:
    backend = url.get_backend_name()
    if backend in {"postgresql", "cockroachdb"}:
        return "cockroachdb" if "CockroachDB" in version else "postgresql"
    if backend in {"mysql", "mariadb"}:
        return "mariadb" if "MariaDB" in version else "mysql"
    return backend
