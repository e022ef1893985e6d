"""Columns whose two shapes only Python can compute from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.opaque import Opaque
from contraflow.operations.base import Fragment, Schema, default_text, find_column
from contraflow.problems import Problem, ProblemError

__all__ = ["OpaqueColumns"]


@dataclass(frozen=True, kw_only=True)
class OpaqueColumns:
    """Turn the ``old`` columns of an opaque lens into its ``new`` ones, with functions that only Python can compute.

    ``columns`` are the new columns in their final shape. Where the old release writes the old columns, a trigger
    empties the new ones and marks the row; ``migrate`` computes them, and contract refuses while a marked row is left.
    The new release writes both sides through an :class:`~contraflow.OpaqueWriter` until contract: a write of the new
    columns alone is refused by the trigger, since nobody could tell the old release what it means.

    The table may have no other operation with a lens in the same upgrade (``CF116``).
    """

    table: str
    columns: Sequence[sa.Column[Any]]
    lens: Opaque
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if {column.name for column in self.columns} != set(self.lens.new):
            raise ProblemError(
                Problem(
                    code="CF116",
                    what=f"columns= of {self.table} and new= of its opaque lens name different columns.",
                    why="each new column is made by this operation, and computed by its lens.",
                    instead=f"give columns= a sa.Column for each of {', '.join(self.lens.new)}, and no other.",
                )
            )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        for name in self.lens.old:
            find_column(schema, table, name)
        return Fragment(table=table, add=tuple(self.columns), drop=tuple(self.lens.old), opaque=self.lens)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "OpaqueColumns",
            "table": [self.schema, self.table],
            "columns": [
                [column.name, repr(column.type), bool(column.nullable), default_text(column)] for column in self.columns
            ],
            "lens": self.lens.describe(),
        }
