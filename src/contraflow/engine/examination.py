"""Everything that is examined before the first change, and before contract, as one list of problems."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from contraflow.dialects.base import Adapter
from contraflow.engine.checks import check_dependents, check_domain, check_names, check_routines, check_rows
from contraflow.engine.constraints import check_constraints
from contraflow.engine.indexes import check_indexes
from contraflow.engine.journal import Entry
from contraflow.engine.opaque import check_opaque, opaque_syncs
from contraflow.engine.tables import check_tables, made_by
from contraflow.engine.widening import check_widenings
from contraflow.installed import Installed
from contraflow.operations.copying import copy_lenses
from contraflow.operations.planning import Upgrade, tables_of
from contraflow.problems import Problem
from contraflow.steps import Backfill, BackfillCopy, BackfillPair, Online, Phases
from contraflow.syncs import Synced

__all__ = ["contrary_triggers", "find_notices", "find_problems", "in_the_way"]


def find_problems(
    connection: sa.Connection, adapter: Adapter, upgrade: Upgrade, phases: Phases, installed: Sequence[Installed] = ()
) -> list[Problem]:
    """What is wrong with the server, and with the lenses over present and possible values.

    ``installed`` is what stands of an upgrade that grows.
    """
    syncs = [
        block.step.sync for block in phases.migrate if isinstance(block, Online) and isinstance(block.step, Backfill)
    ]
    pairs = [
        block.step for block in phases.migrate if isinstance(block, Online) and isinstance(block.step, BackfillPair)
    ]
    alone = tuple(syncs)
    looking = [sync for sync in alone if sync.looks_up]
    syncs += [step.lens for step in pairs]
    copies = [
        block.step.copy
        for block in phases.migrate
        if isinstance(block, Online) and isinstance(block.step, BackfillCopy)
    ]
    syncs += [lens for copy in copies for lens in copy_lenses(copy)]
    return [
        *adapter.preflight(connection, tables_of(upgrade)),
        *adapter.standstill_problems(connection, phases.installed, made_by(phases)),
        *(problem for sync in alone for problem in adapter.sync_problems(connection, sync)),
        *(problem for sync in alone for problem in adapter.contrary_triggers(connection, sync.synced)),
        *(problem for step in pairs for problem in adapter.pair_problems(connection, step.pair)),
        *(problem for copy in copies for problem in adapter.copy_problems(connection, copy)),
        *(problem for sync in looking for problem in adapter.lookup_problems(connection, sync)),
        *check_names(adapter, phases),
        *adapter.comment_problems(connection, phases),
        *check_tables(connection, adapter, phases),
        *check_indexes(connection, adapter, phases),
        *check_widenings(connection, adapter, phases, installed),
        *check_constraints(connection, adapter, phases),
        *check_domain(syncs),
        *check_rows(connection, adapter, syncs),
        *check_opaque(connection, opaque_syncs(phases)),
    ]


def in_the_way(connection: sa.Connection, adapter: Adapter, entry: Entry) -> list[Problem]:
    """Of an upgrade that was expanded: what works against its sync, and what would keep contract from dropping and
    renaming what it has to.
    """
    return [
        *contrary_triggers(connection, adapter, entry),
        *check_dependents(connection, adapter, entry.installed),
        *check_routines(connection, adapter, entry.installed),
        *adapter.standstill_problems(connection, entry.installed),
    ]


def contrary_triggers(connection: sa.Connection, adapter: Adapter, entry: Entry) -> list[Problem]:
    """``CF205`` for triggers, made since the upgrade was expanded, that change what its sync has read."""
    known = map(Synced.from_dict, entry.programs.get("synced", ()))  # none, if an earlier version expanded it
    return [problem for synced in known for problem in adapter.contrary_triggers(connection, synced)]


def find_notices(connection: sa.Connection, adapter: Adapter, installed: Sequence[Installed]) -> list[Problem]:
    """What refuses nothing before the first change, and should be known by then.

    What the server imposes on statements of both releases until contract (``CF5xx``); and what would be in contract's
    way if it stayed (``CF111``, ``CF122``).
    """
    return [
        *(notice for tell in adapter.imposes for notice in tell(installed)),
        *(notice for item in installed for notice in adapter.waits(connection, item)),
        *check_dependents(connection, adapter, installed),
        *check_routines(connection, adapter, installed),
    ]
