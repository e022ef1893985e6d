"""Dialects: one adapter for each kind of server, chosen by what the live server says of itself.

An adapter of another package is found through the entry point group ``contraflow.dialects``; it is asked before the
built-in ones.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata

import sqlalchemy as sa

from contraflow.dialects.base import (
    Adapter,
    BackfillText,
    Found,
    LockTimeout,
    ProbeText,
    Profile,
    Statement,
)
from contraflow.dialects.cockroachdb import CockroachDBAdapter
from contraflow.dialects.galera import GaleraAdapter, XtraDBClusterAdapter
from contraflow.dialects.mariadb import MariaDBAdapter
from contraflow.dialects.mysql import MySQLAdapter
from contraflow.dialects.postgresql import PostgreSQLAdapter
from contraflow.dialects.sqlite import SQLiteAdapter
from contraflow.problems import Problem, ProblemError

__all__ = [
    "Adapter",
    "BackfillText",
    "Found",
    "LockTimeout",
    "ProbeText",
    "Profile",
    "Statement",
    "adapters",
    "choose",
    "for_profile",
]

_BUILT_IN: tuple[type[Adapter], ...] = (
    CockroachDBAdapter,
    PostgreSQLAdapter,
    MySQLAdapter,
    MariaDBAdapter,
    GaleraAdapter,
    XtraDBClusterAdapter,
    SQLiteAdapter,
)


@cache  # each connection asks, and the look through what is installed takes 5 to 30 ms
def adapters() -> tuple[type[Adapter], ...]:
    """Every adapter, in the order in which they are asked: installed ones first, special kinds before general ones.

    What is installed later is found by the next process.
    """
    installed = (point.load() for point in metadata.entry_points(group="contraflow.dialects"))
    return (*installed, *_BUILT_IN)


def choose(connection: sa.Connection) -> Adapter:
    """The adapter for the server behind ``connection``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF203`` for a server that no adapter knows, or that is too
    old.
    """
    for adapter in adapters():
        profile = adapter.matches(connection)
        if profile is not None:
            return _checked(adapter, profile)
    raise _unsupported(f"there is no adapter for {connection.dialect.name}.")


def for_profile(profile: Profile) -> Adapter:
    """The adapter for a recorded profile, to compile without a connection. Raises ``CF203`` as :func:`choose` does."""
    for adapter in adapters():
        if adapter.serves(profile):
            return _checked(adapter, profile)
    raise _unsupported(f"there is no adapter for {profile.product}.")


def _checked(adapter: type[Adapter], profile: Profile) -> Adapter:
    if profile.version < adapter.floor:
        version, floor = (".".join(map(str, parts)) for parts in (profile.version, adapter.floor))
        raise _unsupported(f"{profile.product} {version} is too old: Contraflow needs {floor} or later.")
    return adapter(profile)


def _unsupported(what: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF203",
            what=what,
            why="an upgrade relies on what its triggers, locks and DDL do.",
            instead="use PostgreSQL, CockroachDB, MySQL, MariaDB or SQLite, or install an adapter"
            " (entry point contraflow.dialects).",
        )
    )
