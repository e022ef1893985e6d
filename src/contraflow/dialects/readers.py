"""What else in a database names a table, or a column of it: all that dropping or renaming it would break.

Views, and triggers of other tables, are known to the server, or can be read. Of routines only the text is: dynamic SQL
in it is not found, and a name in it may mean something else. So they are told apart from the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from contraflow.dialects.pair import PREFIX
from contraflow.dialects.sqlite_trial import empty_copy, in_the_way, quoted

__all__ = [
    "mysql_routines",
    "mysql_table_readers",
    "names_table",
    "postgresql_routines",
    "postgresql_table_readers",
    "sqlite_table_readers",
]


def names_table(text: str, table: str) -> bool:
    """Whether SQL names the table where a table's name stands, of whatever schema."""
    mark = '["`]?'
    before = r"(?<![\w$])(?:from|join|into|update|table|only|truncate|replace)\b[\s(]*"
    name = rf"(?:{mark}[\w$]+{mark}\s*\.\s*)?{mark}{re.escape(table)}{mark}(?![\w$\"`.])"
    return bool(re.search(before + name, text, re.IGNORECASE))


def _reads(text: str, table: str, columns: Sequence[str], *, whole: bool) -> bool:
    if not names_table(text, table):
        return False
    return whole or any(re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE) for name in columns)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgresql_table_readers(connection: sa.Connection, *, oid: int) -> Iterator[str]:
    """What keeps DROP TABLE from working: views, policies of other tables, functions that the server keeps parsed."""
    found = connection.execute(
        sa.text(
            "SELECT DISTINCT CASE WHEN w.oid IS NULL THEN pg_describe_object(d.classid, d.objid, 0)"
            " ELSE 'view ' || CAST(CAST(w.ev_class AS regclass) AS text) END AS reader"
            " FROM pg_depend d LEFT JOIN pg_rewrite w ON d.classid = CAST('pg_rewrite' AS regclass) AND w.oid = d.objid"
            " LEFT JOIN pg_policy p ON d.classid = CAST('pg_policy' AS regclass) AND p.oid = d.objid"
            " WHERE d.refclassid = CAST('pg_class' AS regclass) AND d.refobjid = :oid AND d.deptype = 'n'"
            " AND (w.ev_class <> :oid OR p.polrelid <> :oid OR d.classid = CAST('pg_proc' AS regclass)) ORDER BY 1"
        ),
        {"oid": oid},
    ).scalars()
    for reader in found:
        yield str(reader)


def postgresql_routines(connection: sa.Connection, *, table: str, columns: Sequence[str], whole: bool) -> Iterator[str]:
    """Functions and procedures whose text names the table, and with ``columns`` one of them."""
    found = connection.execute(
        sa.text(
            "SELECT CAST(CAST(p.oid AS regprocedure) AS text), p.prosrc FROM pg_proc p"
            " JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang"
            " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND l.lanname NOT IN ('c', 'internal')"
            " AND NOT starts_with(CAST(p.proname AS text), 'cf_')"
            f" AND NOT starts_with(CAST(p.proname AS text), '{PREFIX}') ORDER BY 1"
        )
    )
    for name, text in found:
        if _reads(str(text), table, columns, whole=whole):
            yield f"function {name}"


# --- MySQL, MariaDB ---------------------------------------------------------------------------------------------------


def mysql_table_readers(connection: sa.Connection, *, database: str, table: str, alias: str | None) -> Iterator[str]:
    """Views and triggers of other tables; ``alias`` is the table's own second name."""
    full = f"`{database.replace('`', '``')}`.`{table.replace('`', '``')}`".lower()
    views = connection.execute(
        sa.text("SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS ORDER BY 1, 2")
    )
    for schema, name, text in views:
        if full in str(text or "").lower() and (schema, name) != (database, alias):
            yield f"view {name}"
    triggers = connection.execute(
        sa.text(
            "SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS"
            " WHERE EVENT_OBJECT_SCHEMA = :database AND EVENT_OBJECT_TABLE <> :table ORDER BY 1"
        ),
        {"database": database, "table": table},
    )
    for name, text in triggers:
        if names_table(str(text), table) and not str(name).startswith(PREFIX):
            yield f"trigger {name}"


def mysql_routines(
    connection: sa.Connection, *, database: str, table: str, columns: Sequence[str], whole: bool
) -> Iterator[str]:
    """Routines and events whose text names the table; none that the user may not read."""
    found = connection.execute(
        sa.text(
            "SELECT lower(ROUTINE_TYPE), ROUTINE_NAME, ROUTINE_DEFINITION FROM information_schema.ROUTINES"
            " WHERE ROUTINE_SCHEMA = :database UNION ALL"
            " SELECT 'event', EVENT_NAME, EVENT_DEFINITION FROM information_schema.EVENTS"
            " WHERE EVENT_SCHEMA = :database ORDER BY 1, 2"
        ),
        {"database": database},
    )
    for kind, name, text in found:
        if _reads(str(text or ""), table, columns, whole=whole):
            yield f"{kind} {name}"


# --- SQLite -----------------------------------------------------------------------------------------------------------


def sqlite_table_readers(
    connection: sa.Connection, *, table: str, schema: str | None, renamed: str | None, own: str | None
) -> Iterator[str]:
    """By trying, on an empty copy of the schema in memory: a rename makes SQLite read all views and triggers anew.

    (https://www.sqlite.org/lang_altertable.html, from 3.25 on.) A renamed table's are changed with it; what reads
    something that was missing before would still keep it from being renamed, but not a table from being dropped.
    """

    def readers(old: str, new: str) -> list[str]:
        statement = f"ALTER TABLE {quoted(old)} RENAME TO {quoted(new)}"
        return [f"{kind} {name}" for kind, name in in_the_way(copy, statement, "view|trigger")]

    with empty_copy(connection, schema, own, lambda name, sql: None if name == renamed else sql) as copy:
        if renamed is not None:
            yield from readers(table, renamed)
            return
        copy.execute("CREATE TABLE cf_any (x)")
        before = readers("cf_any", "cf_other")
        copy.execute(f"DROP TABLE {quoted(table)}")
        yield from (reader for reader in readers("cf_other", "cf_any") if reader not in before)
