"""Columns that get a wider type: what keeps them from it, and which rows keep them from going back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import sqlalchemy as sa

from contraflow.dialects.base import Adapter
from contraflow.engine.schema import full_name
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import Block, Hold, Phases, WidenColumns

__all__ = ["check_misfits", "check_widenings", "takes_wider_types"]


def check_widenings(
    connection: sa.Connection, adapter: Adapter, phases: Phases, installed: Sequence[Installed] = ()
) -> Iterator[Problem]:
    """What would keep columns from getting their wider types, as far as it can be known before expand.

    Those that ``installed`` has widened already were examined before that.
    """
    begun = {(item.schema, item.table, one.column) for item in installed for one in item.widened}
    for block in phases.expand:
        for step in block.steps if isinstance(block, Hold) else ():
            if not isinstance(step, WidenColumns):
                continue
            left = tuple(one for one in step.widenings if (step.schema, step.table, one.column) not in begun)
            if left:
                yield from adapter.widening_problems(connection, replace(step, widenings=left))


def check_misfits(connection: sa.Connection, adapter: Adapter, installed: Sequence[Installed]) -> Iterator[Problem]:
    """``CF015`` for each column with values that its old type does not hold. Reads the tables, beside the writers."""
    quote = adapter.compiler.quote
    for item in installed:
        found = adapter.find(connection, item.table, item.schema) if item.widened else None
        for one in item.widened:
            if found is None or found.details["types"].get(one.column, one.old) == one.old:
                continue
            if (condition := adapter.misfits(one, found)) is None:
                continue
            where = f"FROM {adapter.compiler.table(item.table, item.schema)} WHERE {condition}"
            rows = _send(connection, f"SELECT count(*) {where}").scalar_one()
            if rows:
                value = _send(connection, f"SELECT {quote(one.column)} {where} LIMIT 1").scalar_one()
                yield Problem(
                    code="CF015",
                    what=f"{full_name(item.schema, item.table)}.{one.column} cannot become {one.old} again: {rows} rows"
                    f" do not fit, {_short(value)} among them.",
                    why="the new release has written what only the wider type holds.",
                    instead="change these rows, then roll back again.",
                )


def takes_wider_types(block: Block) -> bool:
    """Whether the block gives columns their old types back."""
    steps = block.steps if isinstance(block, Hold) else ()
    return any(isinstance(step, WidenColumns) and step.stage == "undo" for step in steps)


def _send(connection: sa.Connection, sql: str) -> sa.CursorResult[tuple[object]]:
    return connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
