"""What the new release's nodes use while an opaque lens is open: both shapes of a row, written and read as one.

No trigger can compute the other side, so the application does, until contract; afterwards the same calls write the new
shape alone. Which of the two it is, is asked of the table itself, inside of the caller's transaction and under the lock
that the server takes for it anyway, so contract cannot come between the question and the write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from contraflow.faults import Fault, classify
from contraflow.operations.opaque import OpaqueColumns
from contraflow.operations.planning import MARKER
from contraflow.problems import Problem, ProblemError

__all__ = ["OpaqueWriter"]

_Answer = TypeVar("_Answer")

_STANDING = {
    "postgresql": "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:quoted) AND NOT attisdropped"
    " AND attname IN (:marker, :column)",
    "mysql": "SELECT column_name FROM information_schema.columns WHERE table_schema = coalesce(:schema, database())"
    " AND table_name = :table AND column_name IN (:marker, :column)",
    "sqlite": "SELECT name FROM pragma_table_xinfo(:table, coalesce(:schema, 'main')) WHERE name IN (:marker, :column)",
}
_STANDING["cockroachdb"] = _STANDING["postgresql"]
_STANDING["mariadb"] = _STANDING["mysql"]


class OpaqueWriter:
    """Reads and writes the rows of a table with an opaque lens, for the new release.

    ``operation`` is the one that the revision declares; keep its functions where both the revision and the application
    can import them. ``table`` is the application's own table, of which the types of other columns are taken.

    Every method takes a :class:`sqlalchemy.Connection` inside a transaction (of an ORM session:
    ``session.connection()``), and adds one or two short queries to it until contract; then none. In AUTOCOMMIT a write
    that meets contract may fail, with nothing written.

    ``values`` name columns; those of the new side are written all together or not at all. Raises
    :class:`~contraflow.problems.ProblemError` with ``CF102`` otherwise, or where ``backward`` does not give the old
    columns, and whatever the lens's functions raise.
    """

    def __init__(self, operation: OpaqueColumns, *, table: sa.Table | None = None) -> None:
        self._lens = operation.lens
        self._name = operation.table
        self._schema = operation.schema
        own = {} if table is None else {column.name: column.type for column in table.columns}
        self._types: dict[str, Any] = {**own, **{column.name: column.type for column in operation.columns}}
        self._contracted = False

    def insert(self, connection: sa.Connection, values: Mapping[str, Any]) -> None:
        """Insert one row."""
        self._check(values)

        def send() -> int:
            written = self._both(connection, values)
            table = self._table(written)
            if MARKER in written:
                written[MARKER] = 1
            return connection.execute(sa.insert(table).values(written)).rowcount

        self._sent(connection, send)

    def update(self, connection: sa.Connection, where: Mapping[str, Any], values: Mapping[str, Any]) -> int:
        """Update the rows whose columns equal ``where``; the number of rows."""
        self._check(values)

        def send() -> int:
            written = self._both(connection, values)
            table = self._table([*where, *written])
            if MARKER in written:
                # Every write of both sides changes the marker: the trigger tells it by that.
                written[MARKER] = sa.case((table.c[MARKER] == 1, 2), else_=1)
            statement = sa.update(table).where(*_equal(table, where)).values(written)
            return connection.execute(statement).rowcount

        return self._sent(connection, send)

    def read(
        self, connection: sa.Connection, where: Mapping[str, Any], columns: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """The new side, and ``columns`` besides, of the rows whose columns equal ``where``.

        Where the old release wrote a row last, and nobody has computed it yet, it is computed here; nothing is written.
        """

        def send() -> list[dict[str, Any]]:
            stands = self._stands(connection, to_write=False)
            wanted = [*columns, *(name for name in self._lens.new if name not in columns)]
            names = dict.fromkeys([*wanted, *where, *((*self._lens.old, MARKER) if stands else ())])
            table = self._table(list(names))
            query = sa.select(*(table.c[name] for name in names)).where(*_equal(table, where))
            rows = [dict(zip(names, row, strict=True)) for row in connection.execute(query)]
            for row in rows:
                if stands and row[MARKER] is None:
                    row.update(self._lens.new_from(row))
            return [{name: row[name] for name in wanted} for row in rows]

        return self._sent(connection, send)

    def _check(self, values: Mapping[str, Any]) -> None:
        given = [name for name in self._lens.new if name in values]
        if given and len(given) < len(self._lens.new):
            raise ProblemError(
                Problem(
                    code="CF102",
                    what=f"a write of {self._name} gives {', '.join(given)}, and not the rest of the new side.",
                    why="the old release's values are computed from all of it.",
                    instead=f"give {', '.join(self._lens.new)} together.",
                )
            )

    def _both(self, connection: sa.Connection, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values to write, the old side among them while it stands."""
        if self._lens.new[0] not in values or not self._stands(connection, to_write=True):
            return dict(values)
        return {**values, **self._lens.old_from(values), MARKER: None}

    def _table(self, names: Sequence[str] | Mapping[str, Any]) -> sa.TableClause:
        columns = [sa.column(name, self._types.get(name)) for name in dict.fromkeys(names)]
        return sa.table(self._name, *columns, schema=self._schema)

    def _stands(self, connection: sa.Connection, *, to_write: bool) -> bool:
        """Whether the old shape is still there; it stays until the caller's transaction ends."""
        if self._contracted:
            return False
        preparer = connection.dialect.identifier_preparer
        # Reading nothing of the table takes the lock that contract waits for; then its columns can be looked up. With
        # FOR UPDATE it is at once the lock of a write: MySQL lets whoever asks for that later, while contract waits, be
        # the victim of a deadlock (1213).
        nothing = sa.select(sa.literal(1)).select_from(self._table([])).where(sa.false())
        connection.execute(nothing.with_for_update() if to_write else nothing)
        parameters = {
            "quoted": preparer.format_table(self._table([])),
            "schema": self._schema,
            "table": self._name,
            "marker": MARKER,
            "column": self._lens.new[0],
        }
        query = _STANDING[connection.dialect.name]
        used = {name: value for name, value in parameters.items() if f":{name}" in query}
        found = set(connection.execute(sa.text(query), used).scalars())
        # Final: after contract nothing brings the old shape back. Before expand the new one is not there either.
        self._contracted = MARKER not in found and self._lens.new[0] in found
        return MARKER in found

    def _sent(self, connection: sa.Connection, send: Callable[[], _Answer]) -> _Answer:
        """What ``send`` returns. SQLite locks nothing for a query outside of a transaction: it is asked once more where
        the old shape went in between.
        """
        try:
            return send()
        except sa.exc.DBAPIError as error:
            gone = classify(error) is Fault.NO_SUCH_COLUMN
            if connection.dialect.name != "sqlite" or not gone or self._contracted:
                raise
        return send()


def _equal(table: sa.TableClause, where: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in where.items()]
