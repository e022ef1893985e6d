"""Values for rows that violate a new constraint: what contract writes into them, before it makes the constraint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contraflow import expressions
from contraflow.constraints import Constraint, ForeignKey
from contraflow.installed import Index, Mend
from contraflow.lens import Row
from contraflow.operations.base import Repair, Schema, TableName, find_column, incomplete
from contraflow.operations.gathering import TablePlan

__all__ = ["Values", "described_repair", "repair_of", "repairs"]

Values = Mapping[str, Callable[[Row], Any]]
"""A column, and the value that it gets, over the row that violates the constraint."""


def repair_of(
    name: str, table: TableName, schema: Schema | None, values: Values | None, reads: Sequence[str]
) -> tuple[Repair, ...]:
    """The repair that an operation declares, none without one. Raises ``CF116`` for more than one column.

    ``schema`` gives columns their types; None for a look at the declaration alone.
    """
    if not values:
        return ()
    if len(values) > 1:
        raise incomplete(f"repair= of {name} names {', '.join(values)}.", "name one column: it is what makes rows fit.")
    ((column, value),) = values.items()

    def cell(read: str) -> expressions.Ref:
        return expressions.Ref(read) if schema is None else expressions.Ref(read, find_column(schema, table, read).type)

    if schema is not None:
        find_column(schema, table, column)
    row = Row({read: cell(read) for read in reads})
    try:
        return (Repair(of=name, column=column, value=expressions.validate(value(row))),)
    except (TypeError, ValueError) as error:
        raise incomplete(
            f"repair= of {name} raises {type(error).__name__}: {error}.",
            "it is called once, with columns instead of values, and must return an expression over those in reads=.",
        ) from error


def described_repair(name: str, values: Values | None, reads: Sequence[str]) -> dict[str, Any]:
    """The repair as plain data; nothing without one, so that the declaration means what it always meant."""
    found = repair_of(name, (None, ""), None, values, reads)
    return {"repair": [[repair.column, expressions.describe(repair.value)] for repair in found]} if found else {}


def repairs(
    found: TablePlan,
    built: Sequence[Index],
    constrained: Sequence[Constraint],
    write: Callable[[expressions.Expression], str],
) -> tuple[Mend, ...]:
    """What contract writes, for the constraints that it makes. Raises ``CF116`` where it could not."""
    late: dict[str | None, Index | Constraint] = {one.name: one for one in (*built, *constrained) if one.late}
    key = tuple(column.name for column in found.table.primary_key.columns)
    mends = []
    for repair in found.repairs:
        made = late.get(repair.of)
        if made is None:
            continue  # no row can violate it
        title = f"{found.name[1]}.{repair.column}"
        if repair.column not in found.columns or repair.column in key or not key:
            raise incomplete(
                f"{title} is to make rows fit {repair.of}, and is dropped or in the primary key, or there is none.",
                "name a column that the new release has; the key tells which row is written.",
            )
        if isinstance(made, ForeignKey) and (made.target_schema, made.target) == found.name:
            raise incomplete(
                f"{title} is to make rows fit {repair.of}, which refers to its own table.",
                "mend such rows by hand: MySQL and MariaDB update no table that the same statement reads (error 1093).",
            )
        mends.append(Mend(column=repair.column, text=write(repair.value), key=key, of=repair.of))
    return tuple(mends)
