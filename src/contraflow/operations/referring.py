"""Tables whose rows come to refer to rows of others in an upgrade: what keeps them from it, and what is installed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa
from alembic.operations import ops

from contraflow.installed import Installed, InstalledPair
from contraflow.operations.base import Copying, Fragment, Refer, TableName, contradiction
from contraflow.operations.gathering import Plans, TablePlan
from contraflow.operations.syncing import MARKER
from contraflow.problems import Problem, ProblemError
from contraflow.references import InstallReference, Reference
from contraflow.steps import AddColumns, Block, Hold, InstallSync, RelaxNotNull, Step
from contraflow.syncs import Sync

__all__ = [
    "add_marker",
    "expand_references",
    "installed_references",
    "refer",
    "references_of",
    "referring",
]


def refer(fragment: Fragment, plans: Plans) -> None:
    """Note what a fragment's rows refer to."""
    if fragment.refer is not None:
        plans.refers.append((fragment.refer, plans.current[fragment.table], plans.current[fragment.refer.to]))


def references_of(plans: Plans) -> list[Reference]:
    """What follows when rows change that others refer to. Raises :class:`~contraflow.problems.ProblemError`."""
    problems = [problem for wish, source, target in plans.refers for problem in _plan_problems(wish, source, target)]
    ProblemError.raise_any([*problems, *_meetings(plans)])
    return [_reference(wish, source, target) for wish, source, target in plans.refers if wish.follows]


def _meetings(plans: Plans) -> Iterator[Problem]:
    """Tables that something else links to others in the same upgrade, or that refer to each other, or that go."""
    pairs = {(source.name, target.name) for _, source, target in plans.refers}
    moved = {plan.name for _, *both in (*plans.moves, *plans.parts) for plan in both}
    copied = {place for copying, target in plans.copies for place in (target.name, *_places(copying))}
    gone = {plan.name for plan in plans.removed}
    for _, source, target in plans.refers:
        table, to = source.name[1], target.name[1]
        if (target.name, source.name) in pairs and source is not target:
            yield contradiction(
                f"{table} and {to} refer to each other.",
                "triggers of one table write the other one, whose triggers would write the first one again.",
                "let one of them refer in an upgrade of its own.",
            )
        for name in (source.name, target.name):
            if name in moved | copied:
                yield contradiction(
                    f"what {name[1]} holds moves or is copied in the upgrade in which {table} comes to refer to {to}.",
                    "the triggers of the two would fire each other's.",
                    "do one of the two in an upgrade of its own.",
                )
            if name in gone:
                yield contradiction(
                    f"{name[1]} is dropped in the upgrade in which {table} comes to refer to {to}.",
                    "nothing would be left to refer to, or by.",
                    "leave out one of the two.",
                )


def _places(copying: Copying) -> Iterator[TableName]:
    return ((way.schema, way.table) for source in copying.sources for way in source.ways)


def referring(plans: Plans) -> frozenset[TableName]:
    """The tables whose columns must stand before the triggers of another one that write them."""
    return frozenset(source.name for wish, source, _ in plans.refers if wish.follows)


def _plan_problems(wish: Refer, source: TablePlan, target: TablePlan) -> Iterator[Problem]:
    table, to = source.name[1], target.name[1]
    for plan in (source, target):
        if plan.renamed:
            yield contradiction(
                f"{plan.name[1]} is renamed in the upgrade in which {table} comes to refer to {to}.",
                "triggers of one table write the other one, by its name.",
                "rename it in an upgrade of its own.",
            )
    if source is target and not wish.fills:
        yield contradiction(
            f"{table} refers to itself.",
            "its triggers would have to write the table that fires them, which MySQL and MariaDB refuse.",
            "refer to another table.",
        )
    lost = [name for name in wish.columns if source.created or name not in source.original]
    if lost or wish.column not in source.columns:
        yield contradiction(
            f"{table}.{[*lost, wish.column][0]} changes in the upgrade in which {table} comes to refer to {to}.",
            "triggers on the other table write the columns of both releases, by their names.",
            "change it in an upgrade of its own.",
        )
    if wish.fills:
        yield from _fills_problems(wish, source, target)
        return
    needed = (wish.key, *wish.columns.values(), *wish.where)
    if gone := [
        name
        for name in needed
        if name not in target.columns or (not target.created and name not in target.original) or name in target.widened
    ]:
        yield contradiction(
            f"{to}.{gone[0]} changes in the upgrade in which {table} comes to refer to {to} by it.",
            "both releases look it up.",
            "change it in an upgrade of its own.",
        )
    unique = [frozenset(holder.columns) for holder in target.holders if holder.unique]
    natural = frozenset({*wish.columns.values(), *wish.where})
    if natural not in unique:
        yield contradiction(
            f"{to} has no unique key of exactly {', '.join(sorted(natural))}.",
            f"which of its rows a row of {table} refers to would be open.",
            "put a unique constraint on these columns (AddUnique), in an upgrade before.",
        )
    if frozenset({wish.key}) not in unique:
        yield contradiction(
            f"{to}.{wish.key} is not unique.",
            f"which row a row of {table} refers to would be open.",
            "refer to its primary key, or put a unique constraint on it (AddUnique), in an upgrade before.",
        )
    if wish.creates:
        yield from _not_made(wish, source, target)
    if wish.follows and not wish.scans:
        yield from _scans(wish, source, to)


def _fills_problems(wish: Refer, source: TablePlan, target: TablePlan) -> Iterator[Problem]:
    """What keeps rows from following a key that takes the place of the one by which they refer now."""
    table, to = source.name[1], target.name[1]
    if source is target and (required := [name for name in wish.columns if not source.original[name].nullable]):
        yield contradiction(
            f"{table}.{required[0]} refers to {table} itself, whose key is replaced, and is NOT NULL.",
            "a row of the new release that refers to itself has no number yet when that is looked up.",
            "make it nullable in an upgrade before (LoosenNotNull).",
        )
    for name in wish.columns.values():
        if name not in target.original or name in target.widened:
            yield contradiction(
                f"{to}.{name} changes in the upgrade in which it is replaced.",
                "both releases look it up.",
                "change it in an upgrade of its own.",
            )
    if not wish.scans:
        yield from _scans(wish, source, to)


def _scans(wish: Refer, source: TablePlan, to: str) -> Iterator[Problem]:
    """Without indexes, rows that refer are looked for in the whole table."""
    table = source.name[1]
    standing = [holder.columns for holder in source.holders if holder.unique or holder.index is not None]
    built = [index.columns for index in source.build]
    needed = [] if wish.fills else [([wish.column], built, "changes", "the change")]
    if wish.fills:
        needed.append((list(wish.columns), standing, "gets its new key", "an upgrade before"))
    elif not wish.creates:
        needed.append((list(wish.columns), standing, "comes", "an upgrade before"))
    for names, indexes, event, where in needed:
        if not any(columns and columns[0] in names for columns in indexes):
            listed = ", ".join(f'"{name}"' for name in names)
            yield contradiction(
                f"no index begins with {table}.{names[0]}.",
                f"all of {table} would be read when a row of {to} {event}.",
                f'add CreateIndex(table="{table}", name=..., columns=[{listed}]) in {where}; or, for a small'
                " table,\naccept it: scans=True.",
            )


def _not_made(wish: Refer, source: TablePlan, target: TablePlan) -> Iterator[Problem]:
    """What keeps the sync from making rows of the other table."""
    to = target.name[1]
    given = {*wish.columns.values(), *wish.where, *wish.given}
    for name, column in target.columns.items():
        generated = column.identity is not None or column.computed is not None or column.server_default is not None
        if name in given or column.nullable or generated or column is target.table.autoincrement_column:
            continue
        yield contradiction(
            f"{to}.{name} is NOT NULL without a default.",
            f"a row that is made for one of {source.name[1]} has no value for it.",
            f'say what it gets: values={{"{name}": ...}}.',
        )
    natural = {*wish.columns.values(), *wish.where}
    for holder in target.holders:
        columns = set(holder.columns)
        if holder.unique and columns != natural and columns <= given and holder.kind != "primary key":
            yield Problem(
                code="CF109",
                what=f"{to} has {holder.title}, too.",
                why="a row that is made could be like another one there: a write of the old release would be refused.",
                instead=f"drop {holder.title} in an upgrade before, or let it be what rows are told by.",
            )


def _reference(wish: Refer, source: TablePlan, target: TablePlan) -> Reference:
    schema, table = source.name
    meaning = [schema, table, wish.column, target.name[1]]
    digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:8]
    to = target.name[1]
    known = {**target.original, **target.columns}
    return Reference(
        table=table,
        schema=schema,
        column=wish.column,
        columns=tuple(wish.columns.items()),
        nulls=wish.nulls,
        to=to,
        key=wish.key,
        types={name: known[name].type for name in (wish.key, *wish.columns.values())},
        adopts=not wish.creates,
        fills=wish.fills,
        clears=wish.clears,
        marker=MARKER,
        name=f"zcf_{to.encode()[:36].decode(errors='ignore')}_{digest}",
    )


def add_marker(found: TablePlan) -> AddColumns:
    """The new columns of a table that refers, with the marker of its sync: triggers of other tables will write it."""
    schema, table = found.name
    columns = (*found.added, sa.Column(MARKER, sa.SmallInteger()))
    return AddColumns(
        table=table,
        schema=schema,
        columns=tuple(ops.AddColumnOp(table, column, schema=schema) for column in columns),
    )


def expand_references(references: Sequence[Reference], syncs: Mapping[TableName, Sync]) -> Iterator[Block]:
    """The other tables' triggers before those by which rows refer by key: none of these changes past them."""
    for reference in references:
        install = InstallReference(reference=reference)
        yield Hold(
            title=f"let rows of {reference.table} follow {reference.to}",
            table=reference.to,
            schema=reference.schema,
            steps=(install,),
        )
    for name in dict.fromkeys((reference.schema, reference.table) for reference in references):
        schema, table = name
        sync = syncs[name]
        steps: list[Step] = []
        if sync.enforced:
            steps.append(RelaxNotNull(table=table, schema=schema, names=sync.enforced))
        steps.append(InstallSync(sync=sync, marked=True))
        yield Hold(title=f"let rows of {table} refer by key", table=table, schema=schema, steps=tuple(steps))


def installed_references(installed: Sequence[Installed], references: Sequence[Reference]) -> list[Installed]:
    """What is installed, with the references: their triggers stand on one table, and need columns of the other one."""

    def of(item: Installed) -> Iterator[InstalledPair]:
        for reference in references:
            if (item.schema, item.table) == (reference.schema, reference.to):
                yield InstalledPair(
                    name=reference.name,
                    marker="",
                    old=False,
                    fingerprint=reference.fingerprint,
                    triggers=reference.triggers,
                )
            elif (item.schema, item.table) == (reference.schema, reference.table):
                yield InstalledPair(name="", marker="", old=False, fingerprint=reference.fingerprint)

    return [replace(item, pairs=(*item.pairs, *of(item))) for item in installed]
