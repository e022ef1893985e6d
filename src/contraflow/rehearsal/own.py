"""Requests whose statements are the user's: calls of a release's own workload, and recorded transactions."""

from __future__ import annotations

from contraflow.faults import Fault
from contraflow.rehearsal.desk import Desk
from contraflow.rehearsal.history import KeyHistory
from contraflow.rehearsal.nodes import Answer, NodeGone
from contraflow.rehearsal.rule import Side

__all__ = ["UNKNOWN", "call", "replay"]

UNKNOWN = frozenset({Fault.COMMIT_UNKNOWN.value})
"""The faults after which nobody knows whether a transaction is committed."""


def call(desk: Desk, release: Side, worker: int, client: str, *, seed: int) -> None:
    """Let a release's own workload do one thing; a finding where that fails."""
    history, sent = desk.history, desk.history.now()
    try:
        answer = desk.nodes[release].ask(worker, {"seed": seed})
    except NodeGone as error:
        answer = Answer(fault=Fault.OTHER.value, error=str(error), seconds=history.now() - sent)
    history.request(release, sent, answer, "the release's own workload")
    if answer.fault in UNKNOWN:
        history.count("commits of unknown outcome")
    elif answer.ok:
        history.count("calls of a workload")
    else:
        told = KeyHistory()
        told.add(sent, release, client, "call", None, answer.error)
        history.fail(release, f"the {release} release's workload failed: {answer.error}", table="", key="", of=told)


def replay(desk: Desk, release: Side, worker: int, client: str) -> bool:
    """Let a release carry out a recorded transaction; a finding where that fails, and does not without the upgrade.

    :returns: False if none was due.
    """
    history = desk.history
    recorded, without = desk.replays[release]
    taken = recorded.take(history.now())
    if taken is None:
        return False
    transaction, done = taken
    sent = history.now()
    try:
        answer = desk.nodes[release].ask(worker, {"sql": list(transaction)})
    except NodeGone as error:
        answer = Answer(fault=Fault.COMMIT_UNKNOWN.value, error=str(error), seconds=history.now() - sent)
    fails = without.fails(transaction)
    done()
    history.request(release, sent, answer, f"{len(transaction)} recorded: {transaction[0][:80]}")
    if answer.fault in UNKNOWN:
        history.count("commits of unknown outcome")
    elif answer.ok:
        history.count("recorded transactions")
    elif fails:
        history.count("refused alike without the upgrade")
    else:
        told = KeyHistory()
        for statement in transaction:
            told.add(sent, release, client, statement, None, answer.error)
        what = f"a recorded transaction of the {release} release failed: {answer.error}"
        history.fail(release, what, table="", key="", of=told)
    return True
