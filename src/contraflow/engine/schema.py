"""Reflection: the application's tables, as they were before the upgrade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from contraflow.operations.base import TableName
from contraflow.problems import Problem, ProblemError
from contraflow.steps import Installed

__all__ = ["full_name", "old_shape"]


def full_name(schema: str | None, table: str) -> str:
    """The table as people write it."""
    return f"{schema}.{table}" if schema else table


def old_shape(
    connection: sa.Connection, names: Iterable[TableName], installed: Sequence[Installed] = ()
) -> dict[TableName, sa.Table]:
    """The tables of ``names`` that exist, without what ``installed`` has put on them.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF205`` for a view: no column can be added to one.
    """
    inspector = sa.inspect(connection)
    metadata = sa.MetaData()
    known = {(item.schema, item.table): item for item in installed}
    tables: dict[TableName, sa.Table] = {}
    for schema, name in sorted(names, key=lambda pair: (pair[0] or "", pair[1])):
        if not inspector.has_table(name, schema=schema):
            continue
        if name in inspector.get_view_names(schema=schema):
            raise ProblemError(
                Problem(
                    code="CF205",
                    what=f"{full_name(schema, name)} is a view.",
                    why="its rows are stored elsewhere, and change where the sync's triggers would not see it.",
                    instead="declare the change on the table that it reads.",
                )
            )
        item = known.get((schema, name))
        hidden = {*item.added, item.marker} if item else set()
        columns = [column["name"] for column in inspector.get_columns(name, schema=schema)]
        table = sa.Table(
            name,
            metadata,
            schema=schema,
            autoload_with=connection,
            include_columns=[column for column in columns if column not in hidden],
            resolve_fks=False,
        )
        for column in item.relaxed if item else ():
            if column in table.c:
                table.c[column].nullable = False
        tables[schema, name] = table
    return tables
