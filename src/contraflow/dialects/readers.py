"""What else in a database names a table, or a column of it: all that dropping or renaming it would break.

Views, and triggers of other tables, are known to the server, or can be read. Of routines only the text is: dynamic SQL
in it is not found, and a name in it may mean something else. So they are told apart from the others.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from contraflow.dialects.pair import PREFIX

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
    master = f'"{schema}".sqlite_master' if schema else "sqlite_master"
    texts = connection.exec_driver_sql(
        f"SELECT name, sql FROM {master} WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY type <> 'table', rowid"
    ).all()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        for name, sql in texts:
            if not (own and name.startswith(own)) and not name.startswith(PREFIX) and name != renamed:
                with contextlib.suppress(sqlite3.Error):  # a module or a collation that this connection does not have
                    copy.execute(sql)
        if renamed is not None:
            yield from _refusals(copy, table, renamed)
            return
        copy.execute("CREATE TABLE cf_any (x)")
        before = list(_refusals(copy, "cf_any", "cf_other"))
        copy.execute(f"DROP TABLE {_quoted(table)}")
        yield from (reader for reader in _refusals(copy, "cf_other", "cf_any") if reader not in before)


def _refusals(copy: sqlite3.Connection, table: str, name: str) -> Iterator[str]:
    while True:
        try:
            copy.execute(f"ALTER TABLE {_quoted(table)} RENAME TO {_quoted(name)}")
        except sqlite3.Error as error:
            match = re.match(r"error in (view|trigger) (.+?)(?: after rename)?: ", str(error))
            if match is None:
                return
            kind, reader = match.groups()
            yield f"{kind} {reader}"
            copy.execute(f"DROP {kind} {_quoted(reader)}")  # and look for the next one
        else:
            return


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
