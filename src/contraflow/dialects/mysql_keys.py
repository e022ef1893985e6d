"""Primary keys of MySQL and MariaDB: the table is rebuilt in place, beside the writers.

Measured on MySQL 9.7 and MariaDB 10.11: ``ADD PRIMARY KEY``, and ``DROP PRIMARY KEY, ADD PRIMARY KEY`` in one
statement, take ``ALGORITHM=INPLACE, LOCK=NONE``; ``DROP PRIMARY KEY`` alone is a copy (error 1846), during which
writers wait (manual, InnoDB, Online DDL Operations, Primary Key Operations). A foreign key that refers to the old key
goes on with another unique index on its columns, and nothing has to be done for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.mysql_text import literal
from contraflow.dialects.remaining import key_is_due
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import ChangeKey, NumberColumn

__all__ = ["change", "find", "number", "problems"]

_ONLINE = (
    "SHARED_UPGRADABLE metadata lock, EXCLUSIVE metadata lock for a moment at both ends;"
    " ALGORITHM=INPLACE, LOCK=NONE (writers go on)"
)


def find(connection: sa.Connection, table: str, schema: str | None) -> dict[str, Any]:
    """The columns of the primary key, and the one that the server numbers."""
    name = {"table": table, "schema": schema}
    here = "table_schema = coalesce(:schema, database()) AND table_name = :table"
    key = connection.execute(
        sa.text(
            f"SELECT column_name FROM information_schema.statistics WHERE {here} AND index_name = 'PRIMARY'"
            " ORDER BY seq_in_index"
        ),
        name,
    ).scalars()
    numbered = connection.execute(
        sa.text(f"SELECT column_name FROM information_schema.columns WHERE {here} AND extra LIKE '%auto_increment%'"),
        name,
    ).scalar()
    return {"key": tuple(str(column) for column in key), "numbered": None if numbered is None else str(numbered)}


def change(step: ChangeKey, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statement that changes the key; none if it is changed. One that dies leaves nothing."""
    if not key_is_due(step, found):
        return []
    key = step.key
    drops = bool(key.old if found is None else found.details["key"])
    parts = ["DROP PRIMARY KEY"] if drops else []
    if not key.new:
        sql = f"ALTER TABLE {compiler.table(step.table, step.schema)} DROP PRIMARY KEY, ALGORITHM=COPY, LOCK=SHARED"
        return [Statement(sql=sql, lock="SHARED_NO_WRITE metadata lock: writers wait while the table is copied")]
    # One index serves for both; and a column with AUTO_INCREMENT is never without one.
    doubles = [index for index in step.doubles if found is None or index.name in found.indexes]
    parts += [f"DROP INDEX {compiler.quote(str(index.name))}" for index in doubles]
    parts.append(f"ADD PRIMARY KEY ({', '.join(map(compiler.quote, key.new))})")
    if key.retires:
        # In one statement: a column with AUTO_INCREMENT is never without an index, nor a new row without its number.
        parts += [f"DROP COLUMN {compiler.quote(name)}" for name in key.old if found is None or name in found.columns]
    return [
        Statement(
            sql=f"ALTER TABLE {compiler.table(step.table, step.schema)} {', '.join(parts)},"
            " ALGORITHM=INPLACE, LOCK=NONE",
            lock=_ONLINE,
        )
    ]


def number(step: NumberColumn, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statement of a stage. To number rows, the server reads all of them while none may be written (1846)."""
    one, quote = step.numbered, compiler.quote
    table = compiler.table(step.table, step.schema)
    stands = found is not None and one.column in found.columns
    if step.stage == "add" and step.column is not None and not stands:
        comment = literal(step.column.comment) if step.column.comment else ""
        type_ = compiler.type_text(step.column.type)
        definition = (
            f"{quote(one.column)} {type_} NOT NULL AUTO_INCREMENT INVISIBLE{f' COMMENT {comment}' if comment else ''}"
        )
        sql = f"ALTER TABLE {table} ADD COLUMN {definition}, ADD UNIQUE INDEX {quote(one.index)} ({quote(one.column)})"
        lock = "SHARED_NO_WRITE metadata lock: writers wait while the table is written anew"
        return [Statement(sql=f"{sql}, ALGORITHM=INPLACE, LOCK=SHARED", lock=lock)]
    if step.stage == "undo" and (found is None or stands):
        drops = [f"DROP INDEX {quote(one.index)}"] if found is None or one.index in found.indexes else []
        sql = f"ALTER TABLE {table} {', '.join([*drops, f'DROP COLUMN {quote(one.column)}'])}"
        return [Statement(sql=f"{sql}, ALGORITHM=INPLACE, LOCK=NONE", lock=_ONLINE)]
    return []


def problems(connection: sa.Connection, item: Installed, found: Found) -> Iterator[Problem]:
    """What the server would refuse, at a time when it would be too late to know."""
    key = item.key
    if key is None:
        return
    if obstacle := found.details["obstacle"]:
        yield Problem(
            code="CF205",
            what=f"the primary key of {item.table} cannot change beside its writers: it has {obstacle}.",
            why="the server rebuilds no table with such an index online (error 1846).",
            instead="drop that index in a revision before this one, and create it again in one after it.",
        )
    if item.numbered and not item.numbered.copies:
        yield Problem(
            code="CF205",
            what=f"{item.table}.{item.numbered.column} cannot be numbered beside the writers of {item.table}.",
            why="the server reads all rows while none may be written (error 1846), and no trigger knows the number of a"
            " new row (NEW holds 0 before the row is stored).",
            instead="accept the wait, for a small table: AddSurrogateKey(..., copies=True);"
            "\nor let the application fill the key: AddColumn(...), then DropPrimaryKey(...), AddPrimaryKey(...).",
        )
    if item.numbered and not key.old:
        yield Problem(
            code="CF205",
            what=f"the rows of {item.table} cannot be numbered: it has no primary key.",
            why="the server would number them in the order in which they are stored, which differs between replicas.",
            instead="give it a primary key first: AddPrimaryKey(...), in an upgrade before this one.",
        )
    if not key.new and not key.copies:
        yield Problem(
            code="CF205",
            what=f"the primary key of {item.table} cannot be dropped beside its writers.",
            why="its rows are stored by it, so the table is copied while writers wait (error 1846).",
            instead="let the change make another key: AddPrimaryKey(...);"
            f'\nor accept the wait, for a small table: DropPrimaryKey(table="{item.table}", copies=True).',
        )
    numbered = found.details["numbered"]
    if item.numbered and numbered not in (None, item.numbered.column):
        yield Problem(
            code="CF205",
            what=f"{item.table}.{item.numbered.column} cannot be numbered: {numbered} is.",
            why="a table has one column with AUTO_INCREMENT (error 1075).",
            instead=f"let {numbered} be the key: AddPrimaryKey(...).",
        )
    elif numbered in key.old and not key.retires:
        indexes = sa.inspect(connection).get_indexes(item.table, schema=item.schema)
        replaced = {index.name for index in item.replaced}
        leading = {index["column_names"][0] for index in indexes if index["name"] not in replaced}
        leading |= {index.columns[0] for index in item.built}
        if numbered not in leading:
            yield Problem(
                code="CF205",
                what=f"{item.table}.{numbered} cannot leave the primary key: the server numbers it.",
                why="a column with AUTO_INCREMENT must be the first one of some key (error 1075).",
                instead="give it an index or a unique constraint in the same change: AddUnique(...) or"
                " CreateIndex(...).",
            )
