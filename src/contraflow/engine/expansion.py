"""How an upgrade comes to stand: planned on the schema that is there, written into the journal, then installed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa

from contraflow.dialects.base import Adapter
from contraflow.engine.examination import find_problems
from contraflow.engine.filling import carry_out
from contraflow.engine.journal import Entry
from contraflow.engine.matching import revisions_of
from contraflow.engine.nodes import library_version
from contraflow.engine.plans import programs
from contraflow.engine.report import State
from contraflow.engine.schema import old_shape
from contraflow.engine.work import Work
from contraflow.installed import Installed
from contraflow.operations.planning import Upgrade, plan, plan_end, tables_of
from contraflow.problems import ProblemError
from contraflow.steps import Phases

__all__ = ["begin", "grow", "install", "planned"]


def planned(connection: sa.Connection, adapter: Adapter, upgrade: Upgrade, installed: Sequence[Installed]) -> Phases:
    """The upgrade on this database, of which ``installed`` stands already."""
    tables = old_shape(connection, adapter, tables_of(upgrade), installed)
    return plan(upgrade, tables, write=adapter.condition)


def begin(work: Work, upgrade: Upgrade) -> None:
    """Write what will be installed, before the first of it is. Raises every problem that can be found beforehand."""
    phases = _checked(work, upgrade, ())
    now = work.now()
    entry = Entry(
        number=0,
        state=State.PENDING,
        pending="expand",
        old=upgrade.old,
        new=upgrade.new,
        revisions=revisions_of(upgrade),
        installed=phases.installed,
        programs=programs(work.adapter, partial(work.adapter.find, work.connection), phases),
        profile=work.adapter.profile,
        library=library_version(),
        created=now,
        updated=now,
    )
    work.begin(entry)


def grow(work: Work, entry: Entry, upgrade: Upgrade) -> None:
    """Revisions were added before any new release could write: take back the tables whose plan changed, so that
    :func:`install` expands them anew. Raises every problem that can be found beforehand.

    The result is that of planning the whole, the rows count as never synced, and the journal always says what stands:
    until the last of the old plan is gone, it is the old plan.
    """
    phases = _checked(work, upgrade, entry.installed)
    work.start(state=State.PENDING, pending="expand")
    changed = tuple(item for item in entry.installed if item not in phases.installed)
    linked = [item for item in entry.installed if item.pairs or item.copies]
    if any(item in changed for item in linked):  # the triggers of one table need the other ones' columns
        changed = tuple(item for item in entry.installed if item in changed or item in linked)
    for block in plan_end(changed)[1]:
        carry_out(work, entry, block)
    work.save(
        new=upgrade.new,
        revisions=revisions_of(upgrade),
        installed=phases.installed,
        programs=programs(work.adapter, partial(work.adapter.find, work.connection), phases),
    )


def install(work: Work, upgrade: Upgrade) -> None:
    """Carry out what is left of expand, of the upgrade as the journal has it."""
    for block in planned(work.connection, work.adapter, upgrade, work.current.installed).expand:
        work.run(block)


def _checked(work: Work, upgrade: Upgrade, installed: Sequence[Installed]) -> Phases:
    phases = planned(work.connection, work.adapter, upgrade, installed)
    ProblemError.raise_any(find_problems(work.connection, work.adapter, upgrade, phases, installed))
    return phases
