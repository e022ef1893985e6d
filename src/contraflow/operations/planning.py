"""From declared changes to phases: pure functions, no connection, no SQL of any server."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

from contraflow import expressions
from contraflow.constraints import Check, Constraint, ForeignKey
from contraflow.lens import Group, combine
from contraflow.opaque import Opaque
from contraflow.operations.base import (
    Condition,
    Fragment,
    Operation,
    Release,
    TableName,
    constant_default,
    default_text,
)
from contraflow.operations.enums import label_blocks, label_problems
from contraflow.operations.gathering import Plans, stem
from contraflow.operations.gathering import TablePlan as _TablePlan
from contraflow.operations.held import (
    check_injective,
    check_left_out,
    is_implied,
    is_key_implied,
    names_of,
    new_index,
    new_name,
    not_injective,
    released_constraints,
    released_index,
)
from contraflow.operations.moves import MoveColumns, installed_pairs, move, pairs_of, plan_pairs_end
from contraflow.operations.nullability import change_nullability, mends, nullability_problems
from contraflow.operations.tables import RenameTable, describe_table
from contraflow.operations.widening import (
    guard_blocks,
    mirror_of,
    swap_blocks,
    widening_end,
    widening_problems,
    widening_stage,
    widenings_of,
)
from contraflow.problems import Problem, ProblemError
from contraflow.steps import (
    AddAlias,
    AddColumns,
    AllowNull,
    Backfill,
    Block,
    BuildConstraint,
    BuildIndex,
    DefaultChange,
    DropAlias,
    DropColumns,
    DropConstraints,
    DropIndexes,
    EnforceNotNull,
    FillNulls,
    ForgetNotNull,
    Hold,
    Index,
    Installed,
    InstallSync,
    MakeConstraints,
    MakeTable,
    MakeWay,
    Online,
    Phases,
    Probe,
    RelaxNotNull,
    RemoveSync,
    RemoveTable,
    RestoreNotNull,
    SetDefaults,
    SetNotNull,
    Step,
    Sync,
    SyncColumn,
    TakeName,
)

__all__ = ["MARKER", "Declared", "Upgrade", "plan", "plan_builds", "plan_end", "tables_of"]

MARKER = "cf_marker"
"""The name of the marker column of a synced table."""


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
    new += [(operation.schema, operation.to) for operation in operations if isinstance(operation, MoveColumns)]
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
            name: _TablePlan(name=name, table=table, columns={column.name: column for column in table.columns})
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
    for table_plan in plans.changed():
        try:
            sync = _sync(table_plan)
        except ProblemError as error:
            problems.extend(error.problems)
            continue
        problems.extend(_table_problems(table_plan, sync))
        expand.extend(_expand(table_plan, sync))
        expand.extend(_add_alias(table_plan))
        if sync:
            not_null = tuple(column.name for column in table_plan.added if not column.nullable)
            migrate.append(_online("backfill", sync, Backfill(sync=sync)))
            verify.append(_online("compare both sides of", sync, Probe(sync=sync, not_null=not_null)))
        if (fill := widening_stage(table_plan, "fill")) is not None:
            title = f"fill the wider columns of {fill.table}"
            migrate.append(Online(title=title, table=fill.table, schema=fill.schema, step=fill))
        installed.append(_installed(table_plan, sync, write))
    installed.extend(Installed(table=name, schema=schema, removed=True) for schema, name in plans.removed_in_order())
    ProblemError.raise_any(problems)
    for moved in (pairs := pairs_of(plans)):
        expand.extend(moved.expand())
        migrate.append(moved.migrate())
        verify.append(moved.verify())
    installed = installed_pairs(installed, pairs)
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
    held = [problem for found in made for problem in _held_columns(found, None)]
    ProblemError.raise_any([*plans.problems(), *held])
    return plans.definitions(lambda found, constraint: _constraint(found, None, constraint, write))


def plan_builds(installed: Sequence[Installed], *, late: bool = False) -> tuple[Block, ...]:
    """The blocks that build the new release's indexes and constraints at the end of migrate, or those with which
    contract begins.
    """
    blocks: list[Block] = []
    for found in installed:
        where: dict[str, Any] = {"table": found.table, "schema": found.schema}
        if found.widened and not late:
            blocks.extend(swap_blocks(found))
        if late and found.opaque and found.marker:
            # An old node's write makes the marker NULL: from here on it is refused, rather than lost.
            proof = EnforceNotNull(**where, names=(), passing=(found.marker,))
            title = f"prove that no row of {found.table} is still to be computed"
            blocks.append(Online(title=title, step=proof, **where))
        for index in found.built:
            if index.late is not late:
                continue
            step = BuildIndex(**where, index=index)
            blocks.append(Online(title=f"build {index.name} on {found.table}", step=step, **where))
            if index.constraint:
                constraint = MakeConstraints(**where, indexes=(index,))
                title = f"make {index.name} a constraint of {found.table}"
                blocks.append(Hold(title=title, steps=(constraint,), **where))
    # After the indexes of all tables: a foreign key refers to unique ones.
    for found in installed:
        where = {"table": found.table, "schema": found.schema}
        for made in found.constrained:
            if made.late is late:
                title = f"make {made.title.removeprefix('the ')} of {found.table}"
                blocks.append(Online(title=title, step=BuildConstraint(**where, constraint=made), **where))
        if found.loosened and not late:
            allow = AllowNull(**where, names=found.loosened)
            blocks.append(Online(title=f"let columns of {found.table} hold NULLs", step=allow, **where))
        if late:
            blocks += _fill_nulls(found, found.tightened)
    return tuple(blocks)


def _fill_nulls(found: Installed, names: Sequence[str]) -> Iterator[Block]:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    for mend in found.mends:
        if mend.column in names:
            yield Online(title=f"fill {found.table}.{mend.column}", step=FillNulls(**where, mend=mend), **where)


def plan_end(installed: Sequence[Installed]) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """The blocks of contract and of rollback, from what the journal says is installed.

    Those of contract that only build (see :func:`plan_builds`) come first: until the one after them is begun, the
    upgrade can still be rolled back.
    """
    renamed = [found for found in installed if found.renamed]
    named = [replace(found, table=found.renamed or found.table) for found in installed]
    contract = [
        *plan_builds([found for found in installed if not found.renamed], late=True),
        *(block for found in renamed for block in _take_name(found)),
        # Built already, and still so after a kill: by now the tables have their new names.
        *plan_builds([found for found in named if found.renamed], late=True),
        *plan_pairs_end(installed),
        *_end(named)[0],
        *(_drop_table(found) for found in installed if found.removed),
    ]
    rollback = [
        *(_drop_alias(found) for found in renamed),
        *plan_pairs_end(installed),
        *_end(installed)[1],
        *(_drop_table(found) for found in reversed(installed) if found.created),
    ]
    return tuple(contract), tuple(rollback)


def _end(installed: Sequence[Installed]) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """What ends the two shapes of each table: the blocks of contract and of rollback."""
    contract: list[Block] = []
    rollback: list[Block] = []
    for found in installed:
        where: dict[str, Any] = {"table": found.table, "schema": found.schema}
        if found.not_null:
            defaults = {name: text for name, text in found.defaults.items() if name in found.not_null}
            step = EnforceNotNull(**where, names=found.not_null, defaults=defaults)
            contract.append(Online(title=f"prove NOT NULL on {found.table}", step=step, **where))
        if found.tightened:
            step = EnforceNotNull(**where, names=found.tightened)
            contract.append(Online(title=f"prove NOT NULL on {found.table}", step=step, **where))
    contract += _drop_references([(found, found.released) for found in installed])
    for found in installed:
        where = {"table": found.table, "schema": found.schema}
        forward, backward = _end_steps(found, installed)
        if forward:
            contract.append(Hold(title=f"contract {found.table}", steps=forward, **where))
        if backward:
            rollback.append(Hold(title=f"roll back {found.table}", steps=backward, **where))
        if found.loosened:
            step = EnforceNotNull(**where, names=found.loosened)
            rollback.append(Online(title=f"prove NOT NULL on {found.table}", step=step, **where))
            rollback += _fill_nulls(found, found.loosened)
    # Last: some servers cannot take a value away again.
    contract += [block for found in installed if found.labels for block in label_blocks(found)]
    references = _drop_references([(found, found.constrained) for found in installed])
    return tuple(contract), (*guard_blocks(installed), *references, *reversed(rollback))


def _end_steps(found: Installed, installed: Sequence[Installed]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """What the hold of contract and that of rollback do on one table."""
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    forward: list[Step] = []
    backward: list[Step] = []
    for steps, constraints in ((forward, found.released), (backward, found.constrained)):
        if own := tuple(gone for gone in constraints if not _refers(gone, found, installed)):
            steps.append(DropConstraints(**where, constraints=own))
    if found.replaced:
        forward.append(DropIndexes(**where, indexes=found.replaced))
    if found.built:
        backward.append(DropIndexes(**where, indexes=found.built))
    if found.added:
        final: dict[str, Any] = {"not_null": found.not_null, "defaults": found.defaults, "names": found.added}
        passing = (found.marker,) if found.opaque and found.marker else ()
        forward.append(SetNotNull(**where, **final, passing=passing))
    if found.sync and found.marker:
        remove = RemoveSync(**where, name=found.sync, marker=found.marker, fill_defaults=found.relaxed)
        forward.append(remove)
        backward.append(RemoveSync(**where, name=found.sync, marker=found.marker))
    if found.relaxed:
        backward.append(RestoreNotNull(**where, names=found.relaxed))
    markers = tuple(sorted({pair.marker for pair in found.pairs}))
    if dropped := (*found.dropped, *(() if found.removed else markers)):
        forward.append(DropColumns(**where, names=dropped))
    if added := (*found.added, *(() if found.created else markers)):
        backward.append(DropColumns(**where, names=added))
    if found.tightened:
        forward.append(SetNotNull(**where, not_null=found.tightened))
    if found.loosened:
        forward.append(ForgetNotNull(**where, names=found.loosened))
        backward += [
            RestoreNotNull(**where, names=found.loosened),
            SetNotNull(**where, not_null=found.loosened),
        ]
    _end_defaults(found, forward, backward)
    if found.widened:
        forward.append(widening_end(found, "end"))
        backward.append(widening_end(found, "undo"))
    return tuple(forward), tuple(backward)


def _end_defaults(found: Installed, forward: list[Step], backward: list[Step]) -> None:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    if late := {change.column: change.new for change in found.redefaulted if change.late}:
        forward.append(SetDefaults(**where, defaults=late))
    if early := {change.column: change.old for change in found.redefaulted if not change.late}:
        backward.append(SetDefaults(**where, defaults=early))


def _drop_references(constraints: Sequence[tuple[Installed, Sequence[Constraint]]]) -> Iterator[Block]:
    """Foreign keys to other tables of the upgrade go before those lose columns or indexes."""
    installed = [found for found, _ in constraints]
    for found, gone in constraints:
        if keys := tuple(key for key in gone if _refers(key, found, installed)):
            where: dict[str, Any] = {"table": found.table, "schema": found.schema}
            drop = DropConstraints(**where, constraints=keys)
            yield Hold(title=f"drop foreign keys of {found.table}", steps=(drop,), **where)


def _refers(constraint: Constraint, found: Installed, installed: Sequence[Installed]) -> bool:
    """Whether it is a foreign key to another table of the upgrade."""
    return isinstance(constraint, ForeignKey) and any(
        (other.schema, other.table) == (constraint.target_schema, constraint.target)
        for other in installed
        if other is not found
    )


def _take_name(found: Installed) -> list[Block]:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    name: dict[str, Any] = {**where, "alias": str(found.renamed), "name": str(found.alias)}
    way = Hold(title=f"make way for {found.renamed}", steps=(MakeWay(**name),), locked=False, **where)
    take = Hold(title=f"rename {found.table} to {found.renamed}", steps=(TakeName(**name),), locked=False, **where)
    return [
        way,
        take,
        Hold(title=f"forget {found.table}", steps=(DropAlias(**name, parked=True),), locked=False, **where),
    ]


def _drop_alias(found: Installed) -> Block:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    step = DropAlias(**where, alias=str(found.renamed), name=str(found.alias))
    return Hold(title=f"take back the name {found.renamed}", steps=(step,), locked=False, **where)


def _drop_table(found: Installed) -> Block:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    return Hold(title=f"drop {found.table}", steps=(RemoveTable(**where),), locked=False, **where)


# --- gathering
# ----------------------------------------------------------------------------------------------------------


def _apply(operation: Operation, plans: Plans) -> None:
    fragment = operation.plan({name: found.columns for name, found in plans.current.items()})
    if plans.exist(fragment):
        return
    found = plans.current[fragment.table]
    for column in fragment.add:
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
    _apply_constraints(found, fragment)
    move(fragment, plans)


def _apply_constraints(found: _TablePlan, fragment: Fragment) -> None:
    for wish in fragment.release:
        _release(found, wish)
    for index in fragment.build:
        found.build.append(new_index(fragment.table[1], _taken(found), index))
    for gone in fragment.unconstrain:
        _unconstrain(found, gone)
    for constraint in fragment.constrain:
        new_name(fragment.table[1], _taken(found), constraint.name)
        found.constrain.append(constraint)


def _reshape(found: _TablePlan, fragment: Fragment) -> None:
    """Columns that keep their names."""
    for column, late in fragment.redefault:
        found.columns[column.name] = column
        if column.name in found.original:
            found.redefaulted[column.name] = late
    for column in fragment.widen:
        found.columns[column.name] = column
        if column.name in found.original:
            found.widened[column.name] = found.widened.get(column.name, True) and fragment.replans
    found.labels.extend(one for one in fragment.extend if one.column in found.original)


def _taken(found: _TablePlan) -> set[str]:
    """The names of constraints and indexes that are given away on the table."""
    return names_of(found.holders) | {made.name for made in (*found.build, *found.constrain) if made.name}


def _unconstrain(found: _TablePlan, wish: Release) -> None:
    """Take away what stands, or what an earlier change of the same upgrade would have made."""
    for made in found.constrain:
        kind = made.kind if isinstance(made, ForeignKey) else Check.kind
        if kind == wish.kind and (made.name == wish.name if wish.name else made.columns == wish.columns):
            found.constrain.remove(made)
            return
    left = [holder for holder in found.holders if holder.constraint not in found.unconstrained]
    found.unconstrained += released_constraints(found.name[1], left, wish)


def _release(found: _TablePlan, wish: Index) -> None:
    """Take away what stands, or what an earlier change of the same upgrade would have built."""
    for index in found.build:
        if wish.name == index.name or (wish.name is None and index.unique and index.columns == wish.columns):
            found.build.remove(index)
            return
    left = [holder for holder in found.holders if holder.index not in found.released]
    found.released.append(released_index(found.name[1], left, wish))


def _sync(found: _TablePlan) -> Sync | None:
    if found.opaque:
        return _opaque_sync(found)
    if not found.lenses:
        return None
    groups = combine(
        found.lenses,
        old_types={name: column.type for name, column in found.original.items()},
        new_types={name: column.type for name, column in found.columns.items()},
    )
    groups = tuple(group for group in groups if group.forward or group.backward)
    if not groups:
        return None
    columns: dict[str, SyncColumn] = {}
    for group in groups:
        for name in group.columns:
            column = found.original.get(name)
            columns[name] = _sync_column(column if column is not None else found.columns[name])
    _check_ends(found, groups, columns)
    return _make_sync(found, columns, groups=groups)


def _opaque_sync(found: _TablePlan) -> Sync:
    lens, *others = found.opaque
    other = "another name" if found.renamed else "another lens"
    if others or found.renamed or found.lenses or any(name not in found.columns for name in lens.new):
        raise ProblemError(
            Problem(
                code="CF116",
                what=f"{found.name[1]} has an opaque lens and {other} in one upgrade.",
                why="the new release's nodes write both shapes by the one declaration, and know the table by one name.",
                instead="put them into two upgrades: contract the first before the second.",
            )
        )
    if lost := [name for name in lens.old if name not in found.original]:
        raise ProblemError(
            Problem(
                code="CF116",
                what=f"the opaque lens of {found.name[1]} reads {', '.join(lost)}, which the old release has not.",
                why="a column between two changes of one upgrade is never stored.",
                instead="let it read the old release's own columns.",
            )
        )
    columns = {
        name: _sync_column(found.original[name] if name in found.original else found.columns[name])
        for name in (*lens.old, *lens.new)
    }
    return _make_sync(found, columns, opaque=lens)


def _make_sync(
    found: _TablePlan,
    columns: Mapping[str, SyncColumn],
    *,
    groups: tuple[Group, ...] = (),
    opaque: Opaque | None = None,
) -> Sync:
    schema, table = found.name
    key = tuple(found.table.primary_key.columns)
    return Sync(
        table=table,
        schema=schema,
        key=tuple(column.name for column in key),
        key_types=tuple(column.type for column in key),
        columns=columns,
        groups=groups,
        opaque=opaque,
        marker=MARKER,
        name=stem(found.name),
    )


def _check_ends(found: _TablePlan, groups: tuple[Group, ...], columns: Mapping[str, SyncColumn]) -> None:
    """A composed image may read end columns only."""
    for group in groups:
        for name, image in (*group.forward.items(), *group.backward.items()):
            if lost := expressions.references(image) - set(columns):
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"{found.name[1]}.{name} is computed from {', '.join(sorted(lost))},"
                        " which exists in neither release.",
                        why="a column between two changes of one upgrade is never stored, so it has no present value.",
                        instead="write one Lens from the first change's old columns to the last change's new ones.",
                    )
                )


def _sync_column(column: sa.Column[Any]) -> SyncColumn:
    text = default_text(column)
    constant, value = constant_default(column)
    return SyncColumn(
        name=column.name,
        type=column.type,
        nullable=bool(column.nullable),
        default=text,
        default_constant=constant,
        default_value=value,
        identity=column.identity is not None or column.computed is not None,
    )


# --- blocks
# -------------------------------------------------------------------------------------------------------------


def _expand(found: _TablePlan, sync: Sync | None) -> list[Block]:
    schema, table = found.name
    steps: list[Step] = []
    if early := {change.column: change.new for change in _redefaulted(found) if not change.late}:
        steps.append(SetDefaults(table=table, schema=schema, defaults=early))
    if widening := widening_stage(found, "begin"):
        steps.append(widening)
    if found.added:
        added = tuple(ops.AddColumnOp(table, column, schema=schema) for column in found.added)
        steps.append(AddColumns(table=table, schema=schema, columns=added))
    if sync:
        if sync.enforced:
            steps.append(RelaxNotNull(table=table, schema=schema, names=sync.enforced))
        steps.append(InstallSync(sync=sync))
    return [Hold(title=f"expand {table}", table=table, schema=schema, steps=tuple(steps))] if steps else []


def _add_alias(found: _TablePlan) -> list[Block]:
    if found.renamed is None:
        return []
    schema, table = found.name
    where: dict[str, Any] = {"table": table, "schema": schema}
    columns, replaced = tuple(found.columns), tuple(found.released)
    step = AddAlias(**where, alias=found.renamed, columns=columns, replaced=replaced, name=stem(found.name))
    return [Hold(title=f"let {table} be known as {found.renamed}", steps=(step,), locked=False, **where)]


def _online(verb: str, sync: Sync, step: Backfill | Probe) -> Online:
    return Online(title=f"{verb} {sync.table}", table=sync.table, schema=sync.schema, step=step)


def _redefaulted(found: _TablePlan) -> tuple[DefaultChange, ...]:
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


def _installed(found: _TablePlan, sync: Sync | None, write: Callable[[expressions.Expression], str]) -> Installed:
    schema, table = found.name
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
        built=tuple(_timed(found, sync, index) for index in found.build),
        replaced=tuple(found.released),
        opaque=bool(found.opaque),
        widened=widenings_of(found),
        redefaulted=_redefaulted(found),
        mirror=mirror_of(found),
        labels=tuple(one for one in found.labels if one.native and one.column in found.columns),
        renamed=found.renamed,
        alias=stem(found.name) if found.renamed else None,
        constrained=tuple(_constraint(found, sync, made, write) for made in found.constrain),
        released=tuple(found.unconstrained),
        tightened=tuple(name for name, change in found.nullability.items() if not change.nullable),
        loosened=tuple(name for name, change in found.nullability.items() if change.nullable),
        mends=mends(found, write),
    )


def _constraint(
    found: _TablePlan,
    sync: Sync | None,
    made: ForeignKey | Condition,
    write: Callable[[expressions.Expression], str],
) -> Constraint:
    """The constraint, built late if the old release could violate it."""
    groups = sync.groups if sync else ()
    if isinstance(made, ForeignKey):
        implied = is_key_implied(made, found.holders, groups, found.original, found.columns)
        return replace(made, late=not implied)
    written = {*found.original, *(name for group in groups for name in group.forward)}
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


def _timed(found: _TablePlan, sync: Sync | None, index: Index) -> Index:
    """The index, built late if the old release could violate it."""
    groups = sync.groups if sync else ()
    if index.unique and any(name in lens.new for lens in found.opaque for name in index.columns):
        return replace(index, late=True)  # migrate goes on filling the column
    early = not index.unique or is_implied(index, found.holders, groups, found.original, found.columns)
    return replace(index, late=not early)


# --- what the declarations and the schema alone tell
# ---------------------------------------------------------------------


def _table_problems(found: _TablePlan, sync: Sync | None) -> list[Problem]:
    written = {name for group in sync.groups for name in group.backward} if sync else set()
    dropped = {name: found.original[name] for name in found.dropped}
    problems = [
        *_held_columns(found, sync),
        *_new_column_problems(found),
        *widening_problems(found, sync.columns if sync else ()),
        *label_problems(found),
        *nullability_problems(found, sync),
        *check_left_out(found.name[1], found.holders, dropped, written),
    ]
    if MARKER in found.original:
        problems.append(
            Problem(
                code="CF112",
                what=f"table {found.name[1]} has a column {MARKER} already.",
                why="Contraflow keeps there which rows were synced; it may be left from another upgrade.",
                instead="contraflow status; drop the column if no upgrade is open.",
            )
        )
    if sync:
        if sync.opaque is not None:
            problems.extend(_generated(sync, sync.opaque.old))
        for group in sync.groups:
            problems.extend(_group_problems(found, sync, group))
    return problems


def _held_columns(found: _TablePlan, sync: Sync | None) -> list[Problem]:
    """Columns that go while a key, constraint or index still needs them."""
    table = found.name[1]
    # One problem a key. Of these, CF109 tells: to let the key go in this upgrade would not be enough.
    computed = {
        (name, holder.title)
        for group in (sync.groups if sync else ())
        for name, _, holder in not_injective(found.holders, group, found.original, found.columns)
        if holder.unique or holder.constraint is not None
    }
    left = [
        holder
        for holder in found.holders
        if (holder.index is None or holder.index not in found.released)
        and (holder.constraint is None or holder.constraint not in found.unconstrained)
    ]
    problems = [
        Problem(
            code="CF111",
            what=f"{table}.{name} cannot be dropped: {holder.title} holds it.",
            why="dropping the column would silently drop that too, or fail after the new release relies on it.",
            instead=holder.way_out(table),
        )
        for name in found.dropped
        for holder in left
        if holder.holds(name) and (name, holder.title) not in computed
    ]
    for index in found.build:
        if gone := [name for name in index.columns if name not in found.columns]:
            problems.append(
                Problem(
                    code="CF111",
                    what=f"{table}.{gone[0]} cannot be dropped: {index.name}, which this upgrade builds, stands on it.",
                    why="the new release would not have the index.",
                    instead=f'add DropIndex(table="{table}", name="{index.name}") to the later change,'
                    " and build one over the new columns.",
                )
            )
    for made in found.constrain:
        if gone := [name for name in made.columns if name not in found.columns]:
            problems.append(
                Problem(
                    code="CF111",
                    what=f"{table}.{gone[0]} cannot be dropped: {made.name}, which this upgrade makes, stands on it.",
                    why="the new release would not have the constraint.",
                    instead="drop it in the later change, and make one over the new columns.",
                )
            )
    return problems


def _new_column_problems(found: _TablePlan) -> list[Problem]:
    problems = []
    for column in found.added:
        title = f"{found.name[1]}.{column.name}"
        if isinstance(column.type, sa.types.NullType):
            problems.append(
                Problem(
                    code="CF116",
                    what=f"{title} is of a type that SQLAlchemy does not know.",
                    why="a new column of that type could not be declared, and its values not be compared.",
                    instead="install the package that teaches SQLAlchemy the type (and import it in the revision),"
                    "\nor give the new column a type of its own: ChangeType(..., new=sa.Column(..., TYPE)).",
                )
            )
        # PostgreSQL's: the sync's own variables of the type could not be NULL either (error 23502).
        if getattr(column.type, "not_null", False):
            domain = getattr(column.type, "name", "") or "of its type"
            problems.append(
                Problem(
                    code="CF116",
                    what=f"{title} is of the domain {domain}, which is NOT NULL.",
                    why="until contract a new column must be able to hold NULL.",
                    instead="give the new column the domain's own type: ChangeType(..., new=sa.Column(..., TYPE)),"
                    "\nnullable=False where it is to be NOT NULL.",
                )
            )
        if re.search(r"\bON UPDATE\b", default_text(column) or "", re.IGNORECASE):
            problems.append(
                Problem(
                    code="CF110",
                    what=f"{title} is set by the server on every update (ON UPDATE).",
                    why="every update of either release would count as a write to it.",
                    instead="let the application set it: ALTER the column without ON UPDATE first, in a revision before"
                    "\nthis one.",
                )
            )
        problems.extend(_generated_problems(found, column, title))
        if column.primary_key or column.unique or column.index or column.foreign_keys:
            problems.append(
                Problem(
                    code="CF111",
                    what=f"{title} is declared with a key, a unique constraint, an index or a foreign key.",
                    why="a column operation makes plain columns only; building the rest would block writers.",
                    instead="declare the column without it, and add CreateIndex(...), AddUnique(...) or"
                    "\nAddForeignKey(...) to the change.",
                )
            )
    return problems


def _generated(sync: Sync, names: Sequence[str]) -> Iterator[Problem]:
    for name in names:
        if sync.columns[name].identity:
            yield Problem(
                code="CF110",
                what=f"{sync.table}.{name} is generated by the server.",
                why="the sync could not write it.",
                instead="leave it out of the lens.",
            )


def _generated_problems(found: _TablePlan, column: sa.Column[Any], title: str) -> Iterator[Problem]:
    if column.identity is not None:
        yield Problem(
            code="CF110",
            what=f"{title} is numbered by the server.",
            why="the server would write every row anew while writers wait.",
            instead="declare a plain column that the application fills, or a new table with the key.",
        )
    if column.computed is None:
        return
    if column.computed.persisted:
        yield Problem(
            code="CF110",
            what=f"{title} is computed by the server, and stored.",
            why="the server would write every row anew while writers wait.",
            instead="let it be computed when it is read: sa.Computed(..., persisted=False);"
            '\nor declare a plain column: AddColumn(..., value=lambda row: ..., reads=[...], keep="track").',
        )
    if not column.nullable:
        yield Problem(
            code="CF116",
            what=f"{title} is computed by the server, and NOT NULL.",
            why="until contract no new column is.",
            instead="leave out nullable=False.",
        )
    text = str(column.computed.sqltext)
    for name in found.dropped:
        if re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE):
            yield Problem(
                code="CF111",
                what=f"{found.name[1]}.{name} cannot be dropped: {title} is computed from it.",
                why="contract would fail, or drop that too.",
                instead="compute it from the columns that stay.",
            )


def _group_problems(found: _TablePlan, sync: Sync, group: Group) -> list[Problem]:
    table = found.name[1]
    problems = list(_generated(sync, (*group.forward, *group.backward)))
    problems.extend(check_injective(table, found.holders, group, found.original, found.columns))
    if group.forward_deterministic is False and group.backward_deterministic is False:
        problems.append(
            Problem(
                code="CF115",
                what=f"both directions of the lens over {table}.({', '.join(group.columns)}) are non-deterministic.",
                why="nothing could tell whether the two sides agree.",
                instead="make one direction deterministic.",
            )
        )
    if group.omitted is None and (reason := _undecidable(sync, group)):
        problems.append(
            Problem(
                code="CF106",
                what=f"an INSERT into {table} that gives none of {', '.join(group.new or group.old)} is undecidable:"
                f" {reason}.",
                why="the values do not tell which release sent it, and the two would store different things.",
                instead='say which release is meant: omitted="old" or omitted="new".',
            )
        )
    return problems


def _undecidable(sync: Sync, group: Group) -> str | None:
    """Why ``omitted`` must be declared; None if it need not."""
    columns = sync.columns
    nothing = dict.fromkeys(group.columns)
    # An old NOT NULL column is never NULL when the row is stored; of the new ones, those whose default is
    # their image do not matter.
    required = any(not columns[name].nullable for name in group.old) or any(
        not columns[name].nullable
        and (columns[name].default is None or _image_is_default(group, columns[name], nothing))
        for name in group.forward
    )
    if not required and not _agree_both(group, nothing):
        return "with all of them NULL the two sides do not agree"
    if not required and (meant := [name for name in group.forward if columns[name].default is not None]):
        other = f"the old one's NULL in {', '.join(group.old)}"
        return f"the new release's default of {', '.join(meant)} may have been meant, or {other}"
    defaulted = [name for name in group.old if columns[name].default_constant]
    may_be_null = all(columns[name].nullable for name in group.new)
    if defaulted and may_be_null and group.new:
        row = {**nothing, **{name: columns[name].default_value for name in defaulted}}
        if any(value is not None for value in _images(group.forward, row)):
            # Also where backward gives the default for NULL: the new release would read what it has not written.
            other = f"the new one's NULL in {', '.join(group.new)}"
            return f"the old release's default of {', '.join(defaulted)} may have been meant, or {other}"
    if defaulted and not group.new and group.backward:
        row = {**nothing, **{name: columns[name].default_value for name in defaulted}}
        if not (group.backward_deterministic and _agrees(group.backward, row)):
            return f"the old release's default of {', '.join(defaulted)} may have been meant, or the computed value"
    return None


def _images(images: Mapping[str, Any], row: Mapping[str, Any]) -> list[Any]:
    values = []
    for image in images.values():
        try:
            values.append(expressions.evaluate(image, row))
        except (TypeError, ValueError, ArithmeticError):
            values.append(NotImplemented)
    return values


def _image_is_default(group: Group, column: SyncColumn, row: Mapping[str, Any]) -> bool:
    image = _images({column.name: group.forward[column.name]}, row)[0]
    return column.default_constant and bool(image == column.default_value)


def _agrees(images: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(
        value == row[name] and (value is None) == (row[name] is None)
        for name, value in zip(images, _images(images, row), strict=True)
    )


def _agree_both(group: Group, row: Mapping[str, Any]) -> bool:
    forward, backward = _agrees(group.forward, row), _agrees(group.backward, row)
    if not group.forward_deterministic:
        forward = backward
    if not group.backward_deterministic:
        backward = forward
    return forward and backward
