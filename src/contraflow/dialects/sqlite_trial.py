"""What SQLite says of a change of the schema: the change is tried on an empty copy of the schema, in memory."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from contraflow.dialects.pair import is_own

__all__ = ["empty_copy", "in_the_way", "quoted"]


@contextlib.contextmanager
def empty_copy(
    connection: sa.Connection, schema: str | None, own: str | None, text: Callable[[str, str], str | None]
) -> Iterator[sqlite3.Connection]:
    """The schema without rows and without Contraflow's triggers, of which ``own`` is the stem of the sync's names.

    ``text`` tells what is to stand in the copy, of an object's name and SQL; None for nothing.
    """
    master = f"{quoted(schema)}.sqlite_master" if schema else "sqlite_master"
    objects = connection.exec_driver_sql(
        f"SELECT name, sql FROM {master} WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY type <> 'table', rowid"
    ).all()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        for name, sql in objects:
            made = None if is_own(name, own) else text(name, sql)
            if made is not None:
                with contextlib.suppress(sqlite3.Error):  # a module or a collation that this connection does not have
                    copy.execute(made)
        yield copy


def in_the_way(copy: sqlite3.Connection, statement: str, kinds: str) -> Iterator[tuple[str, str]]:
    """Kind and name of each object because of which the statement fails; what it fails of besides is passed over.

    ``kinds`` are those to look for, with ``|`` between them. Each is dropped, so that the next one is found.
    """
    while True:
        try:
            copy.execute(statement)
        except sqlite3.Error as error:
            match = re.match(rf"error in ({kinds}) (.+?)(?: after (?:drop column|rename))?: ", str(error))
            if match is None:
                return
            kind, name = match.groups()
            yield kind, name
            if kind == "table":
                return
            copy.execute(f"DROP {kind} {quoted(name)}")
        else:
            return


def quoted(name: str) -> str:
    """``name`` as an identifier."""
    return '"' + name.replace('"', '""') + '"'
