"""New values of enumerated columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.installed import Installed, Labels
from contraflow.operations.base import Fragment, Schema, find_column, incomplete
from contraflow.operations.gathering import TablePlan
from contraflow.problems import Problem, ProblemError
from contraflow.steps import Block, ExtendEnums, Online

__all__ = ["AddEnumValues", "label_blocks", "label_problems"]

_SMALL = 255
"""Values that MySQL and MariaDB keep in one byte (manual, String Type Storage Requirements)."""


@dataclass(frozen=True, kw_only=True)
class AddEnumValues:
    """Add values to an enumerated column, behind those it has.

    SQLAlchemy's ``Enum`` refuses to read a value it does not know, so the old release must never meet one: ``contract``
    adds them, once no old node is left, and the new release must not write them before. (A release whose values the old
    one can read needs a column of another name, and a lens that gives the old one a value it knows:
    ``ChangeType(..., backward=lambda row: recode(row.state_2, {...}))``.)

    On PostgreSQL the column's type is altered, and with it every column of that type; on MySQL and MariaDB the column.
    Where the server has no such types, or the column is plain text to it, text of the longest value is made to fit, see
    :class:`~contraflow.WidenColumn`, and a check over the values is taken by ``DropCheck`` and ``AddCheck``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if there is no value, or one twice; when planned
    also with ``CF116`` if the column is not one of values, ``CF117`` if it has one of them already, ``CF205`` if the
    server would write every row anew.
    """

    table: str
    column: str
    values: Sequence[str]
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values or len(set(self.values)) < len(self.values):
            raise incomplete(f"no value is added to {self.table}.{self.column}, or one twice.", "name each value once.")

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        column = find_column(schema, table, self.column)
        type_ = column.type
        title = f"{self.table}.{self.column}"
        if isinstance(type_, sa.types.Enum) and type_.native_enum:
            return Fragment(table=table, extend=(self._labels(type_, title),))
        if not isinstance(type_, sa.types.String) or hasattr(type_, "values"):
            raise incomplete(
                f"{title} is {type_!r}, and has no values to add to.",
                "give the new shape a column of its own: ChangeType(...).",
            )
        longest = max(map(len, self.values))
        labels = Labels(column=self.column, values=tuple(self.values), native=False)
        if type_.length is None or longest <= type_.length:
            return Fragment(table=table, extend=(labels,))
        wide = column._copy()  # noqa: SLF001 - SQLAlchemy's own way to have a column twice
        wide.type = sa.String(longest)
        return Fragment(table=table, extend=(labels,), widen=(wide,))

    def _labels(self, type_: sa.types.Enum, title: str) -> Labels:
        if known := [value for value in self.values if value in type_.enums]:
            raise ProblemError(
                Problem(
                    code="CF117",
                    what=f"{title} has the value {known[0]!r} already.",
                    instead=f"its values are: {', '.join(type_.enums)}.",
                )
            )
        of_column = type(type_).__module__.startswith("sqlalchemy.dialects.mysql")
        if of_column and len(type_.enums) <= _SMALL < len(type_.enums) + len(self.values):
            raise ProblemError(
                Problem(
                    code="CF205",
                    what=f"{title} would have more than {_SMALL} values.",
                    why="the server would write every row anew while writers wait: each value takes two bytes then.",
                    instead="give the values to a column of another name: ChangeType(...).",
                )
            )
        name = "" if of_column else str(type_.name or "")
        return Labels(column=self.column, values=tuple(self.values), type_name=name, type_schema=type_.schema)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddEnumValues",
            "table": [self.schema, self.table],
            "column": self.column,
            "values": list(self.values),
        }


def label_problems(found: TablePlan) -> Iterator[Problem]:
    """``CF111`` for checks that would refuse new values of columns of plain text."""
    left = [holder for holder in found.holders if holder.constraint not in found.unconstrained]
    for one in found.labels:
        for holder in left:
            if not one.native and holder.kind == "check constraint" and holder.holds(one.column):
                yield Problem(
                    code="CF111",
                    what=f"{found.name[1]}.{one.column} cannot hold {one.values[0]!r}: {holder.title} stands on it.",
                    why="it says which values the column may have.",
                    instead=f'add DropCheck(table="{found.name[1]}", name="{holder.name}") to the change,'
                    "\nand AddCheck(...) over all values that the new release has.",
                )


def label_blocks(found: Installed) -> Iterator[Block]:
    """What adds the values."""
    step = ExtendEnums(table=found.table, schema=found.schema, labels=found.labels)
    yield Online(title=f"add values to {found.table}", table=found.table, schema=found.schema, step=step)
