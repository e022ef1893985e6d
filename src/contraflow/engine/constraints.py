"""What keeps foreign keys and checks from being made: their targets, the server, and cascades that no trigger sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Exclusion, ForeignKey
from contraflow.dialects.base import Adapter
from contraflow.engine.schema import added_types, full_name
from contraflow.installed import Installed
from contraflow.operations.held import holders
from contraflow.problems import Problem
from contraflow.references import InstallReference, Reference
from contraflow.steps import Hold, InstallSync, Phases

__all__ = ["check_constraints"]


def check_constraints(connection: sa.Connection, adapter: Adapter, phases: Phases) -> Iterator[Problem]:
    """The problems that can be known before anything is made or dropped.

    ``CF101`` for a target that does not exist, ``CF116`` for one that is not unique, ``CF117`` and ``CF205`` for what
    the server cannot do, ``CF205`` for a foreign key whose action would change a synced column past the triggers.
    """
    added = added_types(phases)
    inspector = sa.inspect(connection)
    for whole in phases.installed:
        yield from _exclusions(adapter, whole)
        left = tuple(made for made in whole.constrained if not isinstance(made, Exclusion))
        item = replace(whole, constrained=left)
        if not item.constrained and not item.released:
            continue
        wrong = [problem for key in item.constrained for problem in _target(inspector, key, phases.installed)]
        yield from wrong
        if not wrong:
            columns = inspector.get_columns(item.table, schema=item.schema)
            types = {column["name"]: column["type"] for column in columns}
            new = added.get((item.schema, item.table), {})
            yield from adapter.constraint_problems(connection, item, {**types, **new})
    if not adapter.cascades_fire_triggers:
        yield from _cascades(connection, phases)


def _exclusions(adapter: Adapter, item: Installed) -> Iterator[Problem]:
    """``CF205`` for exclusion constraints, which few servers have, and none builds beside writers."""
    for made in item.constrained:
        if not isinstance(made, Exclusion):
            continue
        title = f"{made.name} of {full_name(item.schema, item.table)}"
        if not adapter.excludes:
            yield Problem(
                code="CF205",
                what=f"{title} cannot be made: this server has no exclusion constraints.",
                why="the new release takes such rows to be impossible, and nothing would refuse them.",
                instead="let the application look for them, under a lock on the row they belong to; or AddUnique(...),"
                " where they are equal.",
            )
        elif not made.blocks:
            yield Problem(
                code="CF205",
                what=f"{title} cannot be made beside writers.",
                why="PostgreSQL builds its index under a lock that keeps readers and writers out; it has neither"
                "\nCONCURRENTLY nor NOT VALID for it.",
                instead="blocks=True accepts the wait, which is right for a small table; or make it at a quiet time.",
            )


def _target(inspector: sa.Inspector, key: object, installed: Sequence[Installed]) -> Iterator[Problem]:
    if not isinstance(key, ForeignKey):
        return
    name = full_name(key.target_schema, key.target)
    if not inspector.has_table(key.target, schema=key.target_schema):
        yield Problem(
            code="CF101",
            what=f"{key.name} refers to the table {name}, which does not exist.",
            instead="check target= (and target_schema=) in the revision.",
        )
        return
    own = next(
        (item for item in installed if (item.schema, item.table) == (key.target_schema, key.target)),
        Installed(table=key.target),
    )
    columns = {column["name"] for column in inspector.get_columns(key.target, schema=key.target_schema)}
    if missing := [column for column in key.target_columns if column not in columns | set(own.added)]:
        yield Problem(
            code="CF101",
            what=f"{key.name} refers to {name}.{missing[0]}, which does not exist.",
            instead=f"its columns are: {', '.join(sorted(columns))}.",
        )
        return
    if gone := [column for column in key.target_columns if column in own.dropped]:
        yield Problem(
            code="CF111",
            what=f"{name}.{gone[0]} cannot be dropped: {key.name}, which this upgrade makes, refers to it.",
            why="the new release would not have the constraint.",
            instead="refer to the new column.",
        )
    wanted = set(key.target_columns)
    primary = inspector.get_pk_constraint(key.target, schema=key.target_schema)["constrained_columns"]
    unique = [
        constraint["column_names"]
        for constraint in inspector.get_unique_constraints(key.target, schema=key.target_schema)
    ]
    indexes = [
        index["column_names"]
        for index in inspector.get_indexes(key.target, schema=key.target_schema)
        if index["unique"] and not any(name.endswith("_where") for name in index.get("dialect_options", {}))
    ]
    made = [index.columns for index in own.built if index.unique and index.is_plain]
    found: list[Any] = [primary, *unique, *indexes, *made]
    if not any(set(names) == wanted for names in found):
        yield Problem(
            code="CF116",
            what=f"{key.name} refers to {name}.({', '.join(key.target_columns)}), which is not unique.",
            why="a foreign key refers to one row at most.",
            instead=f'add AddUnique(table="{key.target}", ...) in an upgrade before this one, or refer to its key.',
        )


def _cascades(connection: sa.Connection, phases: Phases) -> Iterator[Problem]:
    """Foreign keys, old and new, whose actions change a column that a sync watches."""
    syncs = {
        (step.sync.schema, step.sync.table): step.sync
        for block in phases.expand
        if isinstance(block, Hold)
        for step in block.steps
        if isinstance(step, InstallSync)
    }
    references = [
        step.reference
        for block in phases.expand
        if isinstance(block, Hold)
        for step in block.steps
        if isinstance(step, InstallReference)
    ]
    for reference in references:
        if not reference.fills or reference.clears:  # else foreign keys do all that has to follow
            yield from _unheard(connection, reference)
    made = {(item.schema, item.table): item.constrained for item in phases.installed}
    for (schema, name), sync in syncs.items():
        table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
        found = [holder.constraint for holder in holders(table)]
        keys = [key for key in (*found, *made.get((schema, name), ())) if isinstance(key, ForeignKey) and key.writes]
        for key in dict.fromkeys(keys):
            if any(_is_itself(key, name, reference) for reference in references):
                continue  # the other table's triggers hear of it
            if hit := [column for column in key.columns if column in sync.columns]:
                yield Problem(
                    code="CF205",
                    what=f"{key.title} of {full_name(schema, name)} changes {hit[0]} by itself"
                    f" (ON DELETE {key.ondelete or 'NO ACTION'}, ON UPDATE {key.onupdate or 'NO ACTION'}).",
                    why="InnoDB fires no triggers for that, so the other release would keep the value of before.",
                    instead="make it RESTRICT or NO ACTION in an upgrade before this one, and let the application"
                    "\nchange the rows.",
                )


def _is_itself(key: ForeignKey, table: str, reference: Reference) -> bool:
    """Whether a foreign key of the table says by the natural key what the reference does; or by a key that is filled:
    then one of the same actions stands on the natural key, and changes that side.
    """
    if (table, key.target) != (reference.table, reference.to):
        return False
    columns = set(zip(key.columns, key.target_columns, strict=True))
    return columns == set(reference.columns) or (reference.fills and columns == {(reference.column, reference.key)})


def _unheard(connection: sa.Connection, reference: Reference) -> Iterator[Problem]:
    """Foreign keys by whose actions a row that is referred to changes, or goes, without its triggers."""
    if not sa.inspect(connection).has_table(reference.to, schema=reference.schema):
        return
    metadata = sa.MetaData()
    table = sa.Table(reference.to, metadata, schema=reference.schema, autoload_with=connection, resolve_fks=False)
    watched = {reference.key, *(there for _, there in reference.columns)}
    for holder in holders(table):
        key = holder.constraint
        if not isinstance(key, ForeignKey) or not (
            key.ondelete == "CASCADE" or (key.writes and watched & set(key.columns))
        ):
            continue
        yield Problem(
            code="CF205",
            what=f"{key.title} of {full_name(reference.schema, reference.to)} changes or deletes rows by itself"
            f" (ON DELETE {key.ondelete or 'NO ACTION'}, ON UPDATE {key.onupdate or 'NO ACTION'}).",
            why=f"InnoDB fires no triggers for that, so rows of {reference.table} that refer to them would not follow.",
            instead="make it RESTRICT or NO ACTION in an upgrade before this one, and let the application"
            "\nchange the rows.",
        )
