"""SQLite: no server, only a folder with one file a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from contraflow.rehearsal.servers.base import Progress, Server, SQLiteDatabases
from contraflow.rehearsal.servers.process import Home

__all__ = ["install", "start"]


def start(settings: Mapping[str, str], progress: Progress) -> Server:
    """A folder for databases of Python's own SQLite; it takes no ``settings``."""
    if settings:
        raise ValueError(f"SQLite has no server settings, but {sorted(settings)} were given")
    progress("SQLite: making a folder")
    home = Home("sqlite")
    return Server(
        kind="sqlite",
        version=sqlite3.sqlite_version,
        databases=SQLiteDatabases(home.path),
        home=home,
    )


def install(progress: Progress) -> None:
    """Nothing to do: SQLite comes with Python."""
    progress(f"SQLite {sqlite3.sqlite_version} comes with Python")
