"""The filling of rows as a part of a verb."""

from __future__ import annotations

from typing import Any

from contraflow.engine.backfill import Target, fill
from contraflow.engine.journal import Entry
from contraflow.engine.schema import full_name
from contraflow.engine.verification import find_nulls, refuse
from contraflow.engine.work import Work
from contraflow.steps import Block, FillNulls, Online

__all__ = ["carry_out"]


def carry_out(work: Work, entry: Entry, block: Block) -> None:
    """Run a block of contract or of rollback: DDL, the filling of NULLs, or the mending of rows.

    Raises ``CF013`` if rows stay NULL because what was to be written there is NULL itself.
    """
    if not isinstance(block, Online) or not isinstance(block.step, FillNulls):
        work.run(block)
        return
    mend = block.step.mend
    name = f"{full_name(block.schema, block.table)}, {mend.column}{f' for {mend.of}' if mend.of else ''}"
    if work.find(block).exists:
        text = work.adapter.mend(block.step)
        fill(work, entry, Target(name=name, title=block.title, key=mend.key, text=text))
        where: dict[str, Any] = {"table": block.table, "schema": block.schema}
        if not mend.of and (left := find_nulls(work.connection, work.adapter, mend.column, **where)):
            raise refuse([left], upgrade=entry.id, verb=work.verb)
