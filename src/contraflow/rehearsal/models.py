"""From what an upgrade plans to the model of each table: which ones the workload writes, and what it expects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from contraflow.copies import BackfillCopy
from contraflow.expressions import Expression, Ref, validate
from contraflow.lens import Row
from contraflow.operations.attributes import ChangeDefault
from contraflow.operations.base import TableName
from contraflow.operations.columns import AddColumn, ChangeType, DropColumn, RenameColumn, TransformColumns
from contraflow.operations.comments import ChangeComment
from contraflow.operations.constraints import (
    AddCheck,
    AddExclusion,
    AddForeignKey,
    DropCheck,
    DropExclusion,
    DropForeignKey,
)
from contraflow.operations.copying import CopyColumn
from contraflow.operations.enums import AddEnumValues
from contraflow.operations.indexes import AddUnique, CreateIndex, DropIndex, DropUnique
from contraflow.operations.keys import AddPrimaryKey, AddSurrogateKey, DropPrimaryKey
from contraflow.operations.moves import MoveColumns
from contraflow.operations.nullability import LoosenNotNull, TightenNotNull
from contraflow.operations.opaque import OpaqueColumns
from contraflow.operations.parts import CopyTable, MergeTables, SplitTable
from contraflow.operations.planning import Upgrade, tables_of
from contraflow.operations.references import AddCompanion, ReferColumns
from contraflow.operations.replacing import ReplaceKey
from contraflow.operations.tables import CreateTable, DropTable, RenameTable
from contraflow.operations.widening import WidenColumn
from contraflow.rehearsal.companions import Companion, CompanionOracle
from contraflow.rehearsal.copies import CopyingOracle, Following
from contraflow.rehearsal.opaque import OpaqueOracle
from contraflow.rehearsal.oracle import TableOracle
from contraflow.rehearsal.pairs import PairOracle
from contraflow.rehearsal.parts import PartOracle, Parts
from contraflow.rehearsal.references import Reference, ReferringOracle
from contraflow.rehearsal.rekeying import Rekeyed, RekeyedOracle, agreed
from contraflow.rehearsal.relations import Relation
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.shapes import TableShape
from contraflow.steps import Backfill, BackfillPair, Block, Hold, Phases, Step
from contraflow.syncs import Pair, Sync

__all__ = ["Models", "models"]

Shapes = Mapping[TableName, TableShape]
_RELEASES: tuple[Side, Side] = ("old", "new")


@dataclass(frozen=True, kw_only=True)
class Models:
    """What the generated workload can write.

    :ivar tables: the model of each table, under the new release's name for it; companions after their main tables.
    :ivar pairs: the tables whose rows are kept in step.
    :ivar relations: what else makes rows of one table depend on those of another one.
    :ivar notes: for each table that is left out, a sentence that says why.
    :ivar unjudged: those among them that the upgrade changes: a verdict is not about them.
    """

    tables: Mapping[TableName, TableOracle]
    pairs: Sequence[PairOracle] = ()
    relations: Sequence[Relation] = ()
    notes: Sequence[str] = ()
    unjudged: Sequence[str] = ()


_MODELLED = (
    *(AddColumn, ChangeType, DropColumn, RenameColumn, TransformColumns, WidenColumn, ChangeDefault, AddEnumValues),
    ChangeComment,
    *(AddCheck, DropCheck, AddForeignKey, DropForeignKey, TightenNotNull, LoosenNotNull),
    *(AddUnique, DropUnique, CreateIndex, DropIndex),
    *(CreateTable, DropTable, RenameTable, MoveColumns, OpaqueColumns, ReferColumns, CopyColumn),
    *(CopyTable, SplitTable, MergeTables, AddCompanion, ReplaceKey),
    *(AddPrimaryKey, DropPrimaryKey, AddSurrogateKey, AddExclusion, DropExclusion),
)
"""The operations whose meaning for rows is known here. Tables that any other one names are left out, and said to be."""


def models(upgrade: Upgrade, phases: Phases, old: Shapes, new: Shapes, *, opaque: bool = True) -> Models:
    """The models of all tables.

    Rows that the old release may write and the new one may not have, by a constraint that the upgrade makes, keep every
    such upgrade from contracting. So the generated ones of the old release obey the new constraints, too.

    :param upgrade: what is declared.
    :param phases: what that does.
    :param old: the old release's tables.
    :param new: the new release's.
    :param opaque: whether the new release's nodes can load this library, for opaque lenses.
    """
    old, new = ({name: shape.written() for name, shape in shapes.items()} for shapes in (old, new))
    renamed = {(item.schema, item.table): (item.schema, item.renamed) for item in phases.installed if item.renamed}
    syncs = _syncs(phases)
    pairs = [pair for pair in _pairs(phases) if not pair.rows]
    made: dict[TableName, TableOracle] = {}
    notes: list[str] = []
    new = dict(new)
    before = {renamed.get(name, name): _known_as(shape, renamed) for name, shape in old.items()}
    obstacles = {**_unpaired(pairs, before, new), **_strange(upgrade, before.keys() | new.keys())}
    _agree(upgrade, before, new, obstacles)
    changed = set(tables_of(upgrade))
    unjudged: list[str] = []
    relations = list(_relations(_wishes(upgrade, phases, made), before, new, obstacles))
    for name in before.keys() | new.keys():
        for shapes_of, shape in _told_apart(name, before, new, syncs).items():
            (before if shapes_of == "old" else new)[name] = shape
    for name in sorted(before.keys() | new.keys(), key=str):
        shapes = [shape for shape in (before.get(name), new.get(name)) if shape is not None]
        known = {shape.physical or shape.name for shape in shapes}
        obstacle = obstacles.get(name) or next((shape.obstacle for shape in shapes if shape.obstacle), None)
        sync = next((syncs[each] for each in known if each in syncs), None)
        if sync is not None and sync.opaque is not None and not opaque:
            obstacle = "the new release computes columns of it in Python; a workload of its own can (--new-workload)"
        elif sync is not None and not sync.columns.keys() <= {name for shape in shapes for name in shape.columns}:
            obstacle = "a lens reads what the server computes"
        if obstacle is not None:
            notes.append(f"{shapes[0].title} is not written: {obstacle}")
            if changed & {name, *known} or name in obstacles:
                unjudged.append(shapes[0].title)
            continue
        earlier, later = before.get(name), new.get(name)
        if earlier is not None and later is not None:
            earlier, later = _obeying(earlier, later, sync), _still_obeying(later, earlier, sync, new.keys())
        conditions = [_condition(check) for check in _checks(upgrade) if {(check.schema, check.table)} & {name, *known}]
        made[name] = _model(
            name,
            old=earlier,
            new=later,
            sync=sync,
            conditions=conditions,
            relations=[one for one in relations if name in one.tables],
        )
    relations = list(_whole(relations, made, notes, unjudged))
    oracles = [PairOracle(pair, *_ends(pair), made) for pair in pairs if set(_ends(pair)) <= made.keys()]
    companions = {oracle.companion for oracle in oracles}
    tables = {name: made[name] for name in sorted(made, key=lambda name: (name in companions, str(name)))}
    return Models(tables=tables, pairs=oracles, relations=relations, notes=notes, unjudged=unjudged)


def _agree(
    upgrade: Upgrade,
    old: dict[TableName, TableShape],
    new: dict[TableName, TableShape],
    obstacles: dict[TableName, str],
) -> None:
    """Let both releases know the rows of a table by one key where it changes; an obstacle where they cannot.

    Where an operation replaces it, each has its own.
    """
    operations = [each for change in upgrade.changes for each in change.operations]
    replaced = {(each.schema, each.table) for each in operations if isinstance(each, ReplaceKey)}
    for name in old.keys() & new.keys() - replaced:
        if old[name].key != new[name].key:
            numbered = frozenset(
                each.column.name
                for each in operations
                if isinstance(each, AddSurrogateKey) and (each.schema, each.table) == name
            )
            told = agreed(old[name], new[name], numbered)
            if isinstance(told, str):
                obstacles.setdefault(name, told)
            else:
                old[name], new[name] = told


def _model(
    name: TableName,
    *,
    old: TableShape | None,
    new: TableShape | None,
    sync: Sync | None,
    conditions: Sequence[Expression],
    relations: Sequence[Relation],
) -> TableOracle:
    """The model of one table, among whose operations are these relations."""
    references = [one for one in relations if isinstance(one, Reference) and one.table == name]
    followings = [one for one in relations if isinstance(one, Following) and one.target == name]
    accompanied = [one for one in relations if isinstance(one, Companion) and one.table == name]
    if old is not None and new is not None:
        if sync is not None and sync.opaque is not None:
            return OpaqueOracle(old=old, new=new, lens=sync.opaque, conditions=conditions)
        if sync is not None and references:
            return ReferringOracle(old=old, new=new, sync=sync, references=references, conditions=conditions)
        if followings:
            return CopyingOracle(old=old, new=new, sync=sync, followings=followings, conditions=conditions)
        if sync is not None and accompanied:
            return CompanionOracle(old=old, new=new, sync=sync, companions=accompanied, conditions=conditions)
    parts = [one for one in relations if isinstance(one, Parts)]
    if parts:
        shape = next(shape for shape in (old, new) if shape is not None)
        more = [condition for one in parts for condition in one.side(name, shape)]
        return PartOracle(old=old, new=new, sync=sync, conditions=[*conditions, *more])
    if any(isinstance(one, Rekeyed) and one.table == name for one in relations):
        return RekeyedOracle(old=old, new=new, sync=sync, conditions=conditions)
    return TableOracle(old=old, new=new, sync=sync, conditions=conditions)


def _whole(
    relations: Sequence[Relation], made: dict[TableName, TableOracle], notes: list[str], unjudged: list[str]
) -> Iterator[Relation]:
    """The relations all of whose tables are modelled; of the others, no table is."""
    while broken := [one for one in relations if one.tables & made.keys() and not one.tables <= made.keys()]:
        for name in sorted(broken[0].tables & made.keys(), key=str):
            title = next(made[name].shape(each) for each in _RELEASES if made[name].knows(each)).title
            notes.append(f"{title} is not written: what it holds depends on another table that is not")
            unjudged.append(title)
            del made[name]
    yield from (one for one in relations if one.tables <= made.keys())


def _wishes(upgrade: Upgrade, phases: Phases, made: Mapping[TableName, TableOracle]) -> Iterator[Relation]:
    """What makes rows of several tables depend on each other."""
    for operation in (each for change in upgrade.changes for each in change.operations):
        if isinstance(operation, ReferColumns):
            yield Reference.declared(operation)
        elif isinstance(operation, ReplaceKey):
            rekeyed = Rekeyed(operation)
            yield from (rekeyed, *rekeyed.references)
        elif isinstance(operation, AddCompanion):
            yield Companion(operation)
    copied = {step.copy.fingerprint: step.copy for _, step in _steps(phases) if isinstance(step, BackfillCopy)}
    yield from map(Following, copied.values())
    wholes: dict[TableName, list[Pair]] = {}
    for pair in _pairs(phases):
        if pair.rows:
            wholes.setdefault(_ends(pair)[0], []).append(pair)
    yield from (Parts(pairs, made) for pairs in wholes.values())


def _relations(
    found: Iterable[Relation],
    old: dict[TableName, TableShape],
    new: dict[TableName, TableShape],
    obstacles: dict[TableName, str],
) -> Iterator[Relation]:
    """Those that can be foretold, once the shapes let the workload make such rows.

    Where that cannot be foretold, all of these tables get an obstacle.
    """
    bound: dict[TableName, type[Relation]] = {}
    for relation in found:
        tables = sorted(relation.tables, key=str)
        reason = next((obstacles[name] for name in tables if name in obstacles), None)
        shapes = [shapes[name] for name in tables for shapes in (old, new) if name in shapes]
        for shape in shapes:
            if reason is None and (shape.obstacle or not shape.key):
                reason = f"{shape.title}: {shape.obstacle or 'it has no primary key'}"
        if any(bound.setdefault(name, type(relation)) is not type(relation) for name in relation.bound):
            reason = "several operations make its rows depend on those of other tables"
        if reason is None:
            reason = relation.obstacle(old, new)
        if reason is None:
            relation.link(old, new)
            yield relation
        else:
            obstacles.update(dict.fromkeys(tables, reason))


def _told_apart(name: TableName, old: Shapes, new: Shapes, syncs: Mapping[TableName, Sync]) -> dict[Side, TableShape]:
    """A table without a primary key, in each release's shape, with a column that can stand for one; empty without."""
    shapes: dict[Side, TableShape] = {}
    if name in old:
        shapes["old"] = old[name]
    if name in new:
        shapes["new"] = new[name]
    if any(shape.key for shape in shapes.values()):
        return {}
    synced = {
        column
        for shape in shapes.values()
        if (sync := syncs.get(shape.physical or shape.name)) is not None
        for column in sync.columns
    }
    first = next(iter(shapes.values()))
    for column in first.columns:
        everywhere = all(column in shape.columns and shape.may_tell_apart(column) for shape in shapes.values())
        if everywhere and column not in synced:
            return {release: shape.told_apart_by(column) for release, shape in shapes.items()}
    return {}


def _strange(upgrade: Upgrade, names: Iterable[TableName]) -> dict[TableName, str]:
    """The tables that an operation names which has no model here, and why they are left out."""
    found: dict[TableName, str] = {}
    for operation in (each for change in upgrade.changes for each in change.operations):
        if not isinstance(operation, _MODELLED):
            words = set(_words(operation.describe()))
            said = f"what {type(operation).__name__} makes of its rows is not modelled"
            found.update({name: said for name in names if name[1] in words})
    return found


def _words(value: object) -> Iterator[str]:
    """Every text in a description."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from (*_words(name), *_words(each))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _words(each)


def _unpaired(pairs: Sequence[Pair], old: Shapes, new: Shapes) -> dict[TableName, str]:
    """The tables of pairs whose rows the workload cannot follow from one table to the other, and why."""
    found: dict[TableName, str] = {}
    ends = [name for pair in pairs for name in _ends(pair)]
    for pair in pairs:
        obstacle = None
        for end, name in zip((pair.main, pair.companion), _ends(pair), strict=True):
            shapes = [shapes[name] for shapes in (old, new) if name in shapes]
            if ends.count(name) > 1:
                obstacle = "columns of it move from or to several tables"
            elif any(set(shape.key) != {column.name for column in end.key} for shape in shapes):
                obstacle = "its row in the other table is found by other columns than its primary key"
            else:
                obstacle = next((shape.obstacle for shape in shapes if shape.obstacle), None)
            if obstacle is not None:
                title = shapes[0].title
                found.update(
                    dict.fromkeys(_ends(pair), f"columns move between it and another table, and {title}: {obstacle}")
                )
                break
    return found


def _ends(pair: Pair) -> tuple[TableName, TableName]:
    return (pair.main.schema, pair.main.table), (pair.companion.schema, pair.companion.table)


def _known_as(shape: TableShape, renamed: Mapping[TableName, TableName]) -> TableShape:
    """An old release's table, and those that it refers to, under the new release's names."""
    links = tuple(replace(link, table=renamed.get(link.table, link.table)) for link in shape.links)
    return replace(shape, name=renamed.get(shape.name, shape.name), physical=shape.name, links=links)


def _obeying(old: TableShape, new: TableShape, sync: Sync | None) -> TableShape:
    """The old release's table with the new one's constraints on columns that both have, under whichever names."""
    former = {name: name for name in new.columns if name in old.columns}
    for group in sync.groups if sync else ():
        for name, image in group.forward.items():
            if isinstance(image, Ref) and image.name in old.columns:
                former[name] = image.name
    for name, column in new.columns.items():
        if name in old.columns and not column.nullable:
            old.columns[name].nullable = False
    return _held_too(old, new, former)


def _still_obeying(new: TableShape, old: TableShape, sync: Sync | None, tables: Collection[TableName]) -> TableShape:
    """The new release's table with what the old one's says of columns that both have: it stands until contract.

    :param tables: those that the new release has, to which rows may refer.
    """
    later = {name: name for name in old.columns if name in new.columns}
    for group in sync.groups if sync else ():
        for name, image in group.forward.items():
            if isinstance(image, Ref) and name in new.columns:
                later[image.name] = name
    return _held_too(new, replace(old, links=tuple(link for link in old.links if link.table in tables)), later)


def _held_too(shape: TableShape, other: TableShape, names: Mapping[str, str]) -> TableShape:
    """The table with the unique sets and the references of another one, whose columns it has under these names."""
    unique = {tuple(names.get(name, "") for name in columns) for columns in other.unique}
    links = [
        replace(link, columns=tuple(names[name] for name in link.columns))
        for link in other.links
        if all(name in names for name in link.columns)
    ]
    linked = {link.columns for link in shape.links}
    return replace(
        shape,
        unique=(*shape.unique, *sorted(one for one in unique - {*shape.unique, shape.key} if "" not in one)),
        links=(*shape.links, *(link for link in links if link.columns not in linked)),
    )


def _checks(upgrade: Upgrade) -> Iterator[AddCheck]:
    for change in upgrade.changes:
        yield from (operation for operation in change.operations if isinstance(operation, AddCheck))


def _condition(check: AddCheck) -> Expression:
    return validate(check.condition(Row({name: Ref(name) for name in check.columns})))


def _steps(phases: Phases) -> Iterator[tuple[Block, Step]]:
    for blocks in (phases.expand, phases.migrate, phases.verify, phases.contract):
        for block in blocks:
            for step in block.steps if isinstance(block, Hold) else (block.step,):
                yield block, step


def _syncs(phases: Phases) -> dict[TableName, Sync]:
    steps = (step for _, step in _steps(phases) if isinstance(step, Backfill))
    return {(step.sync.schema, step.sync.table): step.sync for step in steps}


def _pairs(phases: Phases) -> Iterator[Pair]:
    """The pairs of tables whose rows are kept in step."""
    found = {step.pair.fingerprint: step.pair for _, step in _steps(phases) if isinstance(step, BackfillPair)}
    yield from found.values()
