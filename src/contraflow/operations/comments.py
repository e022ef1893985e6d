"""Comments of tables and columns, which no release reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contraflow.installed import Comment, Installed
from contraflow.operations.base import Fragment, Schema, check_comment, find_column, find_table
from contraflow.operations.gathering import TablePlan
from contraflow.steps import Block, Online, SetComments

__all__ = ["ChangeComment", "change_comment", "comment_blocks", "comments_of"]


@dataclass(frozen=True, kw_only=True)
class ChangeComment:
    """Give a table (``column=None``) or one of its columns another comment, or none (``comment=None``, or empty).

    ``contract`` does so, as its last step: until then the old comment stands, so there is nothing to roll back. What
    the same upgrade adds has the comment from the beginning; what it renames is called as the operations before this
    one leave it. On SQLite, which keeps no comments, nothing is done.
    """

    table: str
    column: str | None = None
    comment: str | None
    schema: str | None = None

    def __post_init__(self) -> None:
        check_comment(self.table if self.column is None else f"{self.table}.{self.column}", self.comment)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        find_table(schema, table)
        if self.column is not None:
            find_column(schema, table, self.column)
        # Servers keep none apart from an empty one.
        return Fragment(table=table, comment=Comment(column=self.column, text=self.comment or None))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "ChangeComment",
            "table": [self.schema, self.table],
            "column": self.column,
            "comment": self.comment or None,
        }


def change_comment(found: TablePlan, comment: Comment) -> None:
    """Let the table or the column have the comment."""
    found.commented[comment.column] = comment.text
    if comment.column is not None:
        # A later operation may give the column another name, under which it is a new one.
        column = found.columns[comment.column]._copy()  # noqa: SLF001 - SQLAlchemy's own way to have a column twice
        column.comment = comment.text
        found.columns[comment.column] = column


def comments_of(found: TablePlan) -> tuple[Comment, ...]:
    """The comments that what both releases have is given at contract."""
    both = found.columns.keys() & found.original.keys()
    return tuple(Comment(column=name, text=text) for name, text in found.commented.items() if name in {None, *both})


def comment_blocks(found: Installed) -> Iterator[Block]:
    """What gives the table and its columns their comments."""
    step = SetComments(table=found.table, schema=found.schema, comments=found.commented)
    yield Online(title=f"comment on {found.table}", table=found.table, schema=found.schema, step=step)
