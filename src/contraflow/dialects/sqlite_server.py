"""What is read of an SQLite database: its version, what an upgrade lacks, what stands there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from contraflow.dialects import data, readers, sqlite_keys, sqlite_text
from contraflow.dialects.base import Adapter, Found, Profile
from contraflow.dialects.dependents import sqlite_dependents
from contraflow.dialects.remaining import index_name
from contraflow.dialects.sqlite_synced import contrary_triggers
from contraflow.installed import Index, Installed
from contraflow.problems import Problem
from contraflow.syncs import Synced

__all__ = ["SQLiteServer", "is_made"]


class SQLiteServer(Adapter):
    """The half of :class:`~contraflow.dialects.sqlite.SQLiteAdapter` that reads the database, and prepares the
    session.
    """

    @classmethod
    def matches(cls, connection: sa.Connection) -> Profile | None:
        """See :meth:`Adapter.matches`."""
        if connection.dialect.name != "sqlite":
            return None
        version = str(connection.exec_driver_sql("SELECT sqlite_version()").scalar())
        journal = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())
        return Profile(
            product=cls.product,
            version=tuple(int(part) for part in version.split(".")),
            settings={"journal_mode": journal, "default_schema": "main"},
        )

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
        problems = []
        read_only = bool(connection.exec_driver_sql("PRAGMA query_only").scalar())
        if read_only:
            problems.append(
                Problem(
                    code="CF205",
                    what="the connection is read-only (PRAGMA query_only).",
                    instead="connect without it.",
                )
            )
        if not read_only and not self._may_edit_schema(connection):
            problems.append(
                Problem(
                    code="CF205",
                    what="this build of SQLite opens databases in defensive mode.",
                    why="NOT NULL cannot be relaxed or set without editing sqlite_schema (PRAGMA writable_schema).",
                    instead="use a Python whose sqlite3 leaves SQLITE_DBCONFIG_DEFENSIVE off.",
                )
            )
        for schema, table in tables:
            sql = self._table_sql(connection, table, schema)
            if sql is not None and sql.lstrip().upper().startswith("CREATE VIRTUAL"):
                problems.append(
                    Problem(
                        code="CF205",
                        what=f"{table} is a virtual table.",
                        why="SQLite has no triggers on virtual tables.",
                        instead="move the columns to an ordinary table first.",
                    )
                )
            elif sql is not None:
                problems += self._rows_not_found(connection, table, schema)
        return problems

    def _rows_not_found(self, connection: sa.Connection, table: str, schema: str | None) -> Iterator[Problem]:
        """``CF205`` for a table whose rows cannot be told apart in the way of the triggers, or of the backfill."""
        found, quote = self.find(connection, table, schema), self.compiler.quote
        if "WITHOUT" in sqlite_text.options(found.details["sql"]):
            return
        if shadowing := [name for name in found.columns if name.lower() == "_rowid_"]:
            yield Problem(
                code="CF205",
                what=f"{table} has a column {shadowing[0]}.",
                why="that is SQLite's own name of a row's number, by which the triggers find the row that was written.",
                instead="give the column another name in a revision before this one.",
            )
        if key := [quote(name) for name in found.details["key"] if found.columns[name]]:
            without = " OR ".join(f"{name} IS NULL" for name in key)
            query = f"SELECT count(*) FROM {self.compiler.table(table, schema)} WHERE {without}"
            if rows := connection.exec_driver_sql(query).scalar_one():
                yield Problem(
                    code="CF205",
                    what=f"{rows} rows of {table} have NULL in their primary key.",
                    why="SQLite lets that be; the backfill goes through the table by its key, and does not find them.",
                    instead=f"give these rows a key: UPDATE {table} SET {key[0]} = ... WHERE {without};",
                )

    def _may_edit_schema(self, connection: sa.Connection) -> bool:
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        try:
            connection.exec_driver_sql("UPDATE sqlite_schema SET sql = sql WHERE 0")
            allowed = True
        except sa.exc.DBAPIError as error:
            allowed = self.is_lock_timeout(error)  # a lock is asked for only once the statement is allowed
        # Not in a finally: whoever was interrupted here has lost the connection, and with it the setting.
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")
        return allowed

    def index_problems(
        self,
        connection: sa.Connection,
        item: Installed,
        types: Mapping[str, sa.types.TypeEngine[Any]],  # noqa: ARG002 - the interface's
    ) -> list[Problem]:
        """See :meth:`Adapter.index_problems`."""
        found = self.find(connection, item.table, item.schema)
        problems = []
        for index in item.replaced:
            if not is_made(index, found):
                continue
            try:
                sqlite_text.drop_unique(str(found.details["sql"]), index.columns)
            except ValueError as error:
                problems.append(_stays(index.title, item.table, str(error)))
        return problems

    def table_problems(self, connection: sa.Connection, item: Installed) -> list[Problem]:
        """See :meth:`Adapter.table_problems`."""
        if item.renamed is None:
            return []
        problems = []
        if not self.find(connection, item.table, item.schema).details.get("key", True):
            problems.append(
                Problem(
                    code="CF205",
                    what=f"{item.table} cannot be renamed live: it has no primary key.",
                    why="on SQLite a second table stands for the new name, and nothing would tell which rows belong"
                    " together.",
                    instead="keep the name, or give the table a primary key in an upgrade before.",
                )
            )
        problems += [
            Problem(
                code="CF205",
                what=f"{index.title} of {item.table} cannot be built while the table is renamed.",
                why="on SQLite a second table stands for the new name, and would not have it.",
                instead="build it in an upgrade of its own.",
            )
            for index in item.built
            if index.unique and not index.late
        ]
        return problems

    def key_problems(self, connection: sa.Connection, item: Installed) -> Iterable[Problem]:
        """See :meth:`Adapter.key_problems`."""
        return sqlite_keys.problems(item, self.find(connection, item.table, item.schema))

    def constraint_problems(
        self,
        connection: sa.Connection,
        item: Installed,
        types: Mapping[str, sa.types.TypeEngine[Any]],  # noqa: ARG002 - the interface's
    ) -> list[Problem]:
        """See :meth:`Adapter.constraint_problems`."""
        text = str(self.find(connection, item.table, item.schema).details["sql"])
        problems = []
        for gone in item.released:
            try:
                reason = None if sqlite_text.drop_constraint(text, gone) != text else "it is not found there"
            except ValueError as error:
                reason = str(error)
            if reason is not None:
                problems.append(_stays(gone.title, item.table, reason))
        return problems

    def contrary_triggers(self, connection: sa.Connection, synced: Synced) -> list[Problem]:
        """See :meth:`Adapter.contrary_triggers`."""
        return list(contrary_triggers(connection, synced))

    def dependents(self, connection: sa.Connection, installed: Installed) -> Iterable[tuple[str, str]]:
        """See :meth:`Adapter.dependents`."""
        return sqlite_dependents(
            connection,
            table=installed.table,
            schema=installed.schema,
            columns=installed.dropped,
            own=installed.sync or installed.alias,
            replaced=(*installed.replaced, *installed.released),
        )

    def table_readers(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.table_readers`."""
        return readers.sqlite_table_readers(
            connection,
            table=installed.table,
            schema=installed.schema,
            renamed=installed.renamed,
            own=installed.sync or installed.alias,
        )

    def prepare(self, connection: sa.Connection) -> None:
        """See :meth:`Adapter.prepare`. Transactions are begun by this adapter, never by Python's driver."""
        dbapi: Any = connection.connection.dbapi_connection
        if getattr(dbapi, "autocommit", True) is False:  # Python 3.12: a transaction is always open
            dbapi.autocommit = True
        dbapi.isolation_level = None

    def server_time(self, connection: sa.Connection) -> float:
        """See :meth:`Adapter.server_time`; to the millisecond."""
        days = connection.exec_driver_sql("SELECT julianday('now') - 2440587.5").scalar_one()
        return float(days) * 86400.0

    # -- what stands there -----------------------------------------------------------------------------

    def find(self, connection: sa.Connection, table: str, schema: str | None) -> Found:
        """See :meth:`Adapter.find`."""
        sql = self._table_sql(connection, table, schema)
        prefix = f"{self.compiler.quote(schema)}." if schema else ""
        around = connection.exec_driver_sql(f"SELECT name FROM {prefix}sqlite_schema WHERE type IN ('table', 'view')")
        names = frozenset(str(name) for (name,) in around)
        if sql is None:
            return Found(exists=False, names=names)
        columns, types, generated, key = {}, {}, set(), {}
        defaults: dict[str, str] = {}
        rows = connection.exec_driver_sql(f"PRAGMA {prefix}table_xinfo({self.compiler.quote(table)})")
        for row in rows.mappings():
            columns[str(row["name"])] = not row["notnull"]
            types[str(row["name"])] = _type_text(sql, str(row["name"]), str(row["type"]))
            if row["dflt_value"] is not None:
                defaults[str(row["name"])] = str(row["dflt_value"])
            if row["hidden"] in (2, 3):
                generated.add(str(row["name"]))
            if row["pk"]:
                key[int(row["pk"])] = str(row["name"])
        triggers = connection.execute(
            sa.text(
                f"SELECT name, sql FROM {data.escape(prefix)}sqlite_schema"
                " WHERE type = 'trigger' AND lower(tbl_name) = lower(:table) ORDER BY rowid"
            ),
            {"table": table},
        )
        version = connection.exec_driver_sql(f"PRAGMA {prefix}schema_version").scalar_one()
        indexes, unnamed = self._indexes(connection, table, prefix)
        keyed = any(kind == "constraint" and name not in unnamed for name, kind in indexes.items())
        return Found(
            exists=True,
            columns=columns,
            triggers={str(name): str(text) for name, text in triggers},
            indexes=indexes,
            names=names,
            details={
                "generated": frozenset(generated),
                "key": tuple(key[place] for place in sorted(key)),
                "unique_texts": self._unique_texts(connection, table, prefix),
                "index_texts": self._index_texts(connection, table, prefix),
                "sql": sql,
                "types": types,
                "schema_version": int(version),
                "defaults": frozenset(defaults),
                "default_texts": defaults,
                "unnamed": unnamed,
                "called": sqlite_text.called(sql),
                # Another name of the row's number, which no index has made, and which is never NULL.
                "never_null": () if keyed or "WITHOUT" in sqlite_text.options(sql) else tuple(key.values()),
                "expressions": self._expressions(connection, table, prefix),
                "collations": sqlite_text.collations(sql),
            },
        )

    def _indexes(
        self, connection: sa.Connection, table: str, prefix: str
    ) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Indexes by name; and the columns of those that UNIQUE in the table's text has made."""
        indexes, unnamed = {}, {}
        listed = connection.exec_driver_sql(f"PRAGMA {prefix}index_list({self.compiler.quote(table)})").mappings()
        for row in sorted(listed.all(), key=lambda row: str(row["name"])):
            name = str(row["name"])
            indexes[name] = "index" if row["origin"] == "c" else "constraint"
            if row["origin"] == "u":
                info = connection.exec_driver_sql(f"PRAGMA {prefix}index_info({self.compiler.quote(name)})").mappings()
                unnamed[name] = tuple(str(column["name"]) for column in info)
        return indexes, unnamed

    def _unique_texts(self, connection: sa.Connection, table: str, prefix: str) -> dict[str, str]:
        found = connection.execute(
            sa.text(
                f"SELECT i.name, i.sql FROM {data.escape(prefix)}sqlite_schema i"
                " JOIN pragma_index_list(:table) l ON l.name = i.name"
                " WHERE i.type = 'index' AND i.sql IS NOT NULL AND l.\"unique\""
            ),
            {"table": table},
        )
        return {str(name): str(text) for name, text in found}

    def _index_texts(self, connection: sa.Connection, table: str, prefix: str) -> tuple[str, ...]:
        found = connection.execute(
            sa.text(
                f"SELECT sql FROM {data.escape(prefix)}sqlite_schema"
                " WHERE type = 'index' AND sql IS NOT NULL AND lower(tbl_name) = lower(:table) ORDER BY rowid"
            ),
            {"table": table},
        )
        return tuple(str(text) for (text,) in found)

    def _expressions(self, connection: sa.Connection, table: str, prefix: str) -> dict[str, tuple[bool, str]]:
        """The indexes over expressions: SQLite has no names for these (PRAGMA index_info). Whether they are unique, and
        their texts behind the table.
        """
        found = connection.execute(
            sa.text(
                f'SELECT i.name, l."unique", i.sql FROM {data.escape(prefix)}sqlite_schema i'
                " JOIN pragma_index_list(:table) l ON l.name = i.name WHERE i.type = 'index' AND i.sql IS NOT NULL"
                " AND EXISTS (SELECT 1 FROM pragma_index_info(i.name) WHERE name IS NULL)"
            ),
            {"table": table},
        )
        return {str(name): (bool(unique), sqlite_text.key_of_index(str(text))) for name, unique, text in found}

    def _table_sql(self, connection: sa.Connection, table: str, schema: str | None) -> str | None:
        prefix = f"{data.escape(self.compiler.quote(schema))}." if schema else ""
        found = connection.execute(
            sa.text(f"SELECT sql FROM {prefix}sqlite_schema WHERE type = 'table' AND lower(name) = lower(:table)"),
            {"table": table},
        ).scalar()
        return None if found is None else str(found)


def is_made(index: Index, found: Found | None) -> bool:
    """Whether UNIQUE in the table's text has made the index."""
    return index.name is None if found is None else index_name(index, found) in found.details["unnamed"]


def _stays(title: str, table: str, reason: str) -> Problem:
    """``CF205`` for a constraint that cannot go."""
    return Problem(
        code="CF205",
        what=f"{title} of {table} cannot be taken out of the table's text.",
        why=f"{reason}.",
        instead="create the table anew with its constraints apart (PRAGMA foreign_keys = OFF, CREATE,"
        "\nINSERT ... SELECT, DROP, RENAME), in a revision of its own, first.",
    )


def _type_text(sql: str, name: str, declared: str) -> str:
    """The type as it is written in the table's text; ``declared`` (in capitals, for some) where that is not a list."""
    try:
        return sqlite_text.type_of(sql, name)
    except ValueError:
        return declared
