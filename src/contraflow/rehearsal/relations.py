"""What makes rows of several tables depend on each other: the words that models and clients share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from contraflow.operations.base import TableName
from contraflow.rehearsal.oracle import Rows, World
from contraflow.rehearsal.shapes import TableShape
from contraflow.rehearsal.transactions import Item

__all__ = ["Items", "Read", "Relation", "Shapes", "Written"]

Shapes: TypeAlias = Mapping[TableName, TableShape]
Items: TypeAlias = Callable[[TableName], Iterable[Item]]
Read: TypeAlias = Mapping[TableName, Sequence[Mapping[str, Any]]]
Written: TypeAlias = Sequence[tuple[Item, Sequence[World]]]
"""The rows that one statement has written, each with what it may have held before: nothing, if it was made."""


class Relation:
    """What an operation makes of the rows of a table where those of another one are written.

    :ivar tables: those whose rows depend on each other.
    :ivar bound: those whose model is one of its own.
    """

    tables: frozenset[TableName]
    bound: frozenset[TableName]

    def obstacle(self, old: Shapes, new: Shapes) -> str | None:  # noqa: ARG002 - for those that have one
        """Why rows of these tables cannot be foretold, None if they can."""
        return None

    def link(self, old: dict[TableName, TableShape], new: dict[TableName, TableShape]) -> None:
        """Say in the shapes of both releases what lets the workload make rows that belong together."""

    def begin(self, items: Items) -> Iterable[Item]:  # noqa: ARG002 - for those that have rows made
        """The rows that migrate has made of those there are."""
        return ()

    def beside(self, item: Item, items: Items) -> Iterable[Item]:  # noqa: ARG002 - likewise
        """The rows that are written together with this one."""
        return ()

    def learned(self, item: Item, items: Items) -> None:
        """Let other rows know by which keys each release knows a row, now that both are known."""

    def explains(self, table: TableName, row: Mapping[str, Any]) -> bool:  # noqa: ARG002 - likewise
        """Whether a row of the table that nobody has written was made for another one."""
        return False

    def torn(self, read: Read, items: Items) -> Iterable[tuple[Item, str]]:  # noqa: ARG002 - likewise
        """The rows of which only all tables together tell what is wrong, and that in words.

        :param read: what the new release reads of each table, while nobody writes.
        """
        return ()

    def follow(self, written: Written, items: Items, rows: Rows, *, sure: bool) -> Iterable[Item]:
        """Let other rows follow those that a statement has written, while both releases write.

        :param items: the rows of whoever has written them; ``rows`` tells what they may hold.
        :param sure: whether what lets them do so is there for certain.
        :returns: the rows that come into being; those that are gone may hold nothing but `ABSENT` then.
        """
        raise NotImplementedError
