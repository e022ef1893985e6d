"""Autogenerate beside an open upgrade: what Contraflow keeps in the database is not to be dropped.

Models know neither the journal's tables nor, of an open upgrade, the columns of the other release. ``alembic
revision --autogenerate`` and ``alembic check`` would propose to drop them, and with them what one of the releases
has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.util import DispatchPriority, PriorityDispatchResult

from contraflow.alembic.settings import read_settings
from contraflow.engine.journal import Journal, Tables
from contraflow.installed import Installed
from contraflow.operations.base import TableName

__all__ = ["leave_out"]


@comparators.dispatch_for("autogenerate", priority=DispatchPriority.LAST)
def leave_out(context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Take out of what autogenerate found: the journal's tables, and the columns that an open upgrade will settle."""
    connection, config = context.connection, context.migration_context.config
    if connection is None or config is None:
        return PriorityDispatchResult.CONTINUE
    tables = Tables(read_settings(config).options.schema)
    own = {(table.schema, table.name) for table in tables.metadata.tables.values()}
    installed = _installed(connection, tables)
    columns = {
        (item.schema, item.table): {*item.added, *item.dropped, *([item.marker] if item.marker else [])}
        for item in installed
    }
    comments = {(item.schema, item.table): {one.column for one in item.commented} for item in installed}
    # A renamed table is there under its old name, and as a view, which autogenerate does not look at.
    own |= {(item.schema, name) for item in installed for name in _lone(item)}
    default = sa.inspect(connection).default_schema_name
    upgrade_ops.ops[:] = _kept(upgrade_ops.ops, own, columns, comments, default)
    return PriorityDispatchResult.CONTINUE


def _installed(connection: sa.Connection, tables: Tables) -> Sequence[Installed]:
    """What an open upgrade put on each table, or will take away."""
    if not tables.exist(connection):
        return ()
    current = Journal(tables=tables, runner="").current(connection)
    return () if current is None or not current.open else current.installed


def _lone(item: Installed) -> tuple[str, ...]:
    """The names of the table that models of one release do not know."""
    if item.renamed:
        return (item.table, item.renamed)
    return (item.table,) if item.created or item.removed else ()


def _kept(
    found: Iterable[ops.MigrateOperation],
    own: set[TableName],
    columns: Mapping[TableName, set[str]],
    comments: Mapping[TableName, set[str | None]],
    default: str | None,
) -> list[ops.MigrateOperation]:
    kept = []
    for operation in found:
        if isinstance(operation, (ops.CreateTableOp, ops.DropTableOp)) and _is_one(
            operation.schema, operation.table_name, own, default
        ):
            continue
        if isinstance(operation, ops.ModifyTableOps):
            hidden = columns.get((operation.schema, operation.table_name), set())
            settled = comments.get((operation.schema, operation.table_name), set())
            operation.ops[:] = [
                inner for inner in operation.ops if _column(inner) not in hidden and not _comments(inner, settled)
            ]
            if operation.is_empty():
                continue
        kept.append(operation)
    return kept


def _is_one(schema: str | None, name: str, own: set[TableName], default: str | None) -> bool:
    return (schema, name) in own or (schema is None and (default, name) in own)


def _column(operation: Any) -> str | None:
    """The column that an operation drops or alters."""
    if isinstance(operation, (ops.DropColumnOp, ops.AlterColumnOp)):
        return operation.column_name
    return None


def _comments(operation: Any, settled: set[str | None]) -> bool:
    """Whether an operation does nothing but give a comment to what contract comments on; what else it does stays."""
    if isinstance(operation, (ops.CreateTableCommentOp, ops.DropTableCommentOp)):
        return None in settled
    if not isinstance(operation, ops.AlterColumnOp) or operation.column_name not in settled:
        return False
    operation.modify_comment = False
    return not operation.has_changes()
