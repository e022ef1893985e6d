"""Reflection: the application's tables, as they were before the upgrade."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Adapter
from contraflow.installed import Installed
from contraflow.operations.base import TableName
from contraflow.operations.held import EXCLUSIONS
from contraflow.operations.widening import SPELT
from contraflow.problems import Problem, ProblemError
from contraflow.steps import AddColumns, Hold, NumberColumn, Phases

__all__ = ["UNREAD", "added_types", "full_name", "old_shape", "spell_types"]

UNREAD = "Skipped unsupported reflection of expression-based index|Can't validate argument 'dialect_options'"
"""What SQLAlchemy warns of where it reads SQLite's tables; and 2.1.9 where a check of PostgreSQL is NOT VALID, of which
it keeps all but that.
"""


def full_name(schema: str | None, table: str) -> str:
    """The table as people write it."""
    return f"{schema}.{table}" if schema else table


def added_types(phases: Phases) -> dict[TableName, dict[str, sa.types.TypeEngine[Any]]]:
    """The types of the columns that expand adds, by table and name."""
    added: dict[TableName, dict[str, sa.types.TypeEngine[Any]]] = {}
    for block in phases.expand:
        for step in block.steps if isinstance(block, Hold) else (block.step,):
            if isinstance(step, AddColumns):
                new = added.setdefault((step.schema, step.table), {})
                new.update((op.column.name, op.column.type) for op in step.columns)
            elif isinstance(step, NumberColumn) and step.column is not None:
                added.setdefault((step.schema, step.table), {})[step.column.name] = step.column.type
    return added


def old_shape(
    connection: sa.Connection, adapter: Adapter, names: Iterable[TableName], installed: Sequence[Installed] = ()
) -> dict[TableName, sa.Table]:
    """The tables of ``names`` that exist, without what ``installed`` has put on them.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF205`` for a view: no column can be added to one.
    """
    inspector = sa.inspect(connection)
    metadata = sa.MetaData()
    known = {(item.schema, item.table): item for item in installed}
    new = {(item.schema, item.renamed or item.table) for item in installed if item.renamed or item.created}
    tables: dict[TableName, sa.Table] = {}
    for schema, name in sorted(names, key=lambda pair: (pair[0] or "", pair[1])):
        if (schema, name) in new or not inspector.has_table(name, schema=schema):
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
        kept = (*(pair.marker for pair in item.pairs), *(copy.image for copy in item.copies)) if item else ()
        hidden = {*item.added, item.marker, *kept, *(one.shadow for one in item.widened)} if item else set()
        columns = [column["name"] for column in inspector.get_columns(name, schema=schema)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=UNREAD)
            table = sa.Table(
                name,
                metadata,
                schema=schema,
                autoload_with=connection,
                include_columns=[column for column in columns if column not in hidden],
                resolve_fks=False,
            )
        details = adapter.find(connection, name, schema).details
        for column in (*details.get("never_null", ()), *((*item.relaxed, *item.loosened) if item else ())):
            if column in table.c:
                table.c[column].nullable = False
        if item and item.key and item.numbered and set(item.key.old) <= set(table.c.keys()):
            # Where the server numbers nothing but a primary key, the new one stands already.
            table.append_constraint(sa.PrimaryKeyConstraint(*item.key.old, name=item.key.old_name))
        spell_types(table, details.get("types", {}))
        for column, comment in details.get("comments", {}).items():
            if column in table.c:
                # Of a column of MySQL's whose default SQLAlchemy 2.1.9 cannot read it finds no comment either.
                table.c[column].comment = comment
        _read_documents(table)
        if item:
            spell_types(table, {one.column: one.old for one in item.widened})
        for change in item.redefaulted if item else ():
            if change.column in table.c:
                clause = None if change.old is None else sa.DefaultClause(sa.text(change.old.replace(":", "\\:")))
                table.c[change.column].server_default = clause
        _complete(table, details.get("unnamed", {}).values())
        _complete_indexes(table, details.get("expressions", {}))
        table.info[EXCLUSIONS] = details.get("exclusions", {})
        _collate(table, details.get("collations", {}))
        made = {made.name for made in (*item.built, *item.constrained)} if item else set()
        # An index that the server made for a foreign key by itself goes with it.
        _hide(table, made, indexes={*made, *details.get("key_indexes", {}).values()})
        tables[schema, name] = table
    return tables


def spell_types(table: sa.Table, types: Mapping[str, str]) -> None:
    """Tell planning how the server itself writes the columns' types."""
    for name, text in types.items():
        if name in table.c:
            table.c[name].info[SPELT] = text


def _read_documents(table: sa.Table) -> None:
    """Give columns that the server spells as JSON that type: SQLAlchemy takes MariaDB's, a LONGTEXT below, for text."""
    for column in table.columns:
        if column.info.get(SPELT) == "json" and not isinstance(column.type, sa.types.JSON):
            column.type = sa.JSON()


def _complete(table: sa.Table, unique: Iterable[tuple[str, ...]]) -> None:
    """Add unique constraints that SQLAlchemy did not find: of SQLite it reads the table's text by a pattern."""
    known = {
        tuple(constraint.columns.keys())
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
    }
    for columns in unique:
        if columns not in known and set(columns) <= set(table.columns.keys()):
            table.append_constraint(sa.UniqueConstraint(*columns))


def _complete_indexes(table: sa.Table, expressions: Mapping[str, tuple[bool, str]]) -> None:
    """Add indexes over expressions that SQLAlchemy does not read: each unique or not, and the SQL in which it says
    what it stands on.
    """
    for name, (unique, text) in expressions.items():
        table.indexes = {index for index in table.indexes if index.name != name}
        sa.Index(name, sa.text(text.replace(":", "\\:")), unique=unique, _table=table)


def _collate(table: sa.Table, collations: Mapping[str, str]) -> None:
    """Give types the collations that SQLAlchemy did not find: a copy of the column must sort and compare alike."""
    for column in table.columns:
        if isinstance(column.type, sa.types.String) and column.name in collations:
            column.type = column.type.copy()
            column.type.collation = collations[column.name]


def _hide(table: sa.Table, names: set[str | None], *, indexes: set[str | None]) -> None:
    """Take indexes and constraints from the table that stand on old columns only, so that reflection shows them."""
    table.indexes = {index for index in table.indexes if index.name not in indexes}
    table.constraints = {constraint for constraint in table.constraints if constraint.name not in names - {None}}
