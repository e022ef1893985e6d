"""Whole tables: created, dropped, and known under a second name until contract gives them that name.

The second name is a view that every statement goes through: PostgreSQL, MySQL and MariaDB write through a view of one
table by themselves (manuals: CREATE VIEW, "Updatable Views"; "Updatable and Insertable Views"), keys made by the
server, RETURNING and upserts included. SQLite's views take no upsert, and tell no key that was made; there the second
name is a table of its own (:mod:`contraflow.dialects.sqlite_twin`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.problems import Problem, ProblemError
from contraflow.steps import AddAlias, DropAlias, Hold, MakeTable, MakeWay, RemoveTable, TakeName

__all__ = ["MySQLTables", "PostgreSQLTables", "Tables"]


class Tables(ABC):
    """The statements of the steps on whole tables. With ``found``, of the table itself, only what is still to do."""

    exclusive: str = ""
    """The lock of whoever drops or renames, in the server's words."""
    referring: str = ""
    """The lock on a table that a new foreign key refers to."""

    def __init__(self, compiler: Compiler, version: tuple[int, ...]) -> None:
        self.compiler = compiler
        self.version = version

    def statements(self, hold: Hold, found: Found | None) -> list[Statement]:
        """The statements of a hold that locks nothing beforehand."""
        return [statement for step in hold.steps for statement in self._step(step, found)]

    def _step(self, step: object, found: Found | None) -> list[Statement]:
        stands = found is None or found.exists
        if isinstance(step, MakeTable):
            return self.make(step, found)
        if isinstance(step, RemoveTable):
            return [self._drop("TABLE", step.table, step.schema)] if stands else []
        if isinstance(step, AddAlias):
            if not stands:
                raise _gone(step.table)
            return [] if found is not None and step.alias in found.names else self.add_alias(step, found)
        if isinstance(step, MakeWay):
            return self.make_way(step, found)
        if isinstance(step, TakeName):
            return self.take_name(step, found)
        if isinstance(step, DropAlias):
            return self.drop_alias(step, found)
        raise TypeError(f"{type(step).__name__} is not a step on a whole table")

    def make(self, step: MakeTable, found: Found | None) -> list[Statement]:
        """CREATE TABLE, then its comments and indexes: after a kill between them, those that are missing."""
        table = step.definition
        standing = found is not None and found.exists
        sent = [] if standing else [self._create(table), *self._comments(table)]
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        return [
            *sent,
            *(
                Statement(sql=self._text(sa.schema.CreateIndex(index)))
                for index in indexes
                if found is None or index.name not in found.indexes
            ),
        ]

    def _create(self, table: sa.Table) -> Statement:
        refers = any(isinstance(constraint, sa.ForeignKeyConstraint) for constraint in table.constraints)
        return Statement(sql=self._text(sa.schema.CreateTable(table)), lock=self.referring if refers else "")

    def _comments(self, table: sa.Table) -> list[Statement]:  # noqa: ARG002 - for PostgreSQL
        return []

    def _text(self, element: sa.schema.ExecutableDDLElement) -> str:
        return str(element.compile(dialect=self.compiler.dialect)).strip()

    def _drop(self, kind: str, name: str, schema: str | None) -> Statement:
        return Statement(sql=f"DROP {kind} {self.compiler.table(name, schema)}", lock=self.exclusive)

    @abstractmethod
    def add_alias(self, step: AddAlias, found: Found | None) -> list[Statement]:
        """Make the table known under a name that nothing has yet."""

    def make_way(self, step: MakeWay, found: Found | None) -> list[Statement]:  # noqa: ARG002 - for MySQL and MariaDB
        """What :meth:`take_name` needs to have been done a moment before."""
        return []

    @abstractmethod
    def take_name(self, step: TakeName, found: Found | None) -> list[Statement]:
        """Give the table its alias's name."""

    def _is_named(self, step: TakeName, found: Found | None) -> bool:
        """Whether the table has its alias's name by now. Raises CF101 if there is neither."""
        if found is None or found.exists:
            return False
        if step.alias not in found.names:
            raise _gone(step.table)
        return True

    def drop_alias(self, step: DropAlias, found: Found | None) -> list[Statement]:
        """Drop the view, but never the table that has its name by now."""
        if step.parked or (found is not None and not (found.exists and step.alias in found.names)):
            return []
        return [self._drop("VIEW", step.alias, step.schema)]

    def _columns(self, step: AddAlias) -> str:
        return ", ".join(self.compiler.quote(name) for name in step.columns)


_GRANTS = """\
DO $contraflow$
DECLARE given text;
BEGIN
  FOR given IN
    SELECT format('GRANT %s ON {alias} TO %s%s', held.privilege_type,
      CASE held.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(held.grantee)) END,
      CASE WHEN held.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) held
    WHERE c.oid = to_regclass({table}) AND held.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    UNION ALL
    SELECT format('GRANT %s (%I) ON {alias} TO %s', held.privilege_type, a.attname,
      CASE held.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(held.grantee)) END)
    FROM pg_attribute a, aclexplode(a.attacl) held
    WHERE a.attrelid = to_regclass({table}) AND a.attname = ANY (ARRAY[{columns}]::name[])
      AND held.privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
  LOOP
    EXECUTE given;
  END LOOP;
END
$contraflow$"""


class PostgreSQLTables(Tables):
    """PostgreSQL: a view that checks privileges and row-level security as the table itself does (from 15 on)."""

    exclusive = "ACCESS EXCLUSIVE"
    referring = "SHARE ROW EXCLUSIVE on the tables it refers to"

    def _comments(self, table: sa.Table) -> list[Statement]:
        sent = []
        if table.comment:
            sent.append(Statement(sql=self._text(sa.schema.SetTableComment(table))))
        sent += [
            Statement(sql=self._text(sa.schema.SetColumnComment(column))) for column in table.columns if column.comment
        ]
        return sent

    def make(self, step: MakeTable, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.make`. Raises CF116 for a column of an enumerated type that does not exist."""
        for column in step.definition.columns:
            type_ = column.type
            if found is None or not isinstance(type_, sa.types.Enum) or not type_.native_enum:
                continue
            if type_.name not in found.details["enums"]:
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"{step.table}.{column.name} is of the type {type_.name}, which does not exist.",
                        why="an upgrade adds tables and columns, not types.",
                        instead="create the type in an earlier revision, or write Enum(..., native_enum=False).",
                    )
                )
        return super().make(step, found)

    def add_alias(self, step: AddAlias, found: Found | None) -> list[Statement]:  # noqa: ARG002 - for SQLite
        """See :meth:`Tables.add_alias`. Whoever may use the table may use the view."""
        alias, table = (self.compiler.table(name, step.schema) for name in (step.alias, step.table))
        options = " WITH (security_invoker = true)" if self.version >= (15,) else ""
        grants = _GRANTS.format(
            alias=alias.replace("'", "''").replace("%", "%%"),
            table=plain_literal(table),
            columns=", ".join(plain_literal(name) for name in step.columns),
        )
        return [
            Statement(sql=f"CREATE VIEW {alias}{options} AS SELECT {self._columns(step)} FROM {table}"),
            Statement(sql=grants),
        ]

    def take_name(self, step: TakeName, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.take_name`.

        The view is locked first, and with it its table: a writer locks them in this order.
        """
        if self._is_named(step, found):
            return []
        alias, table = (self.compiler.table(name, step.schema) for name in (step.alias, step.table))
        rename = f"ALTER TABLE {table} RENAME TO {self.compiler.quote(step.alias)}"
        sent = [Statement(sql=rename, lock=self.exclusive)]
        if found is None or step.alias in found.names:
            lock = Statement(sql=f"LOCK TABLE {alias} IN ACCESS EXCLUSIVE MODE", lock=f"{self.exclusive} on both")
            sent = [lock, self._drop("VIEW", step.alias, step.schema), *sent]
        return sent


class MySQLTables(Tables):
    """MySQL and MariaDB: a view, with the privileges of whoever uses it.

    RENAME TABLE renames views as well, and all that it names in one moment; it locks the names in their order. A writer
    locks the view, then the table. If the server finds the two waiting for each other, it lets the writer begin anew,
    but with the view as it had read it, and under that there is no table any more (error 1356, MySQL 9.7 and MariaDB
    10.11). So where the table's name comes first, the table is moved behind the view's name first, with another view in
    its place: that rename waits for nobody who waits for it.
    """

    exclusive = "EXCLUSIVE metadata lock"
    referring = "EXCLUSIVE metadata lock on the tables it refers to, for a moment"

    def add_alias(self, step: AddAlias, found: Found | None) -> list[Statement]:  # noqa: ARG002 - for SQLite
        """See :meth:`Tables.add_alias`."""
        return [self._view(step.alias, step.table, step.columns, step.schema)]

    def _view(self, name: str, table: str, columns: Iterable[str], schema: str | None) -> Statement:
        listed = ", ".join(map(self.compiler.quote, columns))
        view = f"VIEW {self.compiler.table(name, schema)} AS SELECT {listed} FROM {self.compiler.table(table, schema)}"
        return Statement(sql=f"CREATE OR REPLACE ALGORITHM = MERGE SQL SECURITY INVOKER {view}")

    def make_way(self, step: MakeWay, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.make_way`."""
        if _in_order(step) or (found is not None and not (found.exists and step.alias in found.names)):
            return []
        names = _Names(step)
        behind, table = (self.compiler.table(name, step.schema) for name in (names.behind, step.table))
        columns = ["<its columns>"] if found is None else list(found.columns)
        left = found is not None and names.behind in found.names
        return [
            # For a moment an empty table, without which the view could not be made.
            *([self._drop("TABLE", names.behind, step.schema)] if left else []),
            Statement(sql=f"CREATE TABLE {behind} LIKE {table}"),
            self._view(names.bridge, names.behind, columns, step.schema),
            self._drop("TABLE", names.behind, step.schema),
            self._rename(step, (step.table, names.behind), (names.bridge, step.table)),
        ]

    def take_name(self, step: TakeName, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.take_name`."""
        names = _Names(step)
        if found is None:
            stands = step.table if _in_order(step) else names.behind
        elif not found.exists and names.behind in found.names:
            stands = names.behind
        elif self._is_named(step, found):
            return []
        else:
            stands = step.table
        parked = [(step.alias, names.parked)] if found is None or step.alias in found.names else []
        return [self._rename(step, *parked, (stands, step.alias))]

    def _rename(self, step: TakeName | MakeWay, *pairs: tuple[str, str]) -> Statement:
        parts = [" TO ".join(self.compiler.table(name, step.schema) for name in pair) for pair in pairs]
        return Statement(sql=f"RENAME TABLE {', '.join(parts)}", lock=f"{self.exclusive} on all of the names")

    def drop_alias(self, step: DropAlias, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.drop_alias`: also what a rename left behind, or one that could not be."""
        names = _Names(step)
        if found is None:
            views = [names.parked, *([] if _in_order(step) else [step.table])] if step.parked else [step.alias]
            return [self._drop("VIEW", name, step.schema) for name in views]
        if step.parked:
            views = [] if found.exists else [names.parked, step.table]
            return [self._drop("VIEW", name, step.schema) for name in views if name in found.names]
        views = [step.alias, names.bridge] if found.exists else []
        dummy = [names.behind] if found.exists and names.behind in found.names else []
        return [
            *(self._drop("VIEW", name, step.schema) for name in views if name in found.names),
            *(self._drop("TABLE", name, step.schema) for name in dummy),
        ]


def _in_order(step: MakeWay | TakeName | DropAlias) -> bool:
    return step.alias.encode() < step.table.encode()


class _Names:
    """The names that a rename needs for a moment."""

    def __init__(self, step: MakeWay | TakeName | DropAlias) -> None:
        self.parked = f"{step.name}_v"
        """The view that was the alias."""
        self.bridge = f"{step.name}_b"
        """The view that comes into the table's place."""
        self.behind = f"{step.alias}~"
        """The table meanwhile: a name that comes after the alias."""


def _gone(table: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF101",
            what=f"the table {table} does not exist.",
            why="it was dropped or renamed after the upgrade was planned.",
            instead="bring it back, or roll the upgrade back.",
        )
    )
