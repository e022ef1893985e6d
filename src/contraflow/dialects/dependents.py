"""What else in a database reads a column: all that dropping it would break, or silently drop.

Most servers refuse to drop it, at contract, where there is no way back; PostgreSQL silently drops indexes with it; on
MySQL and MariaDB views and triggers fail from then on (1356, 1054). So contract asks before it begins. What reads a
column by other means (dynamic SQL, routines, triggers of other tables) is not found.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Check, Constraint, ForeignKey
from contraflow.dialects import sqlite_text
from contraflow.dialects.pair import PREFIX, is_own
from contraflow.dialects.sqlite_trial import empty_copy, in_the_way, quoted
from contraflow.installed import Index

__all__ = ["mysql_dependents", "postgresql_dependents", "postgresql_readers", "sqlite_dependents"]

Dependents = Iterator[tuple[str, str]]
"""Column, and what reads it, in words."""


def postgresql_dependents(
    connection: sa.Connection,
    *,
    oid: int,
    columns: Sequence[str],
    own: str | None,
    replaced: Sequence[Index | Constraint] = (),
) -> Dependents:
    """From ``pg_depend``, and the texts of the trigger functions of the table, which are not in it.

    ``own`` is the stem of the sync's triggers. What is ``replaced`` goes before the columns; a sequence goes with its
    column, or over to the one whose default draws from it.
    """
    found = connection.execute(
        sa.text(
            "SELECT a.attname AS column, pg_describe_object(d.classid, d.objid, d.objsubid) AS object,"
            " CAST(CAST(w.ev_class AS regclass) AS text) AS view,"
            " CASE WHEN c.relkind IN ('i', 'I') OR n.conrelid = :oid THEN coalesce(n.conname, c.relname) END AS index"
            " FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
            " LEFT JOIN pg_rewrite w ON d.classid = CAST('pg_rewrite' AS regclass) AND w.oid = d.objid"
            " LEFT JOIN pg_class c ON d.classid = CAST('pg_class' AS regclass) AND c.oid = d.objid AND d.objsubid = 0"
            " LEFT JOIN pg_attrdef f ON d.classid = CAST('pg_attrdef' AS regclass) AND f.oid = d.objid"
            " LEFT JOIN pg_constraint n ON d.classid = CAST('pg_constraint' AS regclass) AND n.oid = d.objid"
            " LEFT JOIN pg_trigger t ON d.classid = CAST('pg_trigger' AS regclass) AND t.oid = d.objid"
            " WHERE d.refclassid = CAST('pg_class' AS regclass) AND d.refobjid = :oid AND NOT a.attisdropped"
            # Its own default and NOT NULL (a constraint from PostgreSQL 18 on) go with the column.
            " AND NOT coalesce(f.adrelid = :oid AND f.adnum = a.attnum, false)"
            " AND NOT coalesce(n.conrelid = :oid AND n.contype = 'n', false)"
            " AND coalesce(c.relkind, 'r') <> 'S'"
            " AND NOT coalesce(starts_with(CAST(t.tgname AS text), CAST(:own AS text)), false)"
            f" AND NOT coalesce(starts_with(CAST(t.tgname AS text), '{PREFIX}'), false)"
            " UNION SELECT attname, 'the parent table', NULL, NULL FROM pg_attribute"
            " WHERE attrelid = :oid AND attinhcount > 0 AND NOT attisdropped ORDER BY 1, 2"
        ),
        {"oid": oid, "own": own},
    ).mappings()
    for row in found:
        if row["column"] not in columns or row["index"] in {str(index.name) for index in replaced}:
            continue
        yield (
            row["column"],
            f"view {row['view']}" if row["view"] else re.sub(r"^(trigger .+) on table .+$", r"\1", row["object"]),
        )
    triggers = connection.execute(
        sa.text(
            "SELECT t.tgname, p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE t.tgrelid = :oid AND NOT t.tgisinternal"
            " AND NOT coalesce(starts_with(CAST(t.tgname AS text), CAST(:own AS text)), false)"
            f" AND NOT starts_with(CAST(t.tgname AS text), '{PREFIX}') ORDER BY 1"
        ),
        {"oid": oid, "own": own},
    )
    yield from _triggers(list(triggers), columns, '"')


def postgresql_readers(connection: sa.Connection, *, oid: int, columns: Sequence[str]) -> Dependents:
    """What keeps a column from changing its type, but for the table's own keys, constraints and plain indexes.

    Views and rules, generated columns, policies, triggers, keys of other tables, partitions and children; and indexes
    over an expression or a part of the rows, which the server would build anew.
    """
    plain = connection.execute(
        sa.text(
            "SELECT c.relname, n.conname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " LEFT JOIN pg_constraint n ON n.conindid = c.oid AND n.conrelid = :oid"
            " WHERE i.indrelid = :oid AND i.indexprs IS NULL AND i.indpred IS NULL"
        ),
        {"oid": oid},
    )
    standing = [Index(name=str(name or index), columns=()) for index, name in plain]
    yield from postgresql_dependents(connection, oid=oid, columns=columns, own=None, replaced=standing)


def mysql_dependents(
    connection: sa.Connection,
    *,
    database: str,
    table: str,
    columns: Sequence[str],
    own: str | None,
    replaced: Sequence[Index] = (),
) -> Dependents:
    """From ``information_schema``, where MySQL and MariaDB keep expressions with every name in backticks.

    What is ``replaced`` goes before the columns.
    """
    gone = {_index_title(index.name) for index in replaced}
    quoted = {column: _backticks(column) for column in columns}
    schema = _Schema(connection, database, table)
    for reader, expression in (*_mysql_columns(schema, columns), *_mysql_expressions(schema)):
        if reader in gone:
            continue
        for column, name in quoted.items():
            # MariaDB's JSON type is a CHECK of the column, and goes with it.
            if name.lower() in expression.lower() and expression.lower() != f"json_valid({name.lower()})":
                yield column, reader
    triggers = schema.rows(
        "SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS"
        " WHERE EVENT_OBJECT_SCHEMA = :database AND EVENT_OBJECT_TABLE = :table ORDER BY TRIGGER_NAME"
    )
    named = [(row["TRIGGER_NAME"], row["ACTION_STATEMENT"]) for row in triggers]
    yield from _triggers([(name, text) for name, text in named if not is_own(name, own)], columns, "`")
    short, full = _backticks(table), f"{_backticks(database)}.{_backticks(table)}"
    for row in schema.rows("SELECT TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS ORDER BY TABLE_NAME"):
        definition = str(row["VIEW_DEFINITION"] or "").lower()
        aliases = re.findall(re.escape(full.lower()) + r"(?: (`(?:[^`]|``)+`))?", definition)
        prefixes = {alias for alias in aliases if alias} | ({full, short} if "" in aliases else set())
        for column, name in quoted.items():
            if any(f"{prefix}.{name}".lower() in definition for prefix in prefixes):
                yield column, f"view {row['TABLE_NAME']}"


@dataclass(frozen=True)
class _Schema:
    """Queries of ``information_schema`` about one table. The case of its column names differs between servers."""

    connection: sa.Connection
    database: str
    table: str

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows, by names in capitals. ``query`` may use ``:database`` and ``:table``."""
        values = {name: value for name, value in vars(self).items() if f":{name}" in query}
        found = self.connection.execute(sa.text(query), values).mappings()
        return [{str(name).upper(): value for name, value in row.items()} for row in found]


def _mysql_columns(schema: _Schema, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the other columns of the table are computed from."""
    for row in schema.rows(
        "SELECT * FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = :database AND TABLE_NAME = :table"
    ):
        if row["COLUMN_NAME"] not in columns:
            yield f"the generated column {row['COLUMN_NAME']}", str(row["GENERATION_EXPRESSION"] or "")
            default = str(row["COLUMN_DEFAULT"] or "")
            yield f"the default of {row['COLUMN_NAME']}", "" if default.startswith("'") else default


def _mysql_expressions(schema: _Schema) -> Iterator[tuple[str, str]]:
    """MySQL's functional indexes, the partitioning, MariaDB's checks of a column (SQLAlchemy reflects none of them)."""
    here = "WHERE TABLE_SCHEMA = :database AND TABLE_NAME = :table"
    for row in schema.rows(f"SELECT * FROM information_schema.STATISTICS {here}"):
        yield _index_title(row["INDEX_NAME"]), str(row.get("EXPRESSION") or "")
    for row in schema.rows(f"SELECT DISTINCT PARTITION_EXPRESSION FROM information_schema.PARTITIONS {here}"):
        yield "the partitioning", str(row["PARTITION_EXPRESSION"] or "")
    for row in schema.rows("SELECT * FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = :database"):
        if row.get("TABLE_NAME") == schema.table and row.get("LEVEL") == "Column":
            yield f"the CHECK of {row['CONSTRAINT_NAME']}", str(row["CHECK_CLAUSE"])


def _index_title(name: str | None) -> str:
    return f"the index {name}"


def sqlite_dependents(
    connection: sa.Connection,
    *,
    table: str,
    schema: str | None,
    columns: Sequence[str],
    own: str | None,
    replaced: Sequence[Index | Constraint] = (),
) -> Dependents:
    """By trying: the columns are dropped from an empty copy of the schema, in memory, without what is ``replaced``."""
    gone = {index.name for index in replaced}

    def text(name: str, sql: str) -> str | None:
        if name in gone:
            return None
        return _without(sql, replaced) if name == table else sql

    with empty_copy(connection, schema, own, text) as copy:
        for column in columns:
            statement = f"ALTER TABLE {quoted(table)} DROP COLUMN {quoted(column)}"
            # What else it may fail of is a key or a plain index, which the plan has named.
            for kind, name in in_the_way(copy, statement, "view|trigger|index|table"):
                yield column, f"a generated column or a CHECK of {name}" if kind == "table" else f"{kind} {name}"


def _without(sql: str, replaced: Sequence[Index | Constraint]) -> str:
    """The table's text without the constraints that go."""
    for gone in replaced:
        with contextlib.suppress(ValueError):  # it stands apart from the text
            if isinstance(gone, (Check, ForeignKey)):
                sql = sqlite_text.drop_constraint(sql, gone)
            elif isinstance(gone, Index):
                sql = sqlite_text.drop_unique(sql, gone.columns if gone.constraint else ())
    return sql


def _triggers(triggers: Sequence[Any], columns: Sequence[str], mark: str) -> Dependents:
    for name, text in triggers:
        for column in columns:
            pattern = rf"\b(?:new|old)\s*\.\s*{mark}?{re.escape(column)}{mark}?(?![\w$])"
            if re.search(pattern, str(text), re.IGNORECASE):
                yield column, f"trigger {name}"


def _backticks(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
