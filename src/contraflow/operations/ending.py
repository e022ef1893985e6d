"""What is planned from the journal alone: the builds at the end of migrate, contract and rollback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from contraflow.constraints import Constraint, ForeignKey
from contraflow.installed import Index, Installed
from contraflow.operations.comments import comment_blocks
from contraflow.operations.copying import plan_copies_end
from contraflow.operations.enums import label_blocks
from contraflow.operations.keys import key_blocks, number_end
from contraflow.operations.moves import plan_pairs_end
from contraflow.operations.widening import guard_blocks, refer_blocks, swap_blocks, widening_end
from contraflow.steps import (
    AllowNull,
    Block,
    BuildConstraint,
    BuildIndex,
    DropAlias,
    DropColumns,
    DropConstraints,
    DropIndexes,
    EnforceNotNull,
    FillNulls,
    ForgetNotNull,
    Hold,
    MakeConstraints,
    MakeWay,
    NumberColumn,
    Online,
    RemoveSync,
    RemoveTable,
    RestoreNotNull,
    SetDefaults,
    SetNotNull,
    Step,
    TakeName,
)

__all__ = ["plan_builds", "plan_end"]


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
            blocks += _mend(found, index)
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
                blocks += _mend(found, made)
                title = f"make {made.title.removeprefix('the ')} of {found.table}"
                blocks.append(Online(title=title, step=BuildConstraint(**where, constraint=made), **where))
        if found.loosened and not late:
            allow = AllowNull(**where, names=found.loosened)
            blocks.append(Online(title=f"let columns of {found.table} hold NULLs", step=allow, **where))
        if late:
            blocks += _fill_nulls(found, found.tightened)
    return tuple(blocks)


def _mend(found: Installed, violated: Constraint | Index) -> Iterator[Block]:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    for mend in found.mends:
        if mend.of and mend.of == violated.name:
            step = FillNulls(**where, mend=mend, violated=violated)
            yield Online(title=f"mend {found.table}.{mend.column} for {mend.of}", step=step, **where)


def _fill_nulls(found: Installed, names: Sequence[str]) -> Iterator[Block]:
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    for mend in found.mends:
        if mend.column in names and not mend.of:
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
        *plan_copies_end(installed),
        *plan_pairs_end(installed),
        *_end(named)[0],
        *(_drop_table(found) for found in installed if found.removed),
        *(block for found in named if found.commented for block in comment_blocks(found)),
    ]
    rollback = [
        *(_drop_alias(found) for found in renamed),
        *plan_copies_end(installed),
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
        if not _retires(found):
            contract += key_blocks(found)
    contract += _drop_references([(found, found.released) for found in installed])
    retired: list[list[Block]] = []
    for found in installed:
        where = {"table": found.table, "schema": found.schema}
        forward, backward = _end_steps(found, installed)
        held = [Hold(title=f"contract {found.table}", steps=forward, **where)] if forward else []
        if _retires(found):
            retired.append([*key_blocks(found), *held])
        else:
            contract += held
        if backward:
            rollback.append(Hold(title=f"roll back {found.table}", steps=backward, **where))
        if nullable := tuple(name for name in found.tightened if name not in found.added):
            # Of a contract that gave up, the proof is left, or NOT NULL itself.
            allow = AllowNull(**where, names=nullable)
            rollback.append(Online(title=f"let columns of {found.table} hold NULLs again", step=allow, **where))
        rollback += number_end(found)
        if found.loosened:
            step = EnforceNotNull(**where, names=found.loosened)
            rollback.append(Online(title=f"prove NOT NULL on {found.table}", step=step, **where))
            rollback += _fill_nulls(found, found.loosened)
    # A table after those whose sync looks up its old key; the plan has it before them.
    contract += [block for blocks in reversed(retired) for block in blocks]
    # Last: some servers cannot take a value away again.
    contract += [block for found in installed if found.labels for block in label_blocks(found)]
    references = _drop_references([(found, found.constrained) for found in installed])
    return tuple(contract), (
        *guard_blocks(installed),
        *references,
        *reversed(rollback),
        *refer_blocks(installed),
    )


def _retires(found: Installed) -> bool:
    """Whether the columns of the table's old key go with it."""
    return found.key is not None and found.key.retires


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
    names = [*(pair.marker for pair in found.pairs), *(copy.image for copy in found.copies)]
    markers = tuple(sorted({name for name in names if name}))
    if dropped := (*found.dropped, *(() if found.removed else markers)):
        forward.append(DropColumns(**where, names=dropped))
    apart = found.numbered.column if found.numbered else None
    if added := (*(name for name in found.added if name != apart), *(() if found.created else markers)):
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
    if found.numbered and found.key:
        forward.append(NumberColumn(stage="end", **where, numbered=found.numbered, key=found.key))
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
    """Whether it is a foreign key to another table of the upgrade, or to an old key of its own that goes first."""
    return isinstance(constraint, ForeignKey) and any(
        (other.schema, other.table) == (constraint.target_schema, constraint.target)
        for other in installed
        if other is not found or _retires(found)
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
