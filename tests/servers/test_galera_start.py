"""A node of a Galera cluster that does not get into the group in time."""

from __future__ import annotations

from typing import Any

import pytest

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.servers.galera import _TRIES, _Node


class Process:
    """Stands for the server: ends with some last lines, as often as told."""

    def __init__(self, ends: int, line: str) -> None:
        self.ends, self.line = ends, line
        self.starts: list[tuple[str, ...]] = []

    def start(self, *extra: str) -> None:
        self.starts.append(extra)
        if len(self.starts) <= self.ends:
            raise ProblemError(Problem(code="CF207", what="galera did not start.", why=f"its log:\n{self.line}"))


def entered(process: Any) -> list[tuple[str, ...]]:
    node = _Node.__new__(_Node)
    node._process = process
    node._enter("--wsrep-start-position=p")
    starts: list[tuple[str, ...]] = process.starts
    return starts


def test_a_node_that_the_others_did_not_answer_in_time_is_started_again() -> None:
    line = "[ERROR] WSREP: failed to open gcomm backend connection: 110: (Connection timed out)"
    assert entered(Process(_TRIES - 1, line)) == [("--wsrep-start-position=p",)] * _TRIES
    with pytest.raises(ProblemError, match="CF207"):
        entered(Process(_TRIES, line))


def test_a_node_that_ends_for_another_reason_is_not() -> None:
    process = Process(1, "[ERROR] Could not open the plugin table")
    with pytest.raises(ProblemError, match="CF207"):
        entered(process)
    assert len(process.starts) == 1
