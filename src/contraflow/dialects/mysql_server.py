"""What is read of a server of MySQL's kind: who it is, what an upgrade lacks there, what stands there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import sqlalchemy as sa

from contraflow.dialects import mysql_constraints, mysql_keys, readers
from contraflow.dialects.base import Adapter, Found, Profile
from contraflow.dialects.dependents import mysql_dependents
from contraflow.dialects.mysql_text import Grants
from contraflow.installed import Installed
from contraflow.problems import Problem

__all__ = ["MySQLServer"]

_SETTINGS = (
    "binlog_format",
    "log_bin",
    "log_bin_trust_function_creators",
    "lower_case_table_names",
    "read_only",
    "super_read_only",
    "wsrep_on",
)
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "ALTER", "CREATE", "DROP", "TRIGGER", "LOCK TABLES")


class MySQLServer(Adapter):
    """The half of :class:`~contraflow.dialects.mysql.MySQLAdapter` that reads the server, and prepares the session."""

    clustered: ClassVar[bool] = False

    # -- the server --------------------------------------------------------------------------------

    @classmethod
    def matches(cls, connection: sa.Connection) -> Profile | None:
        """See :meth:`Adapter.matches`."""
        if connection.dialect.name not in ("mysql", "mariadb"):
            return None
        version = str(connection.exec_driver_sql("SELECT VERSION()").scalar_one())
        names = ", ".join(f"'{name}'" for name in _SETTINGS)
        settings = connection.exec_driver_sql(f"SHOW VARIABLES WHERE Variable_name IN ({names})")
        database = connection.exec_driver_sql("SELECT DATABASE()").scalar()
        profile = Profile(
            product="mariadb" if "mariadb" in version.lower() else "mysql",
            version=_version(version),
            settings={
                **{str(name).lower(): str(value).upper() for name, value in settings},
                "default_schema": str(database or ""),
            },
        )
        return profile if cls.serves(profile) else None

    @classmethod
    def serves(cls, profile: Profile) -> bool:
        """See :meth:`Adapter.serves`."""
        return profile.product == cls.product and (_on(profile.settings, "wsrep_on") is cls.clustered)

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
        grants = Grants(str(line) for (line,) in connection.exec_driver_sql("SHOW GRANTS"))
        me = str(connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one())
        user, _, host = me.rpartition("@")
        account = f"'{user}'@'{host}'"
        settings = self.profile.settings
        problems = []
        if any(_on(settings, name) for name in ("read_only", "super_read_only")):
            problems.append(Problem(code="CF205", what="the server is read-only.", instead="connect to the primary."))
        if (
            _on(settings, "log_bin")
            and not _on(settings, "log_bin_trust_function_creators")
            and not grants.allows("SUPER")
        ):
            problems.append(
                Problem(
                    code="CF202",
                    what=f"{me} may not create triggers while the binary log is on (error 1419).",
                    why="the server asks for SUPER, or for its trust in those who create triggers.",
                    instead="SET GLOBAL log_bin_trust_function_creators = 1; (and in my.cnf)"
                    f"\nor: GRANT SUPER ON *.* TO {account};",
                )
            )
        default = str(settings.get("default_schema", ""))
        for schema, table in tables or [(None, "")]:
            database = schema or default
            missing = [name for name in _PRIVILEGES if not grants.allows(name, database, table)]
            if missing:
                problems.append(
                    Problem(
                        code="CF202",
                        what=f"{me} lacks {', '.join(missing)} on {database}.",
                        why="the upgrade alters tables, creates triggers and keeps a journal there.",
                        instead=f"GRANT {', '.join(missing)} ON {self.compiler.quote(database)}.* TO {account};",
                    )
                )
            problems += self._table_problems(connection, table, schema)
        return list(dict.fromkeys(problems))

    def _table_problems(self, connection: sa.Connection, table: str, schema: str | None) -> list[Problem]:
        where = "WHERE table_name = :table AND table_schema = coalesce(:schema, database())"
        named = {"table": table, "schema": schema}
        kind = sa.text(f"SELECT engine, table_type FROM information_schema.tables {where} AND engine IS NOT NULL")
        row = connection.execute(kind, named).first()
        if row is None:  # no table, or a view
            return []
        columns = sa.text(
            f"SELECT column_name, data_type, column_key, column_default FROM information_schema.columns {where}"
        )
        name = self.compiler.table(table, schema)
        return [
            Problem(code="CF205", what=what, why=why, instead=instead)
            for what, why, instead in (
                *self._kinds_refused(table, name, *row),
                *(
                    refusal
                    for column in connection.execute(columns, named)
                    for refusal in self._refused(table, *column)
                ),
            )
        ]

    def _kinds_refused(self, table: str, name: str, engine: str, kind: str) -> Iterator[tuple[str, str, str]]:
        """What, why and the way out where no table of this kind can be upgraded."""
        if engine.lower() != "innodb":
            yield (
                f"{table} is stored in {engine}.",
                "only InnoDB has transactions, instant DDL and row locks.",
                f"ALTER TABLE {name} ENGINE = InnoDB; at a quiet time.",
            )
        if kind == "SYSTEM VERSIONED":  # MariaDB's
            yield (
                f"{table} is system-versioned.",
                "the server alters no such table (system_versioning_alter_history).",
                f"ALTER TABLE {name} DROP SYSTEM VERSIONING; and ADD it again once the upgrade is contracted.",
            )

    def _refused(
        self, table: str, column: str, type_: str, key: str, default: str | None
    ) -> Iterator[tuple[str, str, str]]:
        """The same, because of one of its columns."""
        if key == "PRI" and type_.lower() == "float":
            yield (
                f"the primary key of {table} has the FLOAT column {column}.",
                "the server shows 6 digits of such a value, by which its row is not found again.",
                "make it DOUBLE or DECIMAL in a revision before this one.",
            )
        if self.product == "mariadb" and str(default).lower().startswith(("nextval(", "lastval(")):
            yield (
                f"the default of {table}.{column} asks a sequence.",
                "phases run under LOCK TABLES, and the server alters no such table then (error 1100).",
                "let AUTO_INCREMENT or the application number the rows, in a revision before this one.",
            )

    def table_problems(self, connection: sa.Connection, item: Installed) -> list[Problem]:
        """See :meth:`Adapter.table_problems`."""
        grants = Grants(str(line) for (line,) in connection.exec_driver_sql("SHOW GRANTS"))
        database = self._database(item.schema)
        if item.renamed is None or grants.allows("CREATE VIEW", database):
            return []
        return [
            Problem(
                code="CF202",
                what=f"the privilege CREATE VIEW on {database} is missing.",
                why=f"{item.table} is known as {item.renamed}, too, while both releases run.",
                instead=f"GRANT CREATE VIEW ON {self.compiler.quote(database)}.* TO CURRENT_USER();",
            )
        ]

    def _database(self, schema: str | None) -> str:
        """The database of a table, by its name; that of the connection if the table has no schema."""
        return schema or str(self.profile.settings.get("default_schema", ""))

    def dependents(self, connection: sa.Connection, installed: Installed) -> Iterable[tuple[str, str]]:
        """See :meth:`Adapter.dependents`."""
        return mysql_dependents(
            connection,
            database=self._database(installed.schema),
            table=installed.table,
            columns=installed.dropped,
            own=installed.sync,
            replaced=installed.replaced,
        )

    def table_readers(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.table_readers`. Views and triggers know tables by their names."""
        return readers.mysql_table_readers(
            connection,
            database=self._database(installed.schema),
            table=installed.table,
            alias=installed.renamed,
        )

    def routines(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.routines`."""
        return readers.mysql_routines(
            connection,
            database=self._database(installed.schema),
            table=installed.table,
            columns=installed.dropped,
            whole=installed.removed or installed.renamed is not None,
        )

    def prepare(self, connection: sa.Connection) -> None:
        """See :meth:`Adapter.prepare`. A trigger keeps the sql_mode and character set of its creator's session."""
        dbapi: Any = connection.connection.dbapi_connection
        # The driver must know the character set too, it encodes by it.
        if hasattr(dbapi, "set_character_set"):
            dbapi.set_character_set("utf8mb4")
        else:
            connection.exec_driver_sql("SET NAMES utf8mb4")
        # Strict, so that the sync never stores a cut or changed value; but an old release's zero dates stay allowed.
        connection.exec_driver_sql("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
        connection.exec_driver_sql("SET SESSION time_zone = '+00:00'")
        connection.exec_driver_sql("SET SESSION sql_safe_updates = 0, sql_quote_show_create = 1")
        if not (_on(self.profile.settings, "log_bin") and self.profile.settings.get("binlog_format") == "STATEMENT"):
            # Without gap locks a backfill does not keep INSERTs out. Statement logging forbids it (error 1665).
            connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self._prepare_more(connection)

    def _prepare_more(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET SESSION max_execution_time = 0")

    def server_time(self, connection: sa.Connection) -> float:
        """See :meth:`Adapter.server_time`."""
        return float(connection.exec_driver_sql("SELECT UNIX_TIMESTAMP(SYSDATE(6))").scalar_one())

    # -- what stands there -------------------------------------------------------------------------

    def find(self, connection: sa.Connection, table: str, schema: str | None) -> Found:
        """See :meth:`Adapter.find`. Works inside a hold: information_schema needs no lock."""
        name = {"table": table, "schema": schema}

        def rows(query: str) -> list[Any]:
            given = {key: value for key, value in name.items() if f":{key}" in query}
            return list(connection.execute(sa.text(query), given).all())

        tables = rows(
            "SELECT row_format, table_comment FROM information_schema.tables WHERE table_name = :table"
            " AND table_schema = coalesce(:schema, database()) AND table_type = 'BASE TABLE'"
        )
        names = rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = coalesce(:schema, database())"
        )
        around = frozenset(str(other) for (other,) in names)
        if not tables:
            return Found(exists=False, names=around)
        columns = rows(
            "SELECT column_name, is_nullable, column_default, extra,"
            " character_octet_length / nullif(character_maximum_length, 0), column_type, column_comment"
            " FROM information_schema.columns"
            " WHERE table_name = :table AND table_schema = coalesce(:schema, database())"
            " ORDER BY ordinal_position"
        )
        triggers = rows(
            "SELECT trigger_name, action_statement FROM information_schema.triggers"
            " WHERE event_object_table = :table AND event_object_schema = coalesce(:schema, database())"
        )
        indexes = rows(
            "SELECT DISTINCT index_name, index_type FROM information_schema.statistics WHERE table_name = :table"
            " AND table_schema = coalesce(:schema, database()) ORDER BY index_name"
        )
        kinds = {str(type_) for _, type_ in indexes}
        fulltext = "FULLTEXT" in kinds
        virtual = frozenset(str(column) for column, _, _, extra, *_ in columns if _is_virtual(extra))
        # MariaDB's; a key of the table that stands on what is computed when it is read.
        indexed = self.product == "mariadb" and not virtual.isdisjoint(
            str(name)
            for (name,) in rows(
                "SELECT column_name FROM information_schema.statistics WHERE table_name = :table"
                " AND table_schema = coalesce(:schema, database())"
            )
        )
        obstacles = (
            (fulltext, "a FULLTEXT index"),
            ("SPATIAL" in kinds, "a SPATIAL index"),
            (indexed, "an index on a column that is computed when it is read"),
        )
        charsets = rows(
            "SELECT character_set_name FROM information_schema.columns WHERE table_name = :table"
            " AND table_schema = coalesce(:schema, database()) AND character_set_name IS NOT NULL"
            " UNION SELECT substring_index(table_collation, '_', 1) FROM information_schema.tables"
            " WHERE table_name = :table AND table_schema = coalesce(:schema, database())"
        )
        instant = str(tables[0][0]).lower() != "compressed" and not fulltext and not indexed
        shown = connection.exec_driver_sql(
            f"SHOW CREATE TABLE {self.compiler.table(table, schema)}", execution_options={"no_parameters": True}
        )
        create = str(shown.one()[1])
        return Found(
            exists=True,
            columns={str(column): nullable == "YES" for column, nullable, *_ in columns},
            triggers={str(trigger): str(text) for trigger, text in triggers},
            indexes={str(name): "index" for name, _ in indexes},
            names=around,
            details={
                "create": create,
                "comment": _words(tables[0][1]) or None,
                "comments": {str(column): _words(text) for column, *_, text in columns if text},
                "types": {
                    str(column): self._type(str(column), _words(type_), create) for column, *_, type_, _ in columns
                },
                "widths": {str(column): int(width) for column, *_, width, _, _ in columns if width},
                "defaults": frozenset(
                    str(column) for column, _, default, extra, *_ in columns if self._has_default(default, str(extra))
                ),
                "invisible": frozenset(
                    str(column) for column, _, _, extra, *_ in columns if "INVISIBLE" in str(extra).upper()
                ),
                "default_texts": {str(name): _words(text) for name, _, text, *_ in columns if text is not None},
                "generated": frozenset(
                    str(column) for column, _, _, extra, *_ in columns if " GENERATED" in str(extra).upper()
                ),
                "virtual": virtual,
                "stored": any("STORED GENERATED" in str(extra).upper() for _, _, _, extra, *_ in columns),
                "on_update": tuple(
                    str(column) for column, _, _, extra, *_ in columns if "on update" in str(extra).lower()
                ),
                "obstacle": next((text for stands, text in obstacles if stands), ""),
                "utf8mb4": {_words(charset) for (charset,) in charsets} == {"utf8mb4"},
                "expressions": self._expressions(rows),
                "instant": instant and not self._is_worn(connection, table, schema),
                **mysql_constraints.find(connection, table, schema),
                **mysql_keys.find(connection, table, schema),
            },
        )

    def _expressions(self, rows: Callable[[str], list[Any]]) -> dict[str, tuple[bool, str]]:
        """The indexes over expressions: whether they are unique, and all parts of their keys."""
        found = rows(
            "SELECT index_name, max(non_unique), group_concat(coalesce(expression, column_name)"
            " ORDER BY seq_in_index SEPARATOR ', ') FROM information_schema.statistics WHERE table_name = :table"
            " AND table_schema = coalesce(:schema, database()) GROUP BY index_name HAVING count(expression) > 0"
        )
        return {str(name): (not other, str(text)) for name, other, text in found}

    def _type(self, column: str, type_: str, create: str) -> str:  # noqa: ARG002 - for MariaDB
        return type_

    def _has_default(self, default: object, extra: str) -> bool:
        return default is not None or "DEFAULT_GENERATED" in extra

    def _is_worn(self, connection: sa.Connection, table: str, schema: str | None) -> bool:
        """Whether the table has had so many instant changes that the server will soon refuse the next."""
        try:
            versions = connection.execute(
                sa.text(
                    "SELECT total_row_versions FROM information_schema.innodb_tables"
                    " WHERE name = concat(coalesce(:schema, database()), '/', :table)"
                ),
                {"table": table, "schema": schema},
            ).scalar()
        except sa.exc.DBAPIError:
            return False  # needs PROCESS; the server itself then refuses, and send() tells why
        # 64 of them are allowed, 255 since MySQL 9.1; a few are left for this upgrade.
        limit = 250 if self.profile.version >= (9, 1) else 60
        return versions is not None and int(versions) >= limit


def _version(text: str) -> tuple[int, ...]:
    # "5.5.5-10.11.18-MariaDB" is how old replication protocols spell it; the real one stands last.
    parts = [part for part in text.split("-") if part[:1].isdigit() and "." in part]
    number = parts[1] if len(parts) > 1 and parts[0] == "5.5.5" else parts[0]
    return tuple(int(part) for part in number.split(".") if part.isdigit())


def _is_virtual(extra: object) -> bool:
    return "VIRTUAL GENERATED" in str(extra).upper()


def _on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "").upper() in ("ON", "1")


def _words(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
