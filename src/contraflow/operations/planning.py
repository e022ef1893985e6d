"""From declared changes to phases: pure functions, no connection, no SQL of any server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

from contraflow import expressions
from contraflow.constraints import Check, Constraint, Exclusion, ForeignKey
from contraflow.installed import DefaultChange, Index, Installed
from contraflow.operations.base import Condition, Fragment, Operation, Release, TableName, check_comment, default_text
from contraflow.operations.comments import change_comment, comments_of
from contraflow.operations.copying import CopyColumn, copies_of, copy_blocks, installed_copies, note_copy
from contraflow.operations.ending import plan_builds, plan_end
from contraflow.operations.gathering import Plans, TablePlan, stem
from contraflow.operations.held import (
    is_implied,
    is_key_implied,
    names_of,
    new_index,
    new_name,
    released_constraints,
    released_index,
)
from contraflow.operations.keys import (
    change_key,
    key_change,
    key_index,
    lost_key,
    moving_problems,
    number_blocks,
    numbered,
    plain_columns,
)
from contraflow.operations.mending import repairs
from contraflow.operations.moves import MoveColumns, installed_pairs, move, pairs_of
from contraflow.operations.nullability import change_nullability, mends
from contraflow.operations.parts import CopyTable, MergeTables, SplitTable, expand_parts, note_parts, parts_of
from contraflow.operations.references import AddCompanion, ReferColumns
from contraflow.operations.referring import (
    add_marker,
    expand_references,
    installed_references,
    refer,
    references_of,
    referring,
)
from contraflow.operations.refusals import held_columns, table_problems
from contraflow.operations.replacing import ReplaceKey
from contraflow.operations.syncing import MARKER, sync_of
from contraflow.operations.tables import RenameTable, describe_table
from contraflow.operations.widening import mirror_of, widening_stage, widenings_of
from contraflow.problems import Problem, ProblemError
from contraflow.steps import (
    AddAlias,
    AddColumns,
    Backfill,
    Block,
    Hold,
    InstallSync,
    MakeTable,
    Online,
    Phases,
    Probe,
    ProbeAlias,
    RelaxNotNull,
    SetDefaults,
    Step,
)
from contraflow.syncs import Sync

__all__ = ["MARKER", "Declared", "Upgrade", "plan", "plan_builds", "plan_end", "tables_of"]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What one revision declares."""

    revision: str
    operations: tuple[Operation, ...]
    doc: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the meaning of the declaration changes; 16 hexadecimal digits."""
        return _fingerprint([operation.describe() for operation in self.operations])


def _fingerprint(meaning: object) -> str:
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """All changes between the old release's revision and the new one's, in their order."""

    old: str | None
    """The revision the old release runs on; None for an empty history."""
    new: str
    changes: tuple[Declared, ...]

    @property
    def id(self) -> str:
        """``old:new``, the upgrade's name in the journal."""
        return f"{self.old or 'base'}:{self.new}"


def tables_of(upgrade: Upgrade) -> frozenset[TableName]:
    """The tables that the upgrade's operations touch, by all the names that they use."""
    operations = [operation for change in upgrade.changes for operation in change.operations]
    new = [(operation.schema, operation.new) for operation in operations if isinstance(operation, RenameTable)]
    new += [
        (operation.schema, operation.to)
        for operation in operations
        if isinstance(operation, (AddCompanion, MoveColumns, ReferColumns))
    ]
    new += [
        (one.schema, one.table)
        for operation in operations
        if isinstance(operation, ReplaceKey)
        for one in operation.references
    ]
    several = (CopyColumn, CopyTable, MergeTables, SplitTable)
    new += [place for operation in operations if isinstance(operation, several) for place in operation.tables]
    return frozenset([*((operation.schema, operation.table) for operation in operations), *new])


def plan(
    upgrade: Upgrade,
    tables: Mapping[TableName, sa.Table],
    *,
    write: Callable[[expressions.Expression], str] = expressions.describe,
) -> Phases:
    """The phases of the upgrade.

    ``tables`` are the tables of :func:`tables_of` in their old shape; a missing one gives ``CF101``. ``write`` gives
    the server's text of a condition over the table's own row. Raises
    :class:`~contraflow.problems.ProblemError` with every problem that can be told from the declarations and
    the schema alone.
    """
    plans = Plans(
        current={
            name: TablePlan(name=name, table=table, columns={column.name: column for column in table.columns})
            for name, table in tables.items()
        }
    )
    for change in upgrade.changes:
        for operation in change.operations:
            _apply(operation, plans)
    problems: list[Problem] = []
    expand: list[Block] = []
    migrate: list[Block] = []
    verify: list[Block] = []
    installed: list[Installed] = []
    plans.resolve()
    for definition in _definitions(plans, write):
        where: dict[str, Any] = {"table": definition.name, "schema": definition.schema}
        step = MakeTable(definition=definition)
        expand.append(Hold(title=f"create {definition.name}", steps=(step,), locked=False, **where))
        installed.append(Installed(created=True, fingerprint=_fingerprint(describe_table(definition)), **where))
    references = references_of(plans)
    apart, syncs = referring(plans), {}
    for table_plan in plans.changed():
        try:
            sync = sync_of(table_plan)
        except ProblemError as error:
            problems.extend(error.problems)
            continue
        problems.extend(table_problems(table_plan, sync))
        expand.extend(number_blocks(table_plan, "add"))
        expand.extend(_expand(table_plan, sync, apart=table_plan.name in apart))
        expand.extend(_add_alias(table_plan))
        if sync:
            syncs[table_plan.name] = sync
            not_null = tuple(column.name for column in table_plan.added if not column.nullable)
            migrate.append(_online("backfill", sync, Backfill(sync=sync)))
            verify.append(_online("compare both sides of", sync, Probe(sync=sync, not_null=not_null)))
        migrate.extend(number_blocks(table_plan, "fill"))
        if (fill := widening_stage(table_plan, "fill")) is not None:
            title = f"fill the wider columns of {fill.table}"
            migrate.append(Online(title=title, table=fill.table, schema=fill.schema, step=fill))
        verify.extend(_compare_names(table_plan))
        installed.append(_installed(table_plan, sync, write))
    installed.extend(Installed(table=name, schema=schema, removed=True) for schema, name in plans.removed_in_order())
    ProblemError.raise_any([*problems, *moving_problems(plans)])
    pairs, parts = pairs_of(plans), parts_of(plans)
    expand.extend(block for moved in pairs for block in moved.expand())
    expand.extend(block for moved in parts for block in expand_parts(moved))
    for moved in (pairs := [*pairs, *(moved for listed in parts for moved in listed)]):
        migrate.append(moved.migrate())
        verify.append(moved.verify())
    for copy in (copies := copies_of(plans)):
        begin, copied, compare = copy_blocks(copy)
        expand.extend(begin)
        migrate.append(copied)
        verify.append(compare)
    expand.extend(expand_references(references, syncs))
    installed = installed_references(installed_copies(installed_pairs(installed, pairs), copies), references)
    migrate.extend(plan_builds(installed))
    contract, rollback = plan_end(installed)
    return Phases(
        expand=tuple(expand),
        migrate=tuple(migrate),
        verify=tuple(verify),
        contract=contract,
        rollback=rollback,
        installed=tuple(installed),
    )


def _definitions(plans: Plans, write: Callable[[expressions.Expression], str]) -> list[sa.Table]:
    """The new tables, each after those that it refers to."""
    made = [found for found in plans.current.values() if found.created]
    held = [problem for found in made for problem in (*held_columns(found, None), *lost_key(found))]
    ProblemError.raise_any([*plans.problems(), *held])
    return plans.definitions(lambda found, constraint: _constraint(found, None, constraint, write))


# --- gathering
# ----------------------------------------------------------------------------------------------------------


def _apply(operation: Operation, plans: Plans) -> None:
    fragment = operation.plan({name: found.columns for name, found in plans.current.items()})
    if plans.exist(fragment):
        return
    for one in (fragment, *fragment.then):
        _gather(one, plans)


def _gather(fragment: Fragment, plans: Plans) -> None:
    found = plans.current[fragment.table]
    for column in fragment.add:
        check_comment(f"{fragment.table[1]}.{column.name}", column.comment)
        # Some servers see no difference between upper and lower case in a column's name.
        if column.name.lower() in {name.lower() for name in (*found.columns, *found.original)}:
            raise ProblemError(
                Problem(
                    code="CF112",
                    what=f"table {fragment.table[1]} has a column {column.name} already.",
                    why="both releases see one physical column: a changed meaning needs a new name.",
                    instead="choose another name for the new column.",
                )
            )
    if fragment.lens is not None:
        found.lenses.append((fragment.lens, fragment.once))
    if fragment.opaque is not None:
        found.opaque.append(fragment.opaque)
    _reshape(found, fragment)
    for name in fragment.drop:
        del found.columns[name]
    for column in fragment.add:
        found.columns[column.name] = column
    if fragment.nullability is not None:
        change_nullability(found, fragment.nullability)
    if fragment.key is not None:
        change_key(found, fragment.key)
    _apply_constraints(found, fragment)
    move(fragment, plans)
    note_copy(fragment, plans)
    note_parts(fragment, plans)
    refer(fragment, plans)


def _apply_constraints(found: TablePlan, fragment: Fragment) -> None:
    for wish in fragment.release:
        _release(found, wish)
    for index in fragment.build:
        found.build.append(new_index(fragment.table[1], _taken(found), index))
    for gone in fragment.unconstrain:
        _unconstrain(found, gone)
    for constraint in fragment.constrain:
        new_name(fragment.table[1], _taken(found), constraint.name)
        found.constrain.append(constraint)
    found.repairs.extend(fragment.repair)


def _reshape(found: TablePlan, fragment: Fragment) -> None:
    """Columns that keep their names."""
    for column, late in fragment.redefault:
        found.columns[column.name] = column
        if column.name in found.original:
            found.redefaulted[column.name] = late
    for column in fragment.widen:
        found.columns[column.name] = column
        if column.name in found.original:
            found.widened[column.name] = found.widened.get(column.name, True) and fragment.replans
    if fragment.comment is not None:
        change_comment(found, fragment.comment)
    found.labels.extend(one for one in fragment.extend if one.column in found.original)


def _taken(found: TablePlan) -> set[str]:
    """The names of constraints and indexes that are given away on the table."""
    return names_of(found.holders) | {made.name for made in (*found.build, *found.constrain) if made.name}


def _unconstrain(found: TablePlan, wish: Release) -> None:
    """Take away what stands, or what an earlier change of the same upgrade would have made."""
    for made in found.constrain:
        kind = Check.kind if isinstance(made, Condition) else made.kind
        if kind == wish.kind and (made.name == wish.name if wish.name else made.columns == wish.columns):
            found.constrain.remove(made)
            return
    left = [holder for holder in found.holders if holder.constraint not in found.unconstrained]
    found.unconstrained += released_constraints(found.name[1], left, wish)


def _release(found: TablePlan, wish: Index) -> None:
    """Take away what stands, or what an earlier change of the same upgrade would have built."""
    for index in found.build:
        if wish.name == index.name or (wish.name is None and index.unique and index.columns == wish.columns):
            found.build.remove(index)
            return
    left = [holder for holder in found.holders if holder.index not in found.released]
    found.released.append(released_index(found.name[1], left, wish))


# --- blocks
# -------------------------------------------------------------------------------------------------------------


def _expand(found: TablePlan, sync: Sync | None, *, apart: bool) -> list[Block]:
    """``apart``: the sync is installed later, its marker stands now."""
    schema, table = found.name
    steps: list[Step] = []
    if early := {change.column: change.new for change in _redefaulted(found) if not change.late}:
        steps.append(SetDefaults(table=table, schema=schema, defaults=early))
    if widening := widening_stage(found, "begin"):
        steps.append(widening)
    if apart:
        steps.append(add_marker(found))
    elif plain := plain_columns(found):
        added = tuple(ops.AddColumnOp(table, column, schema=schema) for column in plain)
        steps.append(AddColumns(table=table, schema=schema, columns=added))
    if sync and not apart:
        if sync.enforced:
            steps.append(RelaxNotNull(table=table, schema=schema, names=sync.enforced))
        steps.append(InstallSync(sync=sync))
    return [Hold(title=f"expand {table}", table=table, schema=schema, steps=tuple(steps))] if steps else []


def _add_alias(found: TablePlan) -> list[Block]:
    if found.renamed is None:
        return []
    schema, table = found.name
    where: dict[str, Any] = {"table": table, "schema": schema}
    columns, replaced = tuple(found.columns), tuple(found.released)
    step = AddAlias(**where, alias=found.renamed, columns=columns, replaced=replaced, name=stem(found.name))
    return [Hold(title=f"let {table} be known as {found.renamed}", steps=(step,), locked=False, **where)]


def _compare_names(found: TablePlan) -> list[Block]:
    if found.renamed is None:
        return []
    schema, table = found.name
    where: dict[str, Any] = {"table": table, "schema": schema}
    key = tuple(column.name for column in found.table.primary_key.columns)
    step = ProbeAlias(**where, alias=found.renamed, columns=tuple(found.columns), key=key)
    return [Online(title=f"compare {table} with {found.renamed}", step=step, **where)]


def _online(verb: str, sync: Sync, step: Backfill | Probe) -> Online:
    return Online(title=f"{verb} {sync.table}", table=sync.table, schema=sync.schema, step=step)


def _redefaulted(found: TablePlan) -> tuple[DefaultChange, ...]:
    return tuple(
        DefaultChange(
            column=name,
            old=default_text(found.original[name]),
            new=default_text(found.columns[name]),
            late=late,
        )
        for name, late in found.redefaulted.items()
        if name in found.columns
    )


def _installed(found: TablePlan, sync: Sync | None, write: Callable[[expressions.Expression], str]) -> Installed:
    schema, table = found.name
    built = (*(_timed(found, sync, index) for index in found.build), *key_index(found))
    constrained = tuple(_constraint(found, sync, made, write) for made in found.constrain)
    defaults = {column.name: default_text(column) for column in found.added}
    return Installed(
        table=table,
        schema=schema,
        sync=sync.name if sync else None,
        marker=sync.marker if sync else None,
        fingerprint=sync.fingerprint if sync else "",
        added=tuple(column.name for column in found.added),
        dropped=found.dropped,
        not_null=tuple(column.name for column in found.added if not column.nullable),
        defaults={name: text for name, text in defaults.items() if text is not None},
        relaxed=sync.enforced if sync else (),
        built=built,
        replaced=tuple(found.released),
        opaque=bool(found.opaque),
        widened=widenings_of(found),
        redefaulted=_redefaulted(found),
        commented=comments_of(found),
        mirror=mirror_of(found),
        labels=tuple(one for one in found.labels if one.native and one.column in found.columns),
        renamed=found.renamed,
        alias=stem(found.name) if found.renamed else None,
        constrained=constrained,
        released=tuple(found.unconstrained),
        tightened=tuple(name for name, change in found.nullability.items() if not change.nullable),
        loosened=tuple(name for name, change in found.nullability.items() if change.nullable),
        mends=(*mends(found, write), *repairs(found, built, constrained, write)),
        key=key_change(found),
        numbered=numbered(found),
    )


def _constraint(
    found: TablePlan,
    sync: Sync | None,
    made: ForeignKey | Condition | Exclusion,
    write: Callable[[expressions.Expression], str],
) -> Constraint:
    """The constraint, built late if the old release could violate it."""
    groups = sync.groups if sync else ()
    if isinstance(made, ForeignKey):
        copied = not found.copied.isdisjoint(made.columns)
        implied = not copied and is_key_implied(made, found.holders, groups, found.original, found.columns)
        return replace(made, late=not implied)
    written = {*found.original, *found.copied, *(name for group in groups for name in group.forward)}
    if isinstance(made, Exclusion):
        # What nobody has written is NULL, and compares with nothing.
        plain = [one for one, _ in made.elements if one in made.columns]
        return replace(made, late=written.issuperset(plain))
    unknown = written.isdisjoint(made.columns) and _holds_for_nulls(made)
    return Check(
        name=made.name, columns=made.columns, text=write(made.expression), copies=made.copies, late=not unknown
    )


def _holds_for_nulls(condition: Condition) -> bool:
    """Whether a row passes that has NULL in all of the columns."""
    try:
        passed = expressions.evaluate(condition.expression, dict.fromkeys(condition.columns))
    except (TypeError, ValueError, ArithmeticError):
        return False
    return passed is None or bool(passed)


def _timed(found: TablePlan, sync: Sync | None, index: Index) -> Index:
    """The index, built late if the old release could violate it."""
    groups = sync.groups if sync else ()
    if index.unique and not found.copied.isdisjoint(index.columns):
        return replace(index, late=True)
    if index.unique and any(name in lens.new for lens in found.opaque for name in index.columns):
        return replace(index, late=True)  # migrate goes on filling the column
    early = not index.unique or is_implied(index, found.holders, groups, found.original, found.columns)
    return replace(index, late=not early)
