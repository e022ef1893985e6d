"""Indexes of MySQL and MariaDB: built beside the writers, dropped without reading a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.remaining import Remaining, require
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import BuildIndex

__all__ = ["build", "drop", "problems"]

_LONG = re.compile(r"(TINY|MEDIUM|LONG)?(TEXT|BLOB)|JSON")
"""Types of which only a prefix can be indexed (error 1170)."""


def build(step: BuildIndex, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statement that builds an index; none if it stands. A build that dies leaves nothing."""
    index = step.index
    if index.primary:
        return []  # it is built when it takes the place of the other
    if found is not None:
        require(found, step.table, index.columns)
        if index.name in found.indexes:
            return []
    unique = "UNIQUE " if index.unique else ""
    name = compiler.quote(str(index.name))
    columns = ", ".join(map(compiler.quote, index.columns))
    return [
        Statement(
            sql=f"ALTER TABLE {compiler.table(step.table, step.schema)} ADD {unique}INDEX {name} ({columns}),"
            " ALGORITHM=INPLACE, LOCK=NONE",
            lock="SHARED_UPGRADABLE metadata lock, EXCLUSIVE metadata lock for a moment at both ends;"
            " ALGORITHM=INPLACE, LOCK=NONE (writers go on)",
        )
    ]


def drop(work: Remaining, compiler: Compiler) -> list[Statement]:
    """Drop indexes in a hold, before any column under them: that could not be dropped instantly then (error 1845)."""
    indexes = [index for index in work.drop_indexes if not index.primary]
    if not indexes:
        return []
    parts = ", ".join(f"DROP INDEX {compiler.quote(str(index.name))}" for index in indexes)
    sql = f"ALTER TABLE {compiler.table(work.table, work.schema)} {parts}, ALGORITHM=INPLACE"
    return [Statement(sql=sql, lock="EXCLUSIVE metadata lock, ALGORITHM=INPLACE (no rows are read)")]


def problems(
    item: Installed, found: Found, types: Mapping[str, sa.types.TypeEngine[Any]], compiler: Compiler
) -> Iterator[Problem]:
    """What the server would refuse, at a time when it would be too late to know."""
    for index in item.built:
        for name in index.columns if index.is_plain else ():
            text = compiler.type_text(types[name])
            if _LONG.match(text.upper()):
                yield Problem(
                    code="CF205",
                    what=f"{index.name} cannot stand on {item.table}.{name}, which is {text}.",
                    why="the server indexes only the beginning of such a value, and LOCK=NONE not even that.",
                    instead="give the column a length (a VARCHAR of at most 768 characters).",
                )
    for index in item.replaced:
        if found.details.get("expressions", {}).get(str(index.name), (False, ""))[0]:
            yield Problem(
                code="CF205",
                what=f"{index.title} of {item.table} cannot be dropped in place: it is unique, over an expression.",
                why="MySQL copies the table for that while writers wait (9.7: error 1846).",
                instead="drop it at a quiet time, in a revision of its own, first.",
            )
        # Without a primary key, rows are stored by the first unique index whose columns are all NOT NULL (manual,
        # InnoDB, Clustered and Secondary Indexes).
        stores = index.unique and not any(found.columns.get(name, True) for name in index.columns)
        has_key = item.key.new if item.key else "PRIMARY" in found.indexes
        if stores and not has_key:
            yield Problem(
                code="CF205",
                what=f"{index.title} of {item.table} cannot be dropped in place: the table has no primary key.",
                why="its rows are stored by that index, so dropping it copies the table while writers wait.",
                instead="give the table a primary key in a revision of its own, first.",
            )
