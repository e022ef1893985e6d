"""Writing a value into the NULLs of a column, in ranges of the key."""

from __future__ import annotations

from contraflow.dialects.base import BackfillText, escape
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.data import beyond, bounds
from contraflow.steps import FillNulls

__all__ = ["mend_text"]


def mend_text(step: FillNulls, compiler: Compiler) -> BackfillText:
    """The statements; rows that hold a value are passed over. Without a key: one statement for all rows."""
    quote = compiler.quote
    table = compiler.table(step.table, step.schema)
    column = quote(step.mend.column)
    columns = [escape(quote(name)) for name in step.mend.key]
    count = escape(f"SELECT count(*) FROM {table} WHERE {column} IS NULL")
    update = escape(f"UPDATE {table} SET {column} = {step.mend.text} WHERE {column} IS NULL")
    if not columns:
        return BackfillText(
            first_bound=None, bound=None, first_fill=update, fill=update, remaining=count, estimate=count
        )
    first_bound, bound = bounds(compiler, table, columns)
    first_fill = f"{update} AND {beyond(compiler, columns, '<=', 'u')}"
    return BackfillText(
        first_bound=first_bound,
        bound=bound,
        first_fill=first_fill,
        fill=f"{first_fill} AND {beyond(compiler, columns, '>', 'k')}",
        remaining=count,
        # There are few such rows as a rule.
        estimate=count,
    )
