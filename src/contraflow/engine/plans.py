"""Plans: the statements of every phase for showing them, and the SQL of the data phases for the journal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import sqlalchemy as sa

from contraflow.copies import Copy
from contraflow.dialects.base import Adapter, BackfillText, Found, ProbeText, Statement
from contraflow.dialects.copying import copy_backfill, copy_fill, copy_probe, copy_repair
from contraflow.dialects.opaque import opaque_text
from contraflow.dialects.pair_queries import pair_backfill, pair_probe, pair_repair, pair_title
from contraflow.dialects.repair import repair_text
from contraflow.engine.backfill import Target
from contraflow.engine.report import PlannedStatement, PlanReport
from contraflow.engine.schema import full_name
from contraflow.engine.verification import ProbeTarget
from contraflow.lens import Side
from contraflow.steps import (
    Backfill,
    BackfillCopy,
    BackfillPair,
    Block,
    FillNulls,
    Hold,
    NumberColumn,
    Online,
    Phases,
    Probe,
    ProbeAlias,
    ProbeCopy,
    ProbePair,
    Step,
    WidenColumns,
)
from contraflow.syncs import Pair

__all__ = ["plan_report", "programs", "statements"]

Find: TypeAlias = "Callable[[str, str | None], Found | None]"
"""What stands on a table, by its name and schema; None shows everything, as on an untouched one."""


def programs(adapter: Adapter, find: Find, phases: Phases) -> dict[str, Any]:
    """The SQL of backfill, verification and repair, a table each, and what syncs keep in step, as plain data: what the
    phases after expand work from. ``find`` tells what stands on a table (its name and schema).
    """
    fills, probes, repairs, opaque, synced = [], [], [], [], []
    sides: tuple[Side, Side] = ("old", "new")
    for block in (*phases.migrate, *phases.verify):
        if not isinstance(block, Online):
            continue
        name = full_name(block.schema, block.table)
        if isinstance(block.step, Backfill):
            found, sync = find(block.table, block.schema), block.step.sync
            if sync.opaque is not None:
                stale = opaque_text(sync, sync.opaque, adapter.compiler).remaining
                opaque.append({"name": name, "remaining": stale})
                continue
            text = adapter.backfill(block.step, found)
            fills.append(Target(name=name, title=block.title, key=sync.key, text=text).as_dict())
            synced.append(sync.synced.as_dict())
            for side, (place, group) in itertools.product(sides, enumerate(sync.groups)):
                mend = Target(
                    name=f"{name}, group {place}, from {side}",
                    title=f"repair {name} from {side}",
                    key=sync.key,
                    text=repair_text(sync, group, side, adapter.compiler, estimate=text.estimate),
                )
                repairs.append({**mend.as_dict(), "table": name, "side": side})
        elif isinstance(block.step, (NumberColumn, WidenColumns)):
            fills += _column_fill(adapter, find, block.step, block.title)
        elif isinstance(block.step, BackfillPair):
            fills.append(_pair_fill(adapter, find, block.step.pair).as_dict())
            repairs += _pair_repairs(adapter, find, block.step.pair)
        elif isinstance(block.step, BackfillCopy):
            fills.append(_copy_fill(adapter, find, block.step.copy, block.title).as_dict())
            repairs += _copy_repairs(adapter, find, block.step.copy)
        elif isinstance(block.step, Probe):
            is_opaque = block.step.sync.opaque is not None
            target = ProbeTarget(name=name, title=block.title, text=adapter.probe(block.step), opaque=is_opaque)
            probes.append(target.as_dict())
        elif isinstance(block.step, (ProbeAlias, ProbeCopy, ProbePair)):
            if compared := _probe(adapter, block.step):
                probes.append(ProbeTarget(name=name, title=block.title, text=compared).as_dict())
            repairs += _alias_repairs(adapter, block.step) if isinstance(block.step, ProbeAlias) else ()
    return {"backfill": fills, "probe": probes, "repair": repairs, "opaque": opaque, "synced": synced}


def _column_fill(adapter: Adapter, find: Find, step: NumberColumn | WidenColumns, title: str) -> list[dict[str, Any]]:
    """What fills a column that the server numbers, or the second column of one that becomes wider; as plain data."""
    name = full_name(step.schema, step.table)
    if isinstance(step, WidenColumns):
        name, key = f"{name}, shadows", step.key
        text = adapter.fill_shadows(step, find(step.table, step.schema)) if step.stage == "fill" else None
    else:
        name, key = f"{name}, numbers", step.key.old
        text = adapter.fill_numbers(step) if step.stage == "fill" else None
    return [Target(name=name, title=title, key=key, text=text).as_dict()] if text else []


def _pair_fill(adapter: Adapter, find: Find, pair: Pair) -> Target:
    end = pair.old_table
    text = adapter.backfill(pair_backfill(pair), find(end.table, end.schema))
    return Target(
        name=f"{full_name(end.schema, end.table)} to {pair.new_table.table}",
        title=f"move columns of {end.table} to {pair.new_table.table}",
        key=tuple(column.name for column in end.key),
        text=text,
    )


def _pair_repairs(adapter: Adapter, find: Find, pair: Pair) -> Iterator[dict[str, Any]]:
    """A pair is mended from either of its tables, by the name of either; the work walks over the main one."""
    main = pair.main
    found = find(main.table, main.schema)
    known = found if found is not None and found.exists else None  # a new table is not there yet
    estimate = adapter.backfill(pair_backfill(pair), known).estimate
    sides: tuple[Side, Side] = ("old", "new")
    for side, end in itertools.product(sides, (main, pair.companion)):
        name = full_name(end.schema, end.table)
        mend = Target(
            name=f"{name}, from {side}, {pair.old_table.table} to {pair.new_table.table}",
            title=f"repair {pair_title(pair)} from {side}",
            key=tuple(column.name for column in main.key),
            text=pair_repair(pair, side, adapter.profile.product, adapter.compiler, estimate=estimate),
        )
        yield {**mend.as_dict(), "table": name, "side": side}


def _copy_fill(adapter: Adapter, find: Find, copy: Copy, title: str) -> Target:
    name = f"{full_name(copy.schema, copy.table)}, {copy.column}"
    found = find(copy.table, copy.schema)
    return Target(name=name, title=title, key=copy.key, text=_copy_text(adapter, copy, found))


def _copy_text(adapter: Adapter, copy: Copy, found: Found | None) -> BackfillText:
    estimate = adapter.backfill(copy_backfill(copy), found).estimate
    return copy_fill(copy, adapter.profile.product, adapter.compiler, estimate=estimate)


def _copy_repairs(adapter: Adapter, find: Find, copy: Copy) -> Iterator[dict[str, Any]]:
    name = full_name(copy.schema, copy.table)
    estimate = adapter.backfill(copy_backfill(copy), find(copy.table, copy.schema)).estimate
    sides: tuple[Side, Side] = ("old", "new")
    for side in sides:
        mend = Target(
            name=f"{name}, {copy.column}, from {side}",
            title=f"repair {copy.title} from {side}",
            key=copy.key,
            text=copy_repair(copy, side, adapter.profile.product, adapter.compiler, estimate=estimate),
        )
        yield {**mend.as_dict(), "table": name, "side": side}


def _alias_repairs(adapter: Adapter, step: ProbeAlias) -> Iterator[dict[str, Any]]:
    """A renamed table is mended by either of its names."""
    sides: tuple[Side, Side] = ("old", "new")
    for side, table in itertools.product(sides, (step.table, step.alias)):
        name = full_name(step.schema, table)
        for place, text in enumerate(adapter.alias_repairs(step, side)):
            mend = Target(
                name=f"{name}, under both names, {place}, from {side}",
                title=f"repair {step.table} -> {step.alias} from {side}",
                key=(),
                text=text,
            )
            yield {**mend.as_dict(), "table": name, "side": side}


def _probe(adapter: Adapter, step: Probe | ProbeAlias | ProbeCopy | ProbePair) -> ProbeText | None:
    if isinstance(step, Probe):
        return adapter.probe(step)
    if isinstance(step, ProbeAlias):
        return adapter.alias_probe(step)
    if isinstance(step, ProbeCopy):
        return copy_probe(step.copy, adapter.profile.product, adapter.compiler)
    return pair_probe(step.pair, adapter.compiler)


def plan_report(
    adapter: Adapter,
    connection: sa.Connection,
    upgrade: str,
    phases: Phases,
    *,
    timeout: float,
    reached: frozenset[str],
) -> PlanReport:
    """Every statement of every phase. Of the phases in ``reached``, only what is still to do; of the others,
    everything.
    """
    blocks: Mapping[str, tuple[Block, ...]] = {
        "expand": phases.expand,
        "migrate": phases.migrate,
        "verify": phases.verify,
        "contract": phases.contract,
        "rollback": phases.rollback,
    }
    planned: dict[str, tuple[PlannedStatement, ...]] = {}
    for phase, parts in blocks.items():
        listed: list[PlannedStatement] = []
        for block in parts:
            # None for a phase whose table does not look yet as it will by then.
            found = adapter.find(connection, block.table, block.schema) if phase in reached else None
            listed += [
                PlannedStatement(
                    table=full_name(block.schema, block.table),
                    title=block.title,
                    statement=statement,
                    online=isinstance(block, Online),
                )
                for statement in statements(adapter, block, found, timeout)
            ]
        planned[phase] = tuple(listed)
    return PlanReport(upgrade=upgrade, product=adapter.profile.product, version=adapter.profile.version, phases=planned)


def statements(adapter: Adapter, block: Block, found: Found | None, timeout: float) -> Iterator[Statement]:
    """The statements of one block, with those that begin and end its hold. A backfill's are those of one batch.

    ``found`` is what stands on the block's table; None shows everything, as on an untouched table.
    """
    if isinstance(block, Hold):
        inside = adapter.hold(block, found)
        if inside:
            yield from (*adapter.opening(block, timeout), *inside, *adapter.closing(block))
    elif isinstance(block.step, Backfill) and block.step.sync.opaque is not None:
        opaque = opaque_text(block.step.sync, block.step.sync.opaque, adapter.compiler)
        yield Statement(sql=_plain(opaque.page))
        yield Statement(sql=_plain(opaque.write), lock="one row, for each that Python computed")
        yield Statement(sql=_plain(opaque.remaining))
    elif (fills := _fills(adapter, block.step, found)) is not None:
        for text, lock in fills:
            yield Statement(sql=_plain(text.fill), lock=lock)
            yield Statement(sql=_plain(text.remaining))
    elif isinstance(block.step, BackfillCopy):
        fill = _copy_text(adapter, block.step.copy, found)
        if fill.lock is not None:
            yield Statement(sql=_plain(fill.lock), lock="the rows of one batch")
        yield Statement(sql=_plain(fill.fill), lock="the rows of one batch, and those that they are copied from")
        yield Statement(sql=_plain(fill.remaining))
    elif isinstance(block.step, (Probe, ProbeAlias, ProbeCopy, ProbePair)):
        yield from _queries(_probe(adapter, block.step))
    elif adapter.in_hold(block.step):
        hold = Hold(title=block.title, table=block.table, schema=block.schema, steps=(block.step,))
        yield from statements(adapter, hold, found, timeout)
    else:
        yield from adapter.online(block, found)


def _queries(probe: ProbeText | None) -> Iterator[Statement]:
    if probe is not None:
        for query in (probe.unsynced, *(query for _, query in probe.differing), *probe.nulls.values()):
            yield Statement(sql=_plain(query))


def _fills(adapter: Adapter, step: Step, found: Found | None) -> list[tuple[BackfillText, str]] | None:
    """The statements of a step that fills rows, with the lock of each; None for another step."""
    batch = "the rows of one batch"
    if isinstance(step, Backfill):
        return [(adapter.backfill(step, found), batch)]
    if isinstance(step, BackfillPair):
        return [(adapter.backfill(pair_backfill(step.pair), found), f"{batch}, and their rows in the other table")]
    if isinstance(step, FillNulls):
        return [(adapter.mend(step), batch)]
    if isinstance(step, WidenColumns) and step.stage == "fill":
        text = adapter.fill_shadows(step, found)
    elif isinstance(step, NumberColumn) and step.stage == "fill":
        text = adapter.fill_numbers(step)
    else:
        return None
    return [(text, batch)] if text else []


def _plain(text: str) -> str:
    """A text for :func:`sqlalchemy.text`, without its escapes."""
    return text.replace("\\:", ":")
