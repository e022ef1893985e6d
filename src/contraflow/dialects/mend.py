"""Writing a value into the NULLs of a column, or into rows that violate a constraint, in ranges of the key."""

from __future__ import annotations

from collections.abc import Sequence

from contraflow.dialects.base import BackfillText, escape
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.constraint_text import violated
from contraflow.dialects.data import beyond, bounds
from contraflow.installed import Index
from contraflow.steps import FillNulls

__all__ = ["mend_text"]


def mend_text(step: FillNulls, compiler: Compiler) -> BackfillText:
    """The statements; rows that hold a value (or violate nothing) are passed over. Without a key: one statement for
    all rows.
    """
    quote = compiler.quote
    table = compiler.table(step.table, step.schema)
    column = quote(step.mend.column)
    columns = [escape(quote(name)) for name in step.mend.key]
    if isinstance(step.violated, Index):
        keys = [quote(name) for name in step.mend.key]
        return _alike(table, f"{column} = {step.mend.text}", keys, step.violated, compiler)
    wrong = f"{column} IS NULL" if step.violated is None else violated(step.table, step.violated, compiler)
    count = escape(f"SELECT count(*) FROM {table} WHERE {wrong}")
    update = escape(f"UPDATE {table} SET {column} = {step.mend.text} WHERE {wrong}")
    if not columns:
        return BackfillText(
            first_bound=None, bound=None, first_fill=update, fill=update, remaining=count, estimate=count
        )
    return _ranged(update, bounds(compiler, table, columns), columns, count, compiler)


def _ranged(
    update: str, bound: tuple[str, str], columns: Sequence[str], count: str, compiler: Compiler
) -> BackfillText:
    first_fill = f"{update} AND {beyond(compiler, columns, '<=', 'u')}"
    return BackfillText(
        first_bound=bound[0],
        bound=bound[1],
        first_fill=first_fill,
        fill=f"{first_fill} AND {beyond(compiler, columns, '>', 'k')}",
        remaining=count,
        # There are few such rows as a rule.
        estimate=count,
        # A value that is NULL itself, or does not make a row fit, would be written for ever.
        once=True,
    )


def _alike(table: str, change: str, keys: Sequence[str], index: Index, compiler: Compiler) -> BackfillText:
    """Of the rows that are alike under an index, the first one by its key is left as it is.

    The rows are found by a query of their own (MySQL and MariaDB update no table that the statement reads otherwise:
    error 1093), so each batch reads the table once; the batches count such rows only.
    """
    parts = [compiler.quote(part) if part in index.columns else f"({part})" for part in index.key]
    given = " AND ".join([*(f"{part} IS NOT NULL" for part in parts), *([f"({index.where})"] if index.where else [])])
    names = ", ".join(keys)
    rows = (
        f"(SELECT {names} FROM (SELECT {names}, row_number() OVER (PARTITION BY {', '.join(parts)} ORDER BY {names})"
        f" AS contraflow_place FROM {table} WHERE {given}) contraflow_alike WHERE contraflow_place > 1) contraflow_rows"
    )
    update = escape(f"UPDATE {table} SET {change} WHERE ({names}) IN (SELECT {names} FROM {rows})")
    columns = [escape(name) for name in keys]
    count = escape(f"SELECT count(*) FROM {rows}")
    return _ranged(update, bounds(compiler, rows, columns), columns, count, compiler)
