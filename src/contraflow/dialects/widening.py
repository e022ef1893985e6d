"""Wider types under one name: what each server does without reading a row, and what stands in its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Found
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.dependents import postgresql_readers
from contraflow.dialects.kinds import Kind
from contraflow.dialects.mysql_text import retyped
from contraflow.dialects.remaining import Remaining
from contraflow.problems import Problem
from contraflow.steps import WidenColumns

__all__ = ["mysql_change", "mysql_in_place", "postgresql_changes", "postgresql_in_place", "postgresql_problems"]

Type = sa.types.TypeEngine[Any]


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def postgresql_in_place(old: Kind, new: Kind) -> bool:
    """Text with a larger limit or none, and more digits before the point.

    (https://www.postgresql.org/docs/release/9.2.0/, "Reduce need to rebuild tables and indexes for certain
    ALTER TABLE ... ALTER COLUMN TYPE operations")
    """
    if old == new or old.family == new.family in ("text", "binary"):
        return True
    return old.family == new.family == "decimal" and old.scale == new.scale


def postgresql_changes(work: Remaining, found: Found | None, compiler: Compiler) -> tuple[list[str], list[str]]:
    """The parts of ALTER TABLE that widen, and those that narrow again."""
    wide = []
    for name, type_ in work.widen.items():
        text = compiler.type_text(type_)
        # Without COLLATE the column would get the type's own (https://www.postgresql.org/docs/current/sql-altertable.html).
        _, collate, collation = ("", "", "") if found is None else found.details["types"][name].partition(" COLLATE ")
        kept = "" if " COLLATE " in text else f"{collate}{collation}"
        wide.append(f"ALTER COLUMN {compiler.quote(name)} TYPE {text}{kept}")
    return wide, [f"ALTER COLUMN {compiler.quote(name)} TYPE {type_}" for name, type_ in work.narrow.items()]


def postgresql_problems(connection: sa.Connection, step: WidenColumns, compiler: Compiler) -> Iterator[Problem]:
    """``CF119`` for plans that go stale, ``CF111`` for what reads the columns."""
    for one in step.widenings:
        if not one.replans:
            yield Problem(
                code="CF119",
                what=f"statements that select {step.table}.{one.column} and are prepared already will fail.",
                why="the server refuses a plan whose result changes its type (0A000, cached plan must not change"
                " result type), with psycopg in one transaction of each connection.",
                instead="let the old release prepare nothing (psycopg: prepare_threshold=None), or run transactions"
                "\nagain by contraflow.retry, then say so: WidenColumn(..., replans=True).",
            )
    oid = connection.execute(
        sa.text("SELECT CAST(to_regclass(:name) AS oid)"), {"name": compiler.table(step.table, step.schema)}
    ).scalar()
    if oid is None:
        return
    columns = [one.column for one in step.widenings]
    for column, reader in dict.fromkeys(postgresql_readers(connection, oid=int(oid), columns=columns)):
        yield Problem(
            code="CF111",
            what=f"{step.table}.{column} cannot get a wider type: {reader} reads it.",
            why="the server refuses, or runs what was prepared for the old type, and fails.",
            instead="drop it in a revision before this one, and create it again in one after it.",
        )


# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------


def mysql_in_place(old: Kind, new: Kind, *, width: int, growing: int) -> bool:
    """VARCHAR and VARBINARY, while the server keeps the length of a value in as many bytes: one for up to 255.

    ``width`` is the longest character in bytes; up to ``growing`` bytes the server can go from one byte to two.
    (MySQL manual, InnoDB, Online DDL Operations; https://mariadb.com/kb/en/innodb-online-ddl-operations-with-the-instant-alter-algorithm/)
    """
    if old == new:
        return True
    if old.family != new.family or old.family not in ("text", "binary") or old.large or new.large:
        return False
    before, after = width * (old.size or 0), width * (new.size or 0)
    return before <= growing or before > 255 or after <= 255


def mysql_change(name: str, type_text: str, found: Found | None, compiler: Compiler) -> str:
    """The part of ALTER TABLE that gives the column another type, and changes nothing else."""
    rest = f"{type_text} <the rest as it is>"
    definition = rest if found is None else retyped(found.details["create"], name, type_text)
    return f"MODIFY COLUMN {compiler.quote(name)} {definition}"
