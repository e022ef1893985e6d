"""Proof for a whole upgrade, beside the writers: that its sync stands, and that the rows bear the schema to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from contraflow.engine.journal import Entry, after
from contraflow.engine.report import Difference
from contraflow.engine.schema import full_name
from contraflow.engine.verification import (
    ProbeTarget,
    find_alike,
    find_differences,
    find_nulls,
    find_violations,
    refuse,
)
from contraflow.engine.work import Work
from contraflow.installed import Installed
from contraflow.problems import Problem, ProblemError
from contraflow.steps import BuildIndex

__all__ = ["prove", "prove_old"]


def prove(work: Work, entry: Entry, *, show: int) -> None:
    """Raise unless all triggers stand that the journal names, and every row bears what contract will demand.

    ``CF008`` tells what does not stand; ``CF012``, ``CF013``, ``CF014`` and ``CF016`` come with counts and at most
    ``show`` rows of each kind: a verified upgrade is then verified no longer.
    """
    missing = [name for item in entry.installed for name in _missing(work, item)]
    if missing:
        raise _not_installed(entry, missing)
    differences: list[Difference] = []
    for data in entry.programs.get("probe", ()):
        target = ProbeTarget.from_dict(data)
        work.tell(target.title)
        differences += find_differences(work.connection, target, show=show, pause_point=work.pause_point)
        work.tell(target.title, finished=True)
    for item in entry.installed:
        differences += _alike(work, item, show=show)
        differences += _violations(work, item, show=show)
        differences += _nulls(work, item, item.tightened)
    if differences:
        if (state := after("differ", entry.state)) is not entry.state and state is not None:
            work.save(state=state)
        work.record("failed", work.verb, detail="; ".join(f"{d.table} {d.title}: {d.count}" for d in differences))
        raise refuse(differences, upgrade=entry.id, verb=work.verb)


def prove_old(work: Work, entry: Entry) -> None:
    """Raise ``CF013`` unless every row bears the NOT NULL that rollback will restore."""
    if found := [null for item in entry.installed for null in _nulls(work, item, item.loosened)]:
        raise refuse(found, upgrade=entry.id, verb=work.verb)


def _alike(work: Work, item: Installed, *, show: int) -> Iterator[Difference]:
    """Rows that the unique indexes which contract will build would refuse."""
    where: dict[str, Any] = {"table": item.table, "schema": item.schema}
    mended = {mend.of for mend in item.mends}
    due = [index for index in item.built if index.late and index.name not in mended]
    standing = work.adapter.find(work.connection, **where).indexes if due else {}
    for index in due:
        if standing.get(str(index.name), "invalid") != "invalid":
            continue
        work.pause_point()
        work.tell(f"look for rows alike under {index.name}")
        step = BuildIndex(**where, index=index)
        if alike := find_alike(work.connection, work.adapter, step, show=show):
            yield alike
        work.tell(f"look for rows alike under {index.name}", finished=True)


def _violations(work: Work, item: Installed, *, show: int) -> Iterator[Difference]:
    """Rows that the foreign keys and checks which contract will make would refuse."""
    mended = {mend.of for mend in item.mends}
    for constraint in item.constrained:
        if not constraint.late or constraint.name in mended:
            continue
        work.pause_point()
        title = f"look for rows against {constraint.title.removeprefix('the ')}"
        work.tell(title)
        where: dict[str, Any] = {"table": item.table, "schema": item.schema}
        if found := find_violations(work.connection, work.adapter, constraint, **where, show=show):
            yield found
        work.tell(title, finished=True)


def _nulls(work: Work, item: Installed, names: Sequence[str]) -> Iterator[Difference]:
    """NULLs where they may not stand, of columns for which nothing says what is written into these."""
    mended = {mend.column for mend in item.mends if not mend.of}
    for name in names:
        if name not in mended:
            work.pause_point()
            where: dict[str, Any] = {"table": item.table, "schema": item.schema}
            if found := find_nulls(work.connection, work.adapter, name, **where):
                yield found


def _missing(work: Work, item: Installed) -> list[str]:
    """The triggers of a sync, a pair or a copy that do not stand, and the second name of a table."""
    names = [f"{item.sync}_i", f"{item.sync}_u"] if item.sync else []
    names += [f"{pair.name}_{letter}" for pair in item.pairs for letter in pair.triggers]
    names += [f"{copy.name}_{letter}" for copy in item.copies for letter in copy.triggers]
    if not names and item.renamed is None:
        return []
    found = work.adapter.find(work.connection, item.table, item.schema)
    first, second = work.adapter.alias_triggers(item.alias) if item.alias and item.renamed else ((), ())
    missing = [
        f"{name} on {full_name(item.schema, item.table)}" for name in (*names, *first) if name not in found.triggers
    ]
    if item.renamed and second:
        there = work.adapter.find(work.connection, item.renamed, item.schema).triggers
        missing += [f"{name} on {full_name(item.schema, item.renamed)}" for name in second if name not in there]
    if item.renamed and item.renamed not in found.names:
        missing.append(f"the name {item.renamed} of {full_name(item.schema, item.table)}")
    return missing


def _not_installed(entry: Entry, missing: Sequence[str]) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF008",
            what=f"the sync of {entry.id} is not complete: {', '.join(missing)} is missing.",
            why="what one release wrote since then, the other one does not read.",
            instead="stop the new release's nodes, then contraflow rollback, and upgrade again.",
        )
    )
