"""MariaDB 10.6 and later: where it differs from MySQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from contraflow.dialects.base import Found, LockTimeout, Statement
from contraflow.dialects.imposed import Imposition, insert_select
from contraflow.dialects.mysql import MySQLAdapter, error_number
from contraflow.steps import Hold

__all__ = ["MariaDBAdapter"]

_DROP = "DROP TRIGGER "
_SYNTAX = 1064
_MISREAD = "has an error in its body"
_NO_TRIGGER = 1360
_ORPHAN = 4181
_ASIDE = "contraflow_aside"
"""What a table is called for the moment in which it is renamed there and back."""


class MariaDBAdapter(MySQLAdapter):
    """MariaDB."""

    product = "mariadb"
    floor = (10, 6)
    shows_indexed_columns = False
    _comments_table = "ALGORITHM=INSTANT"
    _growing = 127
    imposes: ClassVar[tuple[Imposition, ...]] = (*MySQLAdapter.imposes, insert_select)

    def _prepare_more(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET SESSION max_statement_time = 0")

    def hold(self, hold: Hold, found: Found | None) -> list[Statement]:
        """See :meth:`Adapter.hold`. Before the first DROP TRIGGER comes a statement that does nothing, but fails where
        the server has a broken copy of the table's triggers (see :meth:`heal`): DROP TRIGGER would not fail, but write
        down what stands in the copy, and other triggers of the table were lost.
        """
        sent = super().hold(hold, found)
        place = next((place for place, one in enumerate(sent) if one.sql.startswith(_DROP)), None)
        if place is not None:
            name, table = sent[place].sql.removeprefix(_DROP), self.compiler.table(hold.table, hold.schema)
            probe = f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE INSERT ON {table} FOR EACH ROW BEGIN END"
            sent.insert(place, Statement(sql=probe, lock=sent[place].lock))
        return sent

    def send(self, connection: sa.Connection, statement: Statement) -> None:
        """See :meth:`Adapter.send`. Raises :class:`LockTimeout` where DROP TRIGGER succeeds, but the trigger stays.

        One that is gone, though the server took it for an orphan, was lost by the DROP TRIGGER before.
        """
        super().send(connection, statement)
        if statement.sql.startswith(_DROP):
            told = connection.exec_driver_sql("SHOW WARNINGS").all()
            if any(number == _ORPHAN for _, number, _ in told) and _table_of(connection, statement.sql):
                raise LockTimeout(f"the server has not found the trigger: {statement.sql}")

    def heal(
        self,
        connection: sa.Connection,
        error: BaseException,
        timeout: float,
        table: tuple[str | None, str] | None = None,
    ) -> bool:
        """See :meth:`Adapter.heal`: a broken copy of a table's triggers, which the server keeps in memory.

        It reads the triggers each time it opens a table. Where the statement that opens it is ended at that moment (by
        KILL QUERY or max_statement_time, or on a Galera node, which lets a schema change or another node's write go
        first), what was read so far is kept, and whatever gets this copy fails with 1064, "Unknown trigger has an error
        in its body: 'Query was empty'" or the like. ENABLE KEYS changes nothing in an InnoDB table, but makes the
        server open it anew; FLUSH TABLES would ask for the privilege RELOAD.

        DROP TRIGGER that gets such a copy does not fail. It may take the trigger for an orphan (warning 4181), and
        remove the trigger's file (.TRN), but not the trigger, which fires on, and cannot be dropped any more (1360). A
        new name of the table writes these files anew.

        All of it seen on 10.11.18; MySQL 9.7.4 keeps no such copy.
        """
        number = error_number(error)
        if number == _SYNTAX and _MISREAD in str(error):
            schema, name = table or (None, None)
            query = sa.text(
                "SELECT DISTINCT event_object_schema, event_object_table FROM information_schema.triggers"
                " WHERE (event_object_schema = database() AND instr(action_statement, '/* contraflow '))"
                " OR (event_object_schema = coalesce(:schema, database()) AND event_object_table = :name)"
            ).bindparams(schema=schema, name=name)
            places = connection.execute(query).all()
            mend = "ALTER TABLE {0} ENABLE KEYS"
        elif number == _NO_TRIGGER and isinstance(error, sa.exc.DBAPIError):
            places = _table_of(connection, error.statement or "")
            mend = "RENAME TABLE {0} TO {1}, {1} TO {0}"
        else:
            return False
        with self.running_online(connection, timeout):
            for schema, name in places:
                aside = self.compiler.table(_ASIDE, str(schema))
                self.send(connection, Statement(sql=mend.format(self.compiler.table(str(name), str(schema)), aside)))
        return True

    def _has_default(self, default: object, extra: str) -> bool:  # noqa: ARG002 - for MySQL
        return default is not None and default != "NULL"

    def _is_worn(self, connection: sa.Connection, table: str, schema: str | None) -> bool:  # noqa: ARG002
        return False  # MariaDB does not count instant changes

    def _expressions(self, rows: Callable[[str], list[Any]]) -> dict[str, tuple[bool, str]]:  # noqa: ARG002
        return {}  # MariaDB has no indexes over expressions

    def _type(self, column: str, type_: str, create: str) -> str:
        return "json" if f"json_valid({self.compiler.quote(column)})" in create else type_

    def _needs_copy(self, name: str, found: Found) -> bool:
        # TIMESTAMP NOT NULL turns a NULL into the present time, even with a constant default: error 1846 in place. And
        # with a column that is computed and stored it does not do that of any one (10.11: error 1845).
        is_time = str(found.details["types"].get(name, "")).startswith("timestamp")
        return is_time or found.details["stored"] or self._rebuilt_by_copy(found)

    def _rebuilt_by_copy(self, found: Found) -> bool:
        return bool(found.details["obstacle"])

    def _is_cut(self, column: str) -> bool:  # noqa: ARG002 - MariaDB keeps no names of dropped columns
        return False


def _table_of(connection: sa.Connection, sent: str) -> Sequence[sa.Row[Any]]:
    """Schema and name of the table that has the trigger which DROP TRIGGER names."""
    query = sa.text(
        "SELECT event_object_schema, event_object_table FROM information_schema.triggers"
        " WHERE (event_object_schema = database() AND :sent = concat('DROP TRIGGER `', trigger_name, '`'))"
        " OR :sent = concat('DROP TRIGGER `', event_object_schema, '`.`', trigger_name, '`') LIMIT 1"
    )
    return connection.execute(query, {"sent": sent}).all()
