"""What is read of a server that speaks PostgreSQL's language: who it is, what an upgrade lacks, what stands there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from contraflow.dialects import postgresql_held, postgresql_keys, readers
from contraflow.dialects.base import Adapter, Found, Profile
from contraflow.dialects.dependents import postgresql_dependents
from contraflow.installed import Index, Installed
from contraflow.problems import Problem

__all__ = ["PostgreSQLServer"]


class PostgreSQLServer(Adapter):
    """The half of :class:`~contraflow.dialects.postgresql.PostgreSQLAdapter` that reads the server, and prepares the
    session.
    """

    @classmethod
    def matches(cls, connection: sa.Connection) -> Profile | None:
        """See :meth:`Adapter.matches`."""
        if connection.dialect.name not in ("postgresql", "cockroachdb"):
            return None
        if "CockroachDB" in str(connection.exec_driver_sql("SELECT version()").scalar_one()):
            return None
        number = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        return Profile(
            product=cls.product,
            version=(number // 10000, number % 10000),
            settings={"default_schema": str(schema or "")},
        )

    # -- preflight ---------------------------------------------------------------------------------

    def preflight(self, connection: sa.Connection, tables: Iterable[tuple[str | None, str]] = ()) -> list[Problem]:
        """See :meth:`Adapter.preflight`."""
        problems = []
        if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar():
            problems.append(Problem(code="CF205", what="the server is a standby.", instead="connect to the primary."))
        elif connection.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "on":
            problems.append(
                Problem(
                    code="CF205",
                    what="the sessions of this role or database are read-only (default_transaction_read_only).",
                    instead="connect as another role, or: ALTER ROLE ... SET default_transaction_read_only = off;",
                )
            )
        if not connection.exec_driver_sql("SELECT 1 FROM pg_language WHERE lanname = 'plpgsql'").scalar():
            problems.append(
                Problem(
                    code="CF205",
                    what="the language plpgsql is not installed in this database.",
                    why="the sync's triggers are written in it.",
                    instead="CREATE EXTENSION plpgsql;",
                )
            )
        for schema, table in tables:
            problems += self._table_problems(connection, table, schema)
        return problems

    def _table_problems(self, connection: sa.Connection, table: str, schema: str | None) -> list[Problem]:
        row = (
            connection.execute(
                sa.text(
                    "SELECT c.relkind = ANY (ARRAY['r', 'p']) AS is_table, c.relispartition AS is_partition,"
                    " c.relkind = 'r' AND c.relhassubclass AS has_children,"
                    " pg_has_role(c.relowner, 'USAGE') AS is_owner, pg_get_userbyid(c.relowner) AS owner,"
                    " (SELECT rolsuper FROM pg_roles o WHERE o.oid = c.relowner) AS by_superuser,"
                    " c.relforcerowsecurity AND NOT r.rolbypassrls AND NOT r.rolsuper AS sees_part,"
                    " has_schema_privilege(coalesce(CAST(:schema AS text), current_schema()), 'CREATE') AS may_create,"
                    " current_user AS me, coalesce(CAST(:schema AS text), current_schema()) AS schema"
                    " FROM pg_class c, pg_roles r"
                    " WHERE c.oid = to_regclass(:name) AND r.rolname = current_user"
                ),
                {"name": self.compiler.table(table, schema), "schema": schema},
            )
            .mappings()
            .first()
        )
        if row is None:
            return []
        problems = []
        if not row["is_table"] or row["is_partition"] or row["has_children"]:
            kind = "a partition" if row["is_partition"] else "a table with children"
            problems.append(
                Problem(
                    code="CF205",
                    what=f"{table} is {kind if row['is_table'] else 'not a table'}.",
                    why="the sync's triggers would not see every row.",
                    instead="declare the change on the partitioned table, or on an ordinary one.",
                )
            )
        if not row["is_owner"]:
            quote = self.compiler.quote
            me, owner = quote(row["me"]), quote(row["owner"])
            # To be a member of a superuser's role is to be one.
            hand_over = f"ALTER TABLE {self.compiler.table(table, schema)} OWNER TO {me};"
            grant = hand_over if row["by_superuser"] else f"GRANT {owner} TO {me};"
            problems.append(
                Problem(
                    code="CF202",
                    what=f"{row['me']} does not own {table}; {row['owner']} does.",
                    why="only the owner may alter a table.",
                    instead=f"connect as {row['owner']}, or (as {row['owner']}) {grant}",
                )
            )
        if not row["may_create"]:
            problems.append(
                Problem(
                    code="CF202",
                    what=f"{row['me']} may not create functions in the schema {row['schema']}.",
                    why="the sync's triggers call one.",
                    instead=f"GRANT CREATE ON SCHEMA {row['schema']} TO {row['me']};",
                )
            )
        if row["sees_part"]:
            problems.append(
                Problem(
                    code="CF202",
                    what=f"row-level security is forced on {table}, and {row['me']} is subject to it.",
                    why="rows that a policy hides would not be backfilled.",
                    instead=f"connect as a role with BYPASSRLS, or ALTER ROLE {row['me']} BYPASSRLS;",
                )
            )
        return problems

    def index_problems(
        self,
        connection: sa.Connection,
        item: Installed,
        types: Mapping[str, sa.types.TypeEngine[Any]],  # noqa: ARG002 - the interface's
    ) -> list[Problem]:
        """See :meth:`Adapter.index_problems`."""
        kind = connection.execute(
            sa.text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:name)"),
            {"name": self.compiler.table(item.table, item.schema)},
        ).scalar()
        if str(kind) != "p" or not item.built:
            return []
        return [
            Problem(
                code="CF205",
                what=f"{item.built[0].name} cannot be built beside writers: {item.table} is partitioned.",
                why="PostgreSQL has no CREATE INDEX CONCURRENTLY for partitioned tables.",
                instead="build it on each partition by hand (CONCURRENTLY), then attach them to one of the table.",
            )
        ]

    @property
    def has_virtual_columns(self) -> bool:
        """See :attr:`Adapter.has_virtual_columns`."""
        return self.profile.version >= (18,)

    def table_problems(self, connection: sa.Connection, item: Installed) -> list[Problem]:
        """See :meth:`Adapter.table_problems`."""
        if item.renamed is None or self.profile.version >= (15,):
            return []
        policies = connection.execute(
            sa.text("SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(:name)"),
            {"name": self.compiler.table(item.table, item.schema)},
        ).scalar()
        if not policies:
            return []
        return [
            Problem(
                code="CF205",
                what=f"{item.table} cannot be renamed live: it has row-level security.",
                why="before PostgreSQL 15 a view is read with its owner's rights: the new release would see every row.",
                instead="upgrade the server to 15, or keep the name.",
            )
        ]

    def _oid(self, connection: sa.Connection, table: str, schema: str | None) -> int | None:
        """The server's number of a table; None if there is none of that name."""
        name = self.compiler.table(table, schema)
        oid = connection.execute(sa.text("SELECT CAST(to_regclass(:name) AS oid)"), {"name": name}).scalar()
        return None if oid is None else int(oid)

    def dependents(self, connection: sa.Connection, installed: Installed) -> Iterable[tuple[str, str]]:
        """See :meth:`Adapter.dependents`."""
        oid = self._oid(connection, installed.table, installed.schema)
        if oid is None:
            return ()
        key = installed.key
        retired = (Index(name=key.old_name, columns=key.old, primary=True),) if key and key.retires else ()
        return postgresql_dependents(
            connection,
            oid=oid,
            columns=installed.dropped,
            own=installed.sync,
            replaced=(*installed.replaced, *installed.released, *retired),
        )

    def table_readers(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.table_readers`. What reads a renamed table knows it by its number, and goes on."""
        oid = self._oid(connection, installed.table, installed.schema)
        return readers.postgresql_table_readers(connection, oid=oid) if oid and installed.removed else ()

    def routines(self, connection: sa.Connection, installed: Installed) -> Iterable[str]:
        """See :meth:`Adapter.routines`."""
        whole = installed.removed or installed.renamed is not None
        return readers.postgresql_routines(connection, table=installed.table, columns=installed.dropped, whole=whole)

    def prepare(self, connection: sa.Connection) -> None:
        """See :meth:`Adapter.prepare`. Limits that the role or database sets for applications do not hold here."""
        settings = {
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "standard_conforming_strings": "on",
            "client_min_messages": "warning",
            "timezone": "UTC",
            # A key's value is read as text, and must be the same value when it is compared.
            "datestyle": "ISO, MDY",
            "extra_float_digits": "1",
            # A query that row-level security would cut short fails instead.
            "row_security": "off",
            **({"transaction_timeout": "0"} if self.profile.version >= (17,) else {}),
        }
        for name, value in settings.items():
            connection.exec_driver_sql(f"SET {name} = '{value}'")

    def server_time(self, connection: sa.Connection) -> float:
        """See :meth:`Adapter.server_time`."""
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())

    # -- what stands there -------------------------------------------------------------------------

    def find(self, connection: sa.Connection, table: str, schema: str | None) -> Found:
        """See :meth:`Adapter.find`."""
        oid = self._oid(connection, table, schema)

        def rows(query: str) -> list[Any]:
            given = {"oid": oid, "schema": schema} if ":schema" in query else {"oid": oid}
            return list(connection.execute(sa.text(query), given).all())

        names = rows(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'f') AND relnamespace ="
            " coalesce((SELECT relnamespace FROM pg_class WHERE oid = CAST(:oid AS oid)),"
            " (SELECT oid FROM pg_namespace WHERE nspname = coalesce(CAST(:schema AS text), current_schema())))"
        )
        enums = rows(
            "SELECT typname FROM pg_type WHERE typtype = 'e' AND (pg_type_is_visible(oid) OR typnamespace ="
            " coalesce((SELECT relnamespace FROM pg_class WHERE oid = CAST(:oid AS oid)),"
            " (SELECT oid FROM pg_namespace WHERE nspname = CAST(:schema AS text))))"
        )
        around = {"enums": frozenset(str(name) for (name,) in enums)}
        if oid is None:
            return Found(exists=False, names=frozenset(str(name) for (name,) in names), details=around)

        columns = rows(
            "SELECT a.attname, a.attnotnull, a.atthasdef, format_type(a.atttypid, a.atttypmod)"
            " || CASE WHEN a.attcollation <> t.typcollation THEN"
            " (SELECT format(' COLLATE %I.%I', n.nspname, c.collname) FROM pg_collation c"
            " JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) ELSE '' END"
            ", pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)"
            " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
            " LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
            " WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
        )
        comments = rows("SELECT obj_description(CAST(:oid AS oid), 'pg_class')")
        labels = rows(
            "SELECT a.attname, e.enumlabel FROM pg_attribute a JOIN pg_enum e ON e.enumtypid = a.atttypid"
            " WHERE a.attrelid = :oid AND a.attnum > 0 ORDER BY a.attnum, e.enumsortorder"
        )
        constraints = rows(
            "SELECT conname, convalidated FROM pg_constraint WHERE conrelid = :oid AND contype IN ('c', 'f', 'x')"
        )
        indexes = rows(
            "SELECT c.relname, CASE WHEN NOT i.indisvalid THEN 'invalid' WHEN k.oid IS NULL THEN 'index'"
            " ELSE 'constraint' END FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')"
            " WHERE i.indrelid = :oid ORDER BY c.relname"
        )
        expressions = rows(
            "SELECT c.relname, i.indisunique, substring(pg_get_indexdef(c.oid) FROM ' USING (.*)$')"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = :oid AND i.indexprs IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid) ORDER BY c.relname"
        )
        exclusions = rows(
            "SELECT k.conname, pg_get_constraintdef(k.oid), a.attname FROM pg_constraint k"
            " LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)"
            " WHERE k.conrelid = :oid AND k.contype = 'x' ORDER BY k.conname, array_position(k.conkey, a.attnum)"
        )
        functions = rows(
            "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE p.prorettype = CAST('trigger' AS regtype) AND n.nspname <> 'pg_catalog' AND"
            " (pg_function_is_visible(p.oid)"
            " OR n.oid = (SELECT relnamespace FROM pg_class WHERE oid = :oid))"
        )
        return Found(
            exists=True,
            columns={str(name): not not_null for name, not_null, *_ in columns},
            triggers=self._triggers(connection, table, schema, oid, [str(name) for (name,) in functions]),
            indexes={str(name): str(kind) for name, kind in indexes},
            names=frozenset(str(name) for (name,) in names),
            details={
                **around,
                "types": {str(name): str(type_) for name, _, _, type_, *_ in columns},
                "comment": comments[0][0],
                "comments": {str(name): str(comment) for name, *_, comment in columns if comment is not None},
                "default_texts": {str(name): str(text) for name, *_, text, _ in columns if text is not None},
                "defaults": frozenset(str(name) for name, _, has_default, *_ in columns if has_default),
                "labels": _grouped(labels),
                "constraints": {str(name): bool(valid) for name, valid in constraints},
                "expressions": {str(name): (bool(unique), str(text)) for name, unique, text in expressions},
                "exclusions": {
                    str(name): (str(text), tuple(str(other) for one, _, other in exclusions if one == name and other))
                    for name, text, _ in exclusions
                },
                "functions": frozenset(str(name) for (name,) in functions),
                **self._keys(connection, oid),
            },
        )

    def _keys(self, connection: sa.Connection, oid: int) -> dict[str, Any]:
        return {**postgresql_keys.find(connection, oid), **postgresql_held.find(connection, oid)}

    def _triggers(
        self,
        connection: sa.Connection,
        table: str,  # noqa: ARG002 - for subclasses
        schema: str | None,  # noqa: ARG002
        oid: int,
        functions: list[str],  # noqa: ARG002
    ) -> dict[str, str]:
        found = connection.execute(
            sa.text(
                "SELECT t.tgname, pg_get_triggerdef(t.oid), p.prosrc FROM pg_trigger t"
                " JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = :oid AND NOT t.tgisinternal"
            ),
            {"oid": oid},
        )
        return {str(name): f"{definition}\n{source}" for name, definition, source in found}


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[str, tuple[str, ...]]:
    grouped: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        grouped[str(name)] = (*grouped.get(str(name), ()), str(value))
    return grouped
