"""From what an upgrade plans to the model of each table: which ones the workload writes, and what it expects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from contraflow.operations.base import TableName
from contraflow.rehearsal.oracle import TableOracle
from contraflow.rehearsal.shapes import TableShape
from contraflow.steps import Backfill, Block, Hold, Phases, Step, Sync

__all__ = ["models"]

Shapes = Mapping[TableName, TableShape]


def models(phases: Phases, old: Shapes, new: Shapes) -> tuple[dict[TableName, TableOracle], list[str]]:
    """The model of each table that the generated workload can write, under the new release's name for it.

    :param phases: what the upgrade does.
    :param old: the old release's tables.
    :param new: the new release's.
    :returns: the models; and for each table that is left out, a sentence that says why.
    """
    renamed = {(item.schema, item.table): (item.schema, item.renamed) for item in phases.installed if item.renamed}
    syncs = _syncs(phases)
    joined = set(_joined(phases))
    made: dict[TableName, TableOracle] = {}
    notes: list[str] = []
    before = {renamed.get(name, name): _known_as(shape, renamed) for name, shape in old.items()}
    for name in sorted(before.keys() | new.keys(), key=str):
        shapes = [shape for shape in (before.get(name), new.get(name)) if shape is not None]
        known = {shape.physical or shape.name for shape in shapes}
        obstacle = next((shape.obstacle for shape in shapes if shape.obstacle), None)
        if known & joined:
            obstacle = "rows of it are kept in step with another table's, which verify alone compares"
        elif obstacle is None and len({shape.key for shape in shapes}) > 1:
            obstacle = "its primary key changes"
        sync = next((syncs[each] for each in known if each in syncs), None)
        if sync is not None and sync.opaque is not None:
            obstacle = "the new release computes columns of it in Python; a workload of its own can (--new-workload)"
        if obstacle is not None:
            notes.append(f"{shapes[0].title} is not written: {obstacle}")
            continue
        made[name] = TableOracle(old=before.get(name), new=new.get(name), sync=sync)
    return made, notes


def _known_as(shape: TableShape, renamed: Mapping[TableName, TableName]) -> TableShape:
    """An old release's table, and those that it refers to, under the new release's names."""
    links = tuple(replace(link, table=renamed.get(link.table, link.table)) for link in shape.links)
    return replace(shape, name=renamed.get(shape.name, shape.name), physical=shape.name, links=links)


def _steps(phases: Phases) -> Iterator[tuple[Block, Step]]:
    for blocks in (phases.expand, phases.migrate, phases.verify, phases.contract):
        for block in blocks:
            for step in block.steps if isinstance(block, Hold) else (block.step,):
                yield block, step


def _syncs(phases: Phases) -> dict[TableName, Sync]:
    steps = (step for _, step in _steps(phases) if isinstance(step, Backfill))
    return {(step.sync.schema, step.sync.table): step.sync for step in steps}


def _joined(phases: Phases) -> Iterable[TableName]:
    """Tables whose rows depend on those of another one."""
    for _, step in _steps(phases):
        pair = getattr(step, "pair", None)
        if pair is not None:
            yield pair.main.schema, pair.main.table
            yield pair.companion.schema, pair.companion.table
