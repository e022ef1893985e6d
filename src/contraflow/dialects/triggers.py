"""The triggers of whatever a hold installs: a sync, or what links its table to another one."""

from __future__ import annotations

from contraflow.dialects.compiler import Compiler
from contraflow.dialects.copying import copy_triggers
from contraflow.dialects.opaque import opaque_triggers
from contraflow.dialects.pair import pair_triggers
from contraflow.dialects.reference import reference_triggers
from contraflow.dialects.sync import TriggerText, trigger_statements
from contraflow.steps import InstallCopy, InstallPair, Linked
from contraflow.syncs import Sync

__all__ = ["triggers_of"]


def triggers_of(
    target: Sync | Linked,
    product: str,
    compiler: Compiler,
    *,
    default_schema: str | None = None,
    without_rowid: bool = False,
) -> list[TriggerText]:
    """The triggers, in an order of which every prefix is harmless to both releases.

    ``default_schema`` is where PostgreSQL finds tables without a schema. ``without_rowid`` says that the SQLite table
    on which they stand has none.
    """
    if isinstance(target, Sync):
        if target.opaque is not None:
            return opaque_triggers(target, target.opaque, product, compiler, without_rowid=without_rowid)
        return trigger_statements(target, product, compiler, default_schema=default_schema, without_rowid=without_rowid)
    if isinstance(target, InstallCopy):
        return copy_triggers(
            target.copy, target.on, product, compiler, default_schema=default_schema, without_rowid=without_rowid
        )
    if isinstance(target, InstallPair):
        return pair_triggers(
            target.pair, target.on, product, compiler, default_schema=default_schema, without_rowid=without_rowid
        )
    return reference_triggers(target.reference, product, compiler, default_schema=default_schema)
