"""MySQL 8.0.29 and later, MariaDB 10.6 and later, and clusters of either on Galera.

DDL commits by itself. So the statements of a hold run under ``LOCK TABLES ... WRITE``, where no writer sees the table
between two of them, and in an order of which every prefix is harmless to both releases, in case the runner is killed
there. New columns are INVISIBLE until contract, so that statements of the old release that name no columns still work.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from contraflow.dialects import data, mysql_constraints, mysql_indexes, mysql_pairs, mysql_widening, readers
from contraflow.dialects.base import (
    Adapter,
    BackfillText,
    Found,
    LockTimeout,
    NotUnique,
    ProbeText,
    Profile,
    Statement,
    Violated,
)
from contraflow.dialects.compiler import Compiler, compiler_for
from contraflow.dialects.dependents import mysql_dependents
from contraflow.dialects.kinds import Kind
from contraflow.dialects.labels import mysql_labels
from contraflow.dialects.mysql_text import Grants, checks_time, filler, literal_default, redefined
from contraflow.dialects.mysql_watch import watching
from contraflow.dialects.opaque import trigger_statements
from contraflow.dialects.pair import pair_triggers
from contraflow.dialects.remaining import Remaining, remaining, still_nullable
from contraflow.dialects.sync import TriggerText
from contraflow.dialects.tables import MySQLTables
from contraflow.dialects.widening import Widened, differ, fill_text, held_problems
from contraflow.installed import Installed, Widening
from contraflow.problems import Problem, ProblemError
from contraflow.steps import (
    AllowNull,
    Backfill,
    BuildConstraint,
    BuildIndex,
    EnforceNotNull,
    ExtendEnums,
    Hold,
    InstallPair,
    Online,
    Pair,
    Probe,
    Sync,
    WidenColumns,
)

__all__ = ["GaleraAdapter", "MariaDBAdapter", "MySQLAdapter", "XtraDBClusterAdapter"]

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
_EXCLUSIVE = "EXCLUSIVE metadata lock"
_INTERRUPTED = 1317
_DUPLICATE = 1062
_VIOLATED = (1452, 3819, 4025)
"""A foreign key; a check on MySQL; a check on MariaDB."""
_NOT_INSTANT = (1845, 1846, 4092)


class MySQLAdapter(Adapter):
    """Oracle's MySQL and its builds (Percona Server)."""

    product = "mysql"
    floor: ClassVar[tuple[int, ...]] = (8, 0, 29)
    transactional_ddl: ClassVar[bool] = False
    clustered: ClassVar[bool] = False
    foreign_keys_need_indexes: ClassVar[bool] = True
    longest_name = (64, "characters")  # error 1059 (manual, Identifier Length Limits)
    rebuilds: ClassVar[bool] = True
    _growing: ClassVar[int] = 0
    """Up to so many bytes a VARCHAR may become one whose length is kept in two bytes."""
    proves_constraints: ClassVar[bool] = False
    cascades_fire_triggers: ClassVar[bool] = False

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
        engine = connection.execute(
            sa.text(
                "SELECT engine FROM information_schema.tables WHERE table_name = :table"
                " AND table_schema = coalesce(:schema, database()) AND table_type = 'BASE TABLE'"
            ),
            {"table": table, "schema": schema},
        ).scalar()
        if engine is None or str(engine).lower() == "innodb":
            return []
        return [
            Problem(
                code="CF205",
                what=f"{table} is stored in {engine}.",
                why="only InnoDB has transactions, instant DDL and row locks.",
                instead=f"ALTER TABLE {self.compiler.table(table, schema)} ENGINE = InnoDB; at a quiet time.",
            )
        ]

    def table_problems(self, connection: sa.Connection, item: Installed) -> list[Problem]:
        """See :meth:`Adapter.table_problems`."""
        grants = Grants(str(line) for (line,) in connection.exec_driver_sql("SHOW GRANTS"))
        database = item.schema or str(self.profile.settings.get("default_schema", ""))
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

    def dependents(self, connection: sa.Connection, installed: Installed) -> Iterable[tuple[str, str]]:
        """See :meth:`Adapter.dependents`."""
        return mysql_dependents(
            connection,
            database=installed.schema or str(self.profile.settings.get("default_schema", "")),
            table=installed.table,
            columns=installed.dropped,
            own=installed.sync,
        )

    def table_readers(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.table_readers`. Views and triggers know tables by their names."""
        return readers.mysql_table_readers(
            connection,
            database=installed.schema or str(self.profile.settings.get("default_schema", "")),
            table=installed.table,
            alias=installed.renamed,
        )

    def routines(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.routines`."""
        return readers.mysql_routines(
            connection,
            database=installed.schema or str(self.profile.settings.get("default_schema", "")),
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
            "SELECT row_format FROM information_schema.tables WHERE table_name = :table"
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
            " character_octet_length / nullif(character_maximum_length, 0), column_type"
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
        fulltext = any(str(type_) == "FULLTEXT" for _, type_ in indexes)
        charsets = rows(
            "SELECT character_set_name FROM information_schema.columns WHERE table_name = :table"
            " AND table_schema = coalesce(:schema, database()) AND character_set_name IS NOT NULL"
            " UNION SELECT substring_index(table_collation, '_', 1) FROM information_schema.tables"
            " WHERE table_name = :table AND table_schema = coalesce(:schema, database())"
        )
        instant = str(tables[0][0]).lower() != "compressed" and not fulltext
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
                "types": {str(column): self._type(str(column), _words(type_), create) for column, *_, type_ in columns},
                "widths": {str(column): int(width) for column, *_, width, _ in columns if width},
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
                "on_update": tuple(
                    str(column) for column, _, _, extra, *_ in columns if "on update" in str(extra).lower()
                ),
                "fulltext": fulltext,
                "utf8mb4": {_words(charset) for (charset,) in charsets} == {"utf8mb4"},
                "instant": instant and not self._is_worn(connection, table, schema),
                **mysql_constraints.find(connection, table, schema),
            },
        )

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

    # -- steps to statements -----------------------------------------------------------------------

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`."""
        if not hold.locked:
            return MySQLTables(self.compiler, self.profile.version).statements(hold, found)
        work = remaining(hold, found, lambda target: self._texts(target, found))
        quote = self.compiler.quote
        reset = [f"DROP COLUMN {quote(work.reset_marker)}"] if work.reset_marker else []
        generated = () if found is None else found.details.get("generated", ())
        first = [f"DROP COLUMN {quote(name)}" for name in work.drop if name in generated]
        dropped = [f"DROP COLUMN {quote(name)}" for name in work.drop if name not in generated]
        shapes = self._final_shape(work, found)
        computed = [shape for name, shape in shapes.items() if name in generated]
        plain = [shape for name, shape in shapes.items() if name not in generated]
        # MariaDB does not do both at once on a table with computed columns (error 1846).
        shown, last = (plain, dropped) if generated else ([], [*plain, *dropped])
        algorithm = "" if work.not_null else "INSTANT"
        if any(map(self._is_cut, work.drop)):
            algorithm = "INPLACE"
        return [
            *mysql_constraints.drop(work, found, self.compiler),
            *mysql_indexes.drop(work, self.compiler),
            *(statement for step in work.widening for statement in mysql_widening.hold(self._widened(step, found))),
            *self._alter(work, [self._default(name, text, found) for name, text in work.set_defaults.items()], found),
            *self._drop_triggers(work, found),
            *self._alter(work, reset, found),
            *self._alter(work, self._additions(work), found),
            # MariaDB adds, changes and drops them only apart from others (error 1846).
            *self._alter(work, self._generated(work), found),
            *(Statement(sql=text.create, lock=_EXCLUSIVE) for text in work.create),
            *self._alter(work, first, found),
            *self._alter(work, computed, found),
            *self._alter(work, shown, found, algorithm),
            # At once, so that no prefix shows a half of it; with a rebuild if NOT NULL was not enforced before.
            *self._alter(work, last, found, algorithm),
        ]

    def _widened(self, step: WidenColumns, found: Found | None) -> Widened:
        rule = self.widens_in_place
        return Widened(step=step, found=found, compiler=self.compiler, product=self.product, rule=rule)

    def widens_in_place(self, column: str, old: Kind, new: Kind, found: Found | None) -> bool:
        """See :meth:`Adapter.widens_in_place`."""
        widest = 1 if old.family == "binary" else 4
        width = widest if found is None else found.details["widths"].get(column, widest)
        return mysql_widening.in_place(old, new, width=width, growing=self._growing)

    def widening_problems(self, connection: sa.Connection, step: WidenColumns) -> Iterator[Problem]:
        """See :meth:`Adapter.widening_problems`."""
        yield from super().widening_problems(connection, step)
        widened = self._widened(step, self.find(connection, step.table, step.schema))
        if self.rebuilds:
            database = step.schema or str(self.profile.settings.get("default_schema", ""))
            yield from held_problems(connection, widened)
            yield from mysql_widening.problems(connection, widened, database)

    def fill_shadows(self, step: WidenColumns, found: Found | None) -> BackfillText | None:
        """See :meth:`Adapter.fill_shadows`."""
        keep = () if found is None else found.details.get("on_update", ())
        return fill_text(self._widened(step, found), self._estimate(step.table, step.schema), keep)

    def misfits(self, widening: Widening, found: Found) -> str | None:
        """See :meth:`Adapter.misfits`."""
        if widening.shadow in found.columns:
            return differ(widening, self.compiler, self.product)
        return super().misfits(widening, found)

    def _is_cut(self, column: str) -> bool:
        """Whether dropping the column instantly fails with error 3507 (MySQL 9.7).

        MySQL keeps such a column under a longer name, which it cuts at 64 bytes, also within a character.
        """
        return not column.isascii() and len(column.encode()) > 32

    def _texts(self, target: Sync | InstallPair, found: Found | None) -> list[TriggerText]:
        if isinstance(target, InstallPair):
            return pair_triggers(target.pair, target.on, self.product, self.compiler)
        return trigger_statements(target, self.product, self._compiler_for(target, found))

    def _compiler_for(self, sync: Sync, found: Found | None) -> Compiler:
        """A compiler that knows of utf8mb4 where all text is in it: a conversion of each value costs a trigger much."""
        if found is None or not found.details["utf8mb4"]:
            return self.compiler
        for column in sync.columns.values():
            said = getattr(column.type, "charset", None) or getattr(column.type, "collation", None) or "utf8mb4"
            if str(said).split("_")[0].lower() != "utf8mb4":
                return self.compiler
        return compiler_for(self.product, utf8mb4=True)

    def _alter(
        self, work: Remaining, parts: list[str], found: Found | None, algorithm: str = "INSTANT"
    ) -> list[Statement]:
        if not parts:
            return []
        if algorithm == "INSTANT" and found is not None and not found.details.get("instant", True):
            algorithm = ""  # the server's own choice
        table = self.compiler.table(work.table, work.schema)
        sql = ", ".join([f"ALTER TABLE {table} {parts[0]}", *parts[1:], *_clause(algorithm)])
        if algorithm == "INSTANT":
            return [Statement(sql=sql, lock=f"{_EXCLUSIVE}, ALGORITHM=INSTANT")]
        return [Statement(sql=sql, lock=f"{_EXCLUSIVE}, for as long as rebuilding the table takes")]

    def _additions(self, work: Remaining) -> list[str]:
        quote = self.compiler.quote
        parts = []
        for column in work.add:
            if column.computed is not None:
                continue
            comment = f" COMMENT {_literal(column.comment)}" if column.comment else ""
            # NULL in words: a TIMESTAMP without it may become NOT NULL (explicit_defaults_for_timestamp).
            type_ = self.compiler.type_text(column.type)
            parts.append(f"ADD COLUMN {quote(column.name)} {type_} NULL INVISIBLE{comment}")
        if marker := work.add_marker or work.reset_marker:
            parts.append(f"ADD COLUMN {quote(marker)} {self.marker_type} NULL INVISIBLE")
        return parts

    def _generated(self, work: Remaining) -> list[str]:
        return [
            f"ADD COLUMN {self.compiler.quote(column.name)} {self.compiler.type_text(column.type)}"
            f"{self.compiler.generated(column)} INVISIBLE"
            + (f" COMMENT {_literal(column.comment)}" if column.comment else "")
            for column in work.add
            if column.computed is not None
        ]

    def _drop_triggers(self, work: Remaining, found: Found | None) -> list[Statement]:
        """Drop the sync's triggers; old NOT NULL columns that they filled get a constant default on the way.

        Not before the triggers are gone: they would take the constant for a value of the old release. Until then
        a trigger of its own, behind them, gives the constant, and the marker by which they let the row be.
        """
        quote = self.compiler.quote
        prefix = f"{quote(work.schema)}." if work.schema else ""
        fillers = self._fillers(work, found)
        names = list(work.drop_triggers)
        sent: list[Statement] = []
        if fillers and work.marker and names and names[0].endswith("_i"):
            bridge = names[0].removesuffix("_i") + "_c"
            if bridge not in names:
                table = self.compiler.table(work.table, work.schema)
                values = ", ".join(
                    f"NEW.{quote(name)} = COALESCE(NEW.{quote(name)}, {constant})"
                    for name, constant in [*fillers, (work.marker, "1")]
                )
                create = f"CREATE TRIGGER {prefix}{quote(bridge)} BEFORE INSERT ON {table} FOR EACH ROW SET {values}"
                sent.append(Statement(sql=create, lock=_EXCLUSIVE))
                names.append(bridge)
        drops = {name: Statement(sql=f"DROP TRIGGER {prefix}{quote(name)}", lock=_EXCLUSIVE) for name in names}
        last = [drops.pop(name) for name in names if name.endswith("_c")]
        defaults = [f"ALTER COLUMN {quote(name)} SET DEFAULT {constant}" for name, constant in fillers]
        return [*sent, *drops.values(), *self._alter(work, defaults, found), *last]

    def _fillers(self, work: Remaining, found: Found | None) -> list[tuple[str, str]]:
        if found is None:
            return [(name, "<a constant of its type>") for name in work.fill_defaults]
        constants = [(name, filler(found.details["types"].get(name, ""))) for name in work.fill_defaults]
        # Lines and polygons have none: the lock hold alone protects them.
        return [(name, constant) for name, constant in constants if constant is not None]

    def _final_shape(self, work: Remaining, found: Found | None) -> dict[str, str]:
        names = dict.fromkeys([*work.not_null, *work.defaults, *work.show])
        return {
            name: self._modify(name, found, not_null=name in work.not_null, default=work.defaults.get(name))
            for name in names
            if name not in work.drop
        }

    def _default(self, name: str, text: str | None, found: Found | None) -> str:
        column = self.compiler.quote(name)
        nullable = found is None or found.columns[name]
        if text is None:
            # Dropped, the default of a nullable column would not be NULL but none (error 1364).
            return f"ALTER COLUMN {column} {'SET DEFAULT NULL' if nullable else 'DROP DEFAULT'}"
        type_ = "" if found is None else str(found.details["types"][name])
        literal = literal_default(text, type_.partition("(")[0].lower())
        if literal[0] in "'(-+0123456789" or found is None:
            return f"ALTER COLUMN {column} SET DEFAULT {literal}"
        # The present time may stand there only where the column is defined.
        return self._modify(name, found, not_null=not nullable, default=text)

    def _modify(self, name: str, found: Found | None, *, not_null: bool, default: str | None) -> str:
        if found is None:
            definition = f"<its definition, visible>{' NOT NULL' if not_null else ''}"
            if default is not None:
                definition += f" DEFAULT {default}"
        else:
            keeps = not found.columns.get(name, True)
            definition = redefined(found.details["create"], name, not_null=not_null or keeps, default=default)
        return f"MODIFY COLUMN {self.compiler.quote(name)} {definition}"

    def online(self, online: Online, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.online`: NOT NULL by an online rebuild; the columns become visible with it.

        MariaDB has no hidden NOT NULL column without a default, and the old release is gone by then.
        """
        step = online.step
        if isinstance(step, BuildIndex):
            return mysql_indexes.build(step, found, self.compiler)
        if isinstance(step, BuildConstraint):
            return mysql_constraints.build(step, found, self.compiler)
        if isinstance(step, ExtendEnums):
            return mysql_labels(step, found, self.compiler)
        if isinstance(step, WidenColumns) and step.stage == "prove":
            return mysql_widening.prove(self._widened(step, found))
        if isinstance(step, AllowNull):
            return mysql_constraints.allow_null(step, found, self.compiler)
        if not isinstance(step, EnforceNotNull):
            raise TypeError(f"{type(step).__name__} is not sent as statements")
        names = still_nullable(step, found)
        if not names:
            return []
        table = self.compiler.table(step.table, step.schema)
        parts = [self._modify(name, found, not_null=True, default=None) for name in names]
        sql = f"ALTER TABLE {table} {', '.join(parts)}"
        if found is not None and any(self._needs_copy(name, found) for name in names):
            lock = "SHARED_NO_WRITE metadata lock: writers wait while the table is copied"
            sent = [Statement(sql=sql, lock=lock)]
        else:
            lock = f"SHARED_UPGRADABLE metadata lock, {_EXCLUSIVE} for a moment at both ends"
            lock = (
                f"{lock}; ALGORITHM=INPLACE, LOCK=NONE (writers go on; if their duplicates end it again and again, they"
            )
            lock = f"{lock} wait for it: LOCK=SHARED)"
            sent = [Statement(sql=f"{sql}, ALGORITHM=INPLACE, LOCK=NONE", lock=lock)]
        # Apart: MariaDB rebuilds in place only without a computed default, but needs it for an INSERT ... SELECT.
        defaults = [
            self._modify(name, found, not_null=True, default=text)
            for name, text in step.defaults.items()
            if name in names
        ]
        if defaults:
            instant = f"ALTER TABLE {table} {', '.join(defaults)}, ALGORITHM=INSTANT"
            sent.append(Statement(sql=instant, lock=f"{_EXCLUSIVE}, ALGORITHM=INSTANT"))
        return sent

    def insisting(self, statements: Sequence[Statement]) -> list[Statement]:
        """See :meth:`Adapter.insisting`: with LOCK=SHARED, under which no INSERT is replayed (see running_online)."""
        lock = "SHARED_NO_WRITE metadata lock: writers wait; ALGORITHM=INPLACE, LOCK=SHARED"
        return [
            Statement(sql=statement.sql.replace("LOCK=NONE", "LOCK=SHARED"), lock=lock)
            if statement.sql.endswith("LOCK=NONE")
            else statement
            for statement in statements
        ]

    def _needs_copy(self, name: str, found: Found) -> bool:  # noqa: ARG002 - for MariaDB
        """Whether the column cannot become NOT NULL in place: no table with a FULLTEXT index is rebuilt online, and
        MySQL 9.7 rebuilds none with a check that reads a date or a time (error 1845).
        """
        return bool(found.details["fulltext"]) or checks_time(found.details["create"], found.details["types"])

    def index_problems(
        self, connection: sa.Connection, item: Installed, types: Mapping[str, sa.types.TypeEngine[Any]]
    ) -> list[Problem]:
        """See :meth:`Adapter.index_problems`."""
        found = self.find(connection, item.table, item.schema)
        return list(mysql_indexes.problems(item, found, types, self.compiler))

    def constraint_problems(
        self, connection: sa.Connection, item: Installed, types: Mapping[str, sa.types.TypeEngine[Any]]
    ) -> list[Problem]:
        """See :meth:`Adapter.constraint_problems`."""
        return list(mysql_constraints.problems(connection, item, types, self.compiler))

    def pair_problems(self, connection: sa.Connection, pair: Pair) -> list[Problem]:
        """See :meth:`Adapter.pair_problems`."""
        return list(mysql_pairs.problems(connection, pair))

    def backfill(self, step: Backfill, found: Found | None = None) -> BackfillText:
        """See :meth:`Adapter.backfill`. Columns with ON UPDATE CURRENT_TIMESTAMP keep what the application wrote."""
        sync = step.sync
        written = {name for group in sync.groups for name in group.forward}
        keep = () if found is None else found.details.get("on_update", ())
        return data.backfill_text(
            sync,
            self._compiler_for(sync, found),
            limited="{unsynced} LIMIT :limit",
            estimate=self._estimate(sync.table, sync.schema),
            keep=[name for name in keep if name not in written],
        )

    def _estimate(self, table: str, schema: str | None) -> str:
        database = "database()" if schema is None else _literal(schema)
        return data.escape(
            "SELECT coalesce(max(table_rows), 0) FROM information_schema.tables"
            f" WHERE table_schema = {database} AND table_name = {_literal(table)}"
        )

    def probe(self, step: Probe) -> ProbeText:
        """See :meth:`Adapter.probe`."""
        return data.probe_text(step, self.compiler)

    # -- execution ---------------------------------------------------------------------------------

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:
        """See :meth:`Adapter.opening`. ``lock_wait_timeout`` counts whole seconds; it stands behind the watch."""
        if not hold.locked:
            return [_lock_wait(timeout)]
        table = self.compiler.table(hold.table, hold.schema)
        return [
            _lock_wait(timeout),
            Statement(sql=f"LOCK TABLES {table} WRITE", lock="SHARED_NO_READ_WRITE metadata lock (WRITE)"),
        ]

    def closing(self, hold: Hold) -> list[Statement]:
        """See :meth:`Adapter.closing`."""
        return [Statement(sql="UNLOCK TABLES")] if hold.locked else []

    @contextlib.contextmanager
    def holding(self, connection: sa.Connection, hold: Hold, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.holding`."""
        with self._bounded(connection, timeout) as check:
            try:
                self.execute(connection, self.opening(hold, timeout))
                check()
                yield
            except BaseException:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    self.execute(connection, self.closing(hold))
                raise
            self.execute(connection, self.closing(hold))

    @contextlib.contextmanager
    def running_online(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.running_online`; a duplicate key counts as a lock that was not had.

        MySQL (9.7 does, MariaDB 10.11 does not) replays the writes of others at the end of an online ALTER TABLE, also
        an INSERT that its own writer saw refused as a duplicate, and then fails with 1062: "even if the duplicate entry
        is only temporary" (manual, InnoDB, Online DDL Limitations). So it takes a look at the rows to tell.
        """
        with self._bounded(connection, timeout):
            self.send(connection, _lock_wait(timeout))
            try:
                yield
            except sa.exc.DBAPIError as error:
                if _errno(error) == _DUPLICATE:
                    raise NotUnique(str(error.orig)) from error
                if _errno(error) in _VIOLATED:
                    raise Violated(str(error.orig)) from error
                raise
            finally:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("SET SESSION foreign_key_checks = DEFAULT")

    @contextlib.contextmanager
    def _bounded(self, connection: sa.Connection, timeout: float) -> Iterator[Any]:
        """No statement waits longer than ``timeout`` for a metadata lock; a killed one becomes a LockTimeout."""
        with watching(connection, timeout) as watch:

            def check() -> None:
                if watch.fired:  # it came too late for the statement it was meant for, and may hit the next
                    raise LockTimeout("a metadata lock could not be had in time")

            try:
                yield check
            except sa.exc.DBAPIError as error:
                if watch.fired and _errno(error) == _INTERRUPTED:
                    raise LockTimeout(str(error.orig)) from error
                raise

    @contextlib.contextmanager
    def transaction(self, connection: sa.Connection, timeout: float) -> Iterator[None]:
        """See :meth:`Adapter.transaction`; row locks count whole seconds here."""
        opening = [
            Statement(sql=f"SET SESSION innodb_lock_wait_timeout = {_seconds(timeout)}"),
            Statement(sql="START TRANSACTION"),
        ]
        with self.unit(connection, opening, [Statement(sql="COMMIT")]):
            yield

    def is_lock_timeout(self, error: BaseException) -> bool:
        """See :meth:`Adapter.is_lock_timeout`: 1205, 1213 (also Galera's conflicts), 3572, 1020, 1412."""
        return isinstance(error, LockTimeout) or _errno(error) in (1205, 1213, 3572, 1020, 1412)

    def send(self, connection: sa.Connection, statement: Statement) -> None:
        """See :meth:`Adapter.send`. Raises CF205 where the server refuses to do an ALTER TABLE without a rebuild."""
        try:
            super().send(connection, statement)
        except sa.exc.DBAPIError as error:
            if _errno(error) not in _NOT_INSTANT:
                raise
            raise ProblemError(
                Problem(
                    code="CF205",
                    what=f"the server refuses: {statement.sql}",
                    why=f"{error.orig}; anything else would keep writers out for the length of a rebuild.",
                    instead="rebuild the table at a quiet time (ALTER TABLE ... FORCE), then try again.",
                )
            ) from error


class MariaDBAdapter(MySQLAdapter):
    """MariaDB."""

    product = "mariadb"
    floor = (10, 6)
    _growing = 127

    def _prepare_more(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET SESSION max_statement_time = 0")

    def _has_default(self, default: object, extra: str) -> bool:  # noqa: ARG002 - see above
        return default is not None and default != "NULL"

    def _is_worn(self, connection: sa.Connection, table: str, schema: str | None) -> bool:  # noqa: ARG002
        return False  # MariaDB does not count instant changes

    def _type(self, column: str, type_: str, create: str) -> str:
        return "json" if f"json_valid({self.compiler.quote(column)})" in create else type_

    def _needs_copy(self, name: str, found: Found) -> bool:
        # TIMESTAMP NOT NULL turns a NULL into the present time, even with a constant default: error 1846 in place.
        return bool(found.details["fulltext"]) or str(found.details["types"].get(name, "")).startswith("timestamp")

    def _is_cut(self, column: str) -> bool:  # noqa: ARG002 - MariaDB keeps no names of dropped columns
        return False


class _Cluster(MySQLAdapter):
    """What Galera changes: LOCK TABLES keeps out nobody on other nodes, but DDL is executed in one total order on all.

    So there is no hold: each statement is a step of its own (TOI), during which the whole cluster stops, and writers of
    both releases run between two of them. The order of :meth:`hold` is harmless to them in every prefix.
    """

    clustered = True
    rebuilds = False  # it would stop the whole cluster while a shadow becomes NOT NULL

    def opening(self, hold: Hold, timeout: float) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.opening`."""
        return [_lock_wait(timeout), Statement(sql="SET SESSION wsrep_OSU_method = 'TOI'")]

    def closing(self, hold: Hold) -> list[Statement]:  # noqa: ARG002 - the interface's
        """See :meth:`Adapter.closing`."""
        return []

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`."""
        toi = "TOI: all writes of the cluster wait"
        return [
            Statement(sql=statement.sql, lock=f"{toi}; {statement.lock}") for statement in super().hold(hold, found)
        ]

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
        status = connection.exec_driver_sql("SHOW STATUS LIKE 'wsrep_ready'").first()
        problems = super().preflight(connection, tables)
        if status is not None and str(status[1]).upper() != "ON":
            problems.append(
                Problem(
                    code="CF205",
                    what="this node does not take part in its cluster (wsrep_ready is OFF).",
                    instead="connect to a node that is in sync.",
                )
            )
        return problems


class GaleraAdapter(_Cluster, MariaDBAdapter):
    """MariaDB with ``wsrep_on``."""


class XtraDBClusterAdapter(_Cluster, MySQLAdapter):
    """Percona XtraDB Cluster: MySQL with ``wsrep_on``. Compiled for only; not run so far."""


def _version(text: str) -> tuple[int, ...]:
    # "5.5.5-10.11.18-MariaDB" is how old replication protocols spell it; the real one stands last.
    parts = [part for part in text.split("-") if part[:1].isdigit() and "." in part]
    number = parts[1] if len(parts) > 1 and parts[0] == "5.5.5" else parts[0]
    return tuple(int(part) for part in number.split(".") if part.isdigit())


def _on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "").upper() in ("ON", "1")


def _errno(error: BaseException) -> int | None:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    number = cause.args[0] if cause is not None and cause.args else None
    return number if isinstance(number, int) else getattr(cause, "errno", None)


def _clause(algorithm: str) -> list[str]:
    return [f"ALGORITHM={algorithm}"] if algorithm else []


def _seconds(timeout: float) -> int:
    return max(1, math.ceil(timeout))


def _lock_wait(timeout: float) -> Statement:
    return Statement(sql=f"SET SESSION lock_wait_timeout = {_seconds(timeout)}")


def _literal(text: str) -> str:
    # prepare() leaves NO_BACKSLASH_ESCAPES off.
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _words(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
