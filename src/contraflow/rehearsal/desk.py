"""What all clients of a rehearsal share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from contraflow.operations.base import TableName
from contraflow.rehearsal.gate import Gate
from contraflow.rehearsal.history import History
from contraflow.rehearsal.hot import HotRow
from contraflow.rehearsal.nodes import Node, Statement
from contraflow.rehearsal.oracle import Stage, TableOracle
from contraflow.rehearsal.pairs import PairOracle
from contraflow.rehearsal.recorded import Replay, Without
from contraflow.rehearsal.rekeying import Rekeyed
from contraflow.rehearsal.relations import Relation
from contraflow.rehearsal.rule import Side

__all__ = ["Desk"]

_LARGEST_TOKEN = 2**31 - 10_000_000
"""Beyond that there may be no room in an INTEGER for those that follow."""


class Desk(Gate):
    """What all clients share: which releases serve, what they may be asked, and when everybody has to stand still."""

    def __init__(
        self,
        *,
        tables: Mapping[TableName, TableOracle],
        history: History,
        seed: int,
        clients: int,
        control: Callable[[Side, Statement, Mapping[str, Any] | None], bool],
        pairs: Sequence[PairOracle] = (),
        relations: Sequence[Relation] = (),
        calls: bool = False,
        replays: Mapping[Side, tuple[Replay, Without]] | None = None,
        crowd: int = 1_000,
    ) -> None:
        super().__init__(clients)
        self.replays = dict(replays or {})
        """Recorded transactions of a release, and what comes of them without an upgrade."""
        self.crowd = crowd
        """How many rows of one table a client has at most, or nearly so: then it deletes where it would insert."""
        self.calls = calls
        """The requests are calls of the releases' own workloads: rows belong to nobody, and cannot be foretold."""
        self.tables = tables
        self.mains = {pair.main: pair for pair in pairs}
        self.companions = {pair.companion: pair for pair in pairs}
        self.relations = relations
        self.related = frozenset(name for relation in relations for name in relation.tables)
        """Tables whose rows depend on each other: rows that belong together are one client's."""
        self.rekeyed = frozenset(relation.table for relation in relations if isinstance(relation, Rekeyed))
        """Tables whose rows each release knows by a key of its own."""
        self.history = history
        self.seed = seed
        self.control = control
        """Whether the same statement fails in the release's own schema, too, without an upgrade."""
        self.stage = Stage.OLD
        self.ending = False
        """Contract or rollback takes away, at a moment that nobody knows, what keeps both releases' shapes in step."""
        self.hot: list[HotRow] = []
        self.nodes: dict[Side, Node] = {}
        self._tokens = itertools.count(10_001)  # beyond what a project's own first rows are likely to hold

    @property
    def followed(self) -> bool:
        """Whether rows that others find by what they hold may change that."""
        return self.stage in (Stage.BOTH, Stage.NEW) and not self.ending

    def tells(self, table: TableName) -> bool:
        """Whether the new release's node can tell by which keys both releases know the rows of a table."""
        return table in self.rekeyed and self.stage is Stage.BOTH and "new" in self.nodes and not self.ending

    def token(self) -> int:
        """A number that nobody else gets."""
        return next(self._tokens)

    def reserve(self, numbers: Iterable[Any]) -> None:
        """Let no token be one of these numbers, or below."""
        low = max((one for one in numbers if isinstance(one, int) and one < _LARGEST_TOKEN), default=0)
        self._tokens = itertools.count(max(next(self._tokens), low + 1))
