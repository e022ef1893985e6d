"""Comments of tables and columns, changed without reading a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.mysql_text import is_copied_for_comment, literal, recommented
from contraflow.dialects.remaining import require
from contraflow.installed import Comment, Installed
from contraflow.problems import Problem
from contraflow.steps import AddColumns, Hold, MakeTable, NumberColumn, Phases, SetComments

__all__ = ["comment_on", "copied", "mysql_comments", "mysql_problems", "postgresql_comments"]

_LONGEST_OF_TABLE, _LONGEST_OF_COLUMN = 2048, 1024
"""Characters (errors 1628, 1629; MySQL manual, CREATE TABLE Statement)."""


def comment_on(kind: str, name: str, text: str | None) -> Statement:
    """PostgreSQL's statement; ``name`` is quoted, as it stands behind ``kind``."""
    to = "NULL" if text is None else plain_literal(text)
    return Statement(sql=f"COMMENT ON {kind} {name} IS {to}", lock="SHARE UPDATE EXCLUSIVE")


def postgresql_comments(step: SetComments, found: Found | None, compiler: Compiler) -> list[Statement]:
    """One statement a comment (https://www.postgresql.org/docs/current/sql-comment.html)."""
    table = compiler.table(step.table, step.schema)
    sent = [
        comment_on("TABLE", table, one.text)
        if one.column is None
        else comment_on("COLUMN", f"{table}.{compiler.quote(one.column)}", one.text)
        for one in _left(step, found)
    ]
    return [Statement(sql=statement.sql, lock=f"{statement.lock} (writers go on)") for statement in sent]


def mysql_comments(step: SetComments, found: Found | None, compiler: Compiler, *, table_way: str) -> list[Statement]:
    """One statement for all columns, each of which is defined anew as it stands, and one for the table.

    The server refuses them if they would store a row. ``table_way`` is what it says of the table's own comment, which
    MySQL 9.7 does not call INSTANT, though it does not build the table anew.
    """
    left = list(_left(step, found))
    alter = f"ALTER TABLE {compiler.table(step.table, step.schema)}"
    parts = [
        f"MODIFY COLUMN {compiler.quote(one.column)} "
        + (
            f"<its definition> COMMENT {literal(one.text or '')}"
            if found is None
            else recommented(found.details["create"], one.column, one.text)
        )
        for one in left
        if one.column is not None
    ]
    sent = [(f"{alter} {', '.join(parts)}", "ALGORITHM=INSTANT")] if parts else []
    sent += [(f"{alter} COMMENT = {literal(one.text or '')}", table_way) for one in left if one.column is None]
    return [Statement(sql=f"{sql}, {way}", lock=f"EXCLUSIVE metadata lock, {way}") for sql, way in sent]


def mysql_problems(phases: Phases, product: str) -> Iterator[Problem]:
    """``CF205`` for comments that the server would refuse or change: of what is new, and changed ones."""
    for title, longest, text in dict.fromkeys(_said(phases)):
        if len(text) > longest:
            yield Problem(
                code="CF205",
                what=f"the comment of {title} has {len(text)} characters; {product} keeps {longest}.",
                instead=f"say it in at most {longest} characters.",
            )
        if strange := next((character for character in text if ord(character) > 0xFFFF), None):
            yield Problem(
                code="CF205",
                what=f"the comment of {title} has the character {strange!r} in it (U+{ord(strange):X}).",
                why=f"{product} keeps comments in utf8mb3: it would store a question mark.",
                instead="write it without characters beyond U+FFFF.",
            )


def _said(phases: Phases) -> Iterator[tuple[str, int, str]]:
    """What each comment is of, its greatest length and its text."""
    for block in phases.expand:
        for step in block.steps if isinstance(block, Hold) else (block.step,):
            columns: list[sa.Column[Any]] = []
            if isinstance(step, MakeTable):
                yield step.table, _LONGEST_OF_TABLE, step.definition.comment or ""
                columns += step.definition.columns
            elif isinstance(step, AddColumns):
                columns += [addition.column for addition in step.columns]
            elif isinstance(step, NumberColumn) and step.column is not None:
                columns.append(step.column)
            for column in columns:
                yield f"{block.table}.{column.name}", _LONGEST_OF_COLUMN, column.comment or ""
    for item in phases.installed:
        for one in item.commented:
            if one.column is None:
                yield item.table, _LONGEST_OF_TABLE, one.text or ""
            else:
                yield f"{item.table}.{one.column}", _LONGEST_OF_COLUMN, one.text or ""


def copied(item: Installed, found: Found, product: str) -> Iterator[Problem]:
    """``CF205`` for comments that the server copies the table for. MySQL does so for none."""
    if product != "mariadb":
        return
    step = SetComments(table=item.table, schema=item.schema, comments=item.commented)
    for one in _left(step, found):
        indexed = any(one.column in index.columns for index in item.built)
        if one.column is not None and is_copied_for_comment(found.details["create"], one.column, indexed=indexed):
            yield Problem(
                code="CF205",
                what=f"the comment of {item.table}.{one.column} cannot be changed live on {product}.",
                why="for a column that it computes, if it stores it or has it in an index, and for one that is no JSON"
                "\nbut has CHECK (json_valid(...)) in its own definition, it copies the table while writers wait.",
                instead="change it at a quiet time, in a revision of its own: op.alter_column(..., comment=...).",
            )


def _left(step: SetComments, found: Found | None) -> Iterator[Comment]:
    """The comments that do not stand yet."""
    if found is not None:
        require(found, step.table, [one.column for one in step.comments if one.column is not None])
    details: Mapping[str, Any] = {} if found is None else found.details
    for one in step.comments:
        # What was recorded by an earlier version knows of no comments.
        known = "comments" in details
        standing = details.get("comment") if one.column is None else details.get("comments", {}).get(one.column)
        if not known or standing != one.text:
            yield one
