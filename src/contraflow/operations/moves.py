"""Columns that move from one table to another: the operation, and the pair of tables that it comes to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa
from alembic.operations import ops

from contraflow.expressions import Ref, children
from contraflow.installed import Installed, InstalledPair
from contraflow.lens import Group, Lens, Row
from contraflow.operations.base import (
    Fragment,
    Move,
    Schema,
    TableName,
    constant_default,
    default_text,
    find_column,
    find_table,
    incomplete,
    referred,
)
from contraflow.operations.gathering import Plans, TablePlan
from contraflow.problems import Problem, ProblemError
from contraflow.steps import AddColumns, BackfillPair, Block, Hold, InstallPair, Online, ProbePair, RemovePair
from contraflow.syncs import Pair, PairTable, Sync, SyncColumn

__all__ = ["PAIR_MARKER", "MoveColumns", "Moved", "installed_pairs", "move", "pairs_of", "plan_pairs_end"]

PAIR_MARKER = "cf_pair"
"""The name of the marker column of the tables of a pair."""


@dataclass(frozen=True, kw_only=True)
class MoveColumns:
    """Move columns to the row of another table that belongs to the same thing.

    ``on`` says which rows belong together: columns of ``table`` to those of ``to``. On one side they are the key, on
    the other side they are unique and a foreign key to it: that table is the companion, with at most one row for each
    row of the other one, the main table. Only one of the releases may know the companion table: ``to``, which a
    ``CreateTable`` before it in the same upgrade creates (the table is split in two); or ``table``, which a
    ``DropTable`` after it drops (the two become one).

    ``columns`` are the names of the columns; a mapping gives them new ones. A companion row whose columns are all NULL
    and one that is not there mean the same. Where the old release's column may not be NULL, ``missing`` says what it
    holds while the new release has nothing there; a constant server default is that by itself. ``to`` gets the columns
    with their types, nullable, unless it declares them.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if the declaration contradicts itself.
    """

    table: str
    to: str
    on: Mapping[str, str]
    columns: Sequence[str] | Mapping[str, str]
    missing: Mapping[str, Any] = field(default_factory=dict)
    schema: str | None = None

    def __post_init__(self) -> None:
        columns = self.columns
        named = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
        object.__setattr__(self, "columns", named)
        object.__setattr__(self, "on", dict(self.on))
        object.__setattr__(self, "missing", dict(self.missing))
        if not named or not self.on:
            raise incomplete(f"MoveColumns of {self.table} needs columns= and on=.", "name at least one column each.")
        if both := set(named) & set(self.on):
            raise incomplete(
                f"{self.table}.{min(both)} is to move, and tells which rows belong together.",
                "leave it out of columns=.",
            )
        if strangers := set(self.missing) - {*named, *named.values()}:
            raise incomplete(
                f"missing= names {', '.join(sorted(strangers))}, which does not move.", "name moved columns only."
            )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table, to = (self.schema, self.table), (self.schema, self.to)
        columns = dict(self.columns)  # type: ignore[arg-type]  # a mapping by now
        for name in (*columns, *self.on):
            find_column(schema, table, name)
        find_table(schema, to)
        for name in self.on.values():
            find_column(schema, to, name)
        move = Move(to=to, on=self.on, columns=columns, missing=self.missing)
        return Fragment(table=table, drop=tuple(columns), move=move)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "MoveColumns",
            "table": [self.schema, self.table],
            "to": self.to,
            "on": dict(self.on),
            "columns": dict(self.columns),  # type: ignore[arg-type]
            "missing": {name: repr(value) for name, value in sorted(self.missing.items())},
        }


# --- for planning -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a move comes to."""

    pair: Pair
    lens: Sync
    """The pair as a lens of its old table, for the checks of values."""

    def expand(self) -> Iterator[Block]:
        """Markers before the triggers that write them; nobody writes the new columns before the old table's stand."""
        pair = self.pair
        new: Literal["main", "companion"] = "companion" if pair.old == "main" else "main"
        old, made = pair.old_table, pair.new_table
        column = sa.Column(pair.marker, sa.SmallInteger())

        def hold(title: str, end: PairTable, *steps: AddColumns | InstallPair) -> Hold:
            return Hold(title=title, table=end.table, schema=end.schema, steps=steps)

        def marked(end: PairTable) -> AddColumns:
            added = ops.AddColumnOp(end.table, column._copy(), schema=end.schema)  # noqa: SLF001 - of one table only
            return AddColumns(table=end.table, schema=end.schema, columns=(added,))

        yield hold(f"mark rows of {old.table}", old, marked(old))
        yield hold(f"let {made.table} be followed by {old.table}", made, marked(made), InstallPair(pair=pair, on=new))
        yield hold(f"let {old.table} be followed by {made.table}", old, InstallPair(pair=pair, on=pair.old))

    def migrate(self) -> Block:
        """The block that fills the new table."""
        end = self.pair.old_table
        step = BackfillPair(pair=self.pair, lens=self.lens)
        title = f"move columns of {end.table} to {self.pair.new_table.table}"
        return Online(title=title, table=end.table, schema=end.schema, step=step)

    def verify(self) -> Block:
        """The block that compares the two tables."""
        end = self.pair.old_table
        title = f"compare {end.table} with {self.pair.new_table.table}"
        return Online(title=title, table=end.table, schema=end.schema, step=ProbePair(pair=self.pair))


def move(fragment: Fragment, plans: Plans) -> None:
    """Note a fragment's move, and let the other table have the columns."""
    moving = fragment.move
    if moving is None:
        return
    source, target = plans.current[fragment.table], plans.current[moving.to]
    for name, new in moving.columns.items():
        if source.created or name not in source.original:
            raise incomplete(
                f"{source.name[1]}.{name} is new, and moves to {target.name[1]}.",
                f"let {target.name[1]} have it from the start, or move it in an upgrade of its own.",
            )
        if target.created and new not in target.columns:
            raise incomplete(f"the new table {target.name[1]} has no column {new}.", "declare it there, with its type.")
        if target.created:
            continue
        if new.lower() in {name.lower() for name in (*target.columns, *target.original)}:
            raise ProblemError(
                Problem(
                    code="CF112",
                    what=f"table {target.name[1]} has a column {new} already.",
                    why="both releases see one physical column: a changed meaning needs a new name.",
                    instead=f'give the column another name there: columns={{"{name}": ...}}.',
                )
            )
        column = source.original[name]
        target.columns[new] = sa.Column(new, column.type, nullable=True, comment=column.comment)
    ProblemError.raise_any(_repeated(moving, source))
    source.lenses += _fillers(moving, source)
    plans.moves.append((moving, source, target))


def pairs_of(plans: Plans) -> list[Moved]:
    """What the moves come to. Raises :class:`~contraflow.problems.ProblemError` with all that stands in their way."""
    problems: list[Problem] = []
    found: list[Moved] = []
    lone = [*(plan.name for plan in plans.current.values() if plan.created), *(plan.name for plan in plans.removed)]
    tables: set[frozenset[TableName]] = set()
    for moving, source, target in plans.moves:
        try:
            names = frozenset({source.name, target.name})
            if names in tables:
                raise incomplete(
                    f"columns move between {source.name[1]} and {target.name[1]} twice.",
                    "name all of them in one move.",
                )
            tables.add(names)
            found.append(_pair(moving, source, target, lone))
        except ProblemError as error:
            problems.extend(error.problems)
    ProblemError.raise_any(problems)
    return found


def installed_pairs(installed: Sequence[Installed], moved: Sequence[Moved]) -> list[Installed]:
    """What is installed, with the pairs."""
    ends = [(end, found.pair) for found in moved for end in (found.pair.main, found.pair.companion)]

    def of(item: Installed) -> tuple[InstalledPair, ...]:
        return tuple(
            InstalledPair(
                name=end.name,
                marker=pair.marker,
                old=end is pair.old_table,
                fingerprint=pair.fingerprint,
                triggers=pair.triggers(end),
            )
            for end, pair in ends
            if (end.schema, end.table) == (item.schema, item.table)
        )

    return [replace(item, pairs=of(item)) for item in installed]


def plan_pairs_end(installed: Sequence[Installed]) -> list[Block]:
    """The blocks that remove the pairs' triggers, for contract and rollback alike: before any column goes.

    The old tables' first: the release that writes there is gone, or about to be the only one.
    """
    return [
        Hold(
            title=f"stop following {found.table}",
            table=found.table,
            schema=found.schema,
            steps=(RemovePair(table=found.table, schema=found.schema, name=pair.name),),
        )
        for old in (True, False)
        for found in installed
        for pair in found.pairs
        if pair.old is old and pair.name
    ]


def _pair(move: Move, source: TablePlan, target: TablePlan, lone: Sequence[TableName]) -> Moved:
    for plan in (source, target):
        if plan.renamed or PAIR_MARKER in plan.original:
            raise _not_movable(plan)
    if gone := [new for new in move.columns.values() if new not in target.columns]:
        raise incomplete(f"{target.name[1]}.{gone[0]} is dropped again.", "leave it out of the move.")
    columns = {new: target.columns[new] for new in move.columns.values()}
    old = _main(move, source, target, lone)
    main, companion = (source, target) if old == "main" else (target, source)
    # From the main table's names to the companion's.
    across = move.columns if old == "main" else {new: name for name, new in move.columns.items()}
    links = move.on if old == "main" else {there: here for here, there in move.on.items()}
    held = {name: source.table.columns[name] for name in move.columns} if old == "main" else dict(columns)
    kept = dict(columns) if old == "main" else {name: source.table.columns[name] for name in move.columns}
    missing = {name: _given(move, column, name) if old == "main" else None for name, column in held.items()}
    problems = [
        *_key_problems(main, companion, links),
        *(_default_problems(main, held, missing) if old == "main" else ()),
        *_companion_problems(companion, links, kept, created=old == "main"),
        *_unique_problems(main, companion, across, links),
    ]
    ProblemError.raise_any(problems)
    back = {there: here for here, there in across.items()}
    names = {**{new: name for name, new in move.columns.items()}, **{name: name for name in move.columns}}

    def to_main(name: str, ref: Ref) -> sa.ColumnElement[Any]:
        return ref if missing[name] is None else sa.func.coalesce(ref, missing[name])

    def to_companion(name: str, ref: Ref) -> sa.ColumnElement[Any]:
        value = None if kept[name].nullable or not held[back[name]].nullable else _given(move, kept[name], names[name])
        return ref if value is None else sa.func.coalesce(ref, value)

    pair = Pair(
        main=_end(main, list(links), held, move, source),
        companion=_end(companion, list(links.values()), kept, move, source),
        old=old,
        to_companion={there: to_companion(there, Ref(here, held[here].type)) for there, here in back.items()},
        to_main={here: to_main(here, Ref(there, kept[there].type)) for here, there in across.items()},
        follows=True,
        marker=PAIR_MARKER,
        cascades=tuple(_cascades(main, companion, links, set(held), set(kept))),
    )
    return Moved(pair=pair, lens=_lens(pair, move))


def _fillers(move: Move, source: TablePlan) -> Iterator[tuple[Lens, frozenset[str]]]:
    """Lenses that give the new release's rows of the old table what its NOT NULL columns hold without a companion."""
    for name in move.columns:
        column, value = source.original[name], move.missing.get(name)
        if not column.nullable and default_text(column) is None and value is not None:
            yield Lens(old=[name], new=[], backward=_constant(name, value)), frozenset({name})


def _repeated(move: Move, source: TablePlan) -> Iterator[Problem]:
    """What several rows without a companion would hold, where no two rows may be alike."""
    for name in move.columns:
        for holder in source.holders:
            if move.missing.get(name) is not None and holder.unique and name in holder.columns:
                yield Problem(
                    code="CF109",
                    what=f"{source.name[1]}.{name} would hold {move.missing[name]!r} in all rows without a companion,"
                    f" and {holder.title} stands on it.",
                    why="the new release, which inserts the row before its companion, would be refused.",
                    instead=f"make {name} nullable, or drop {holder.title}, in an upgrade of its own, first.",
                )


def _constant(name: str, value: Any) -> Callable[[Row], Mapping[str, Any]]:
    return lambda _row: {name: value}


def _not_movable(plan: TablePlan) -> ProblemError:
    if plan.renamed:
        return incomplete(
            f"{plan.name[1]} is renamed in the upgrade in which its columns move.",
            "rename it in an upgrade of its own.",
        )
    return ProblemError(
        Problem(
            code="CF112",
            what=f"table {plan.name[1]} has a column {PAIR_MARKER} already.",
            why="Contraflow keeps there which rows were synced; it may be left from another upgrade.",
            instead="contraflow status; drop the column if no upgrade is open.",
        )
    )


def _main(move: Move, source: TablePlan, target: TablePlan, lone: Sequence[TableName]) -> Literal["main", "companion"]:
    """In which of the two tables the old release has the columns."""
    down = _refers(target.table, {there: here for here, there in move.on.items()}, source.name)
    up = _refers(source.table, move.on, target.name)
    if down == up:
        pairs = ", ".join(f"{source.name[1]}.{here} = {target.name[1]}.{there}" for here, there in move.on.items())
        raise incomplete(
            f"{'both' if up else 'no'} foreign keys tie the rows together ({pairs}).",
            f"let one of the two, {target.name[1]} or {source.name[1]}, refer to the other by exactly these columns.",
        )
    companion = target if down else source
    if companion.name not in lone:
        raise ProblemError(
            Problem(
                code="CF116",
                what=f"both releases know {companion.name[1]}.",
                why="which rows it has would be for both to say: one inserts and deletes them with the moved columns in"
                " mind, the other without.",
                instead=f"split {source.name[1]} into a new table (CreateTable before MoveColumns), or let"
                f" {companion.name[1]} go (DropTable after it);\nif both stay, let those of {target.name[1]} follow"
                " (CopyColumn) and the new release write both places,\nand drop those of"
                f" {source.name[1]} in the next upgrade (DropColumn).",
            )
        )
    return "main" if down else "companion"


def _refers(table: sa.Table, on: Mapping[str, str], other: TableName) -> bool:
    """Whether a foreign key of the table says: ``on``, to the other table."""
    return any(_links(key, on, other) for key in table.foreign_key_constraints)


def _links(key: sa.ForeignKeyConstraint, on: Mapping[str, str], other: TableName) -> bool:
    place, there = referred(key)
    return place == other and dict(zip(key.column_keys, there, strict=True)) == dict(on)


def _cascades(
    main: TablePlan, companion: TablePlan, links: Mapping[str, str], held: set[str], kept: set[str]
) -> Iterator[str]:
    """Foreign keys whose cascades change rows of one table so that the other one must hear of it, in words."""
    up = {there: here for here, there in links.items()}
    tie = next(key for key in companion.table.foreign_key_constraints if _links(key, up, main.name))
    for plan, columns, keyed in ((main, held, set(links)), (companion, kept, set(up))):
        for key in plan.table.foreign_key_constraints:
            deleted, updated = (str(rule or "").upper() for rule in (key.ondelete, key.onupdate))
            touched = set(key.column_keys)
            heard = key is tie or (plan is main and str(tie.ondelete or "").upper() == "CASCADE")
            if deleted == "CASCADE" and not heard:
                yield f"{_title(key)} of {plan.name[1]} (ON DELETE CASCADE)"
            if deleted.startswith("SET") and touched & columns:
                yield f"{_title(key)} of {plan.name[1]} (ON DELETE {deleted})"
            followed = plan is main and str(tie.onupdate or "").upper() == "CASCADE" and not touched & columns
            passive = updated in ("", "NO ACTION", "RESTRICT") or key is tie or followed
            if not passive and touched & (columns | keyed):
                yield f"{_title(key)} of {plan.name[1]} (ON UPDATE {updated})"


def _title(key: sa.ForeignKeyConstraint) -> str:
    return f"the foreign key {key.name or ', '.join(key.column_keys)}"


def _given(move: Move, column: sa.Column[Any], name: str) -> Any:
    """What the column, which the old release calls ``name``, holds where the other table says nothing."""
    if name in move.missing:
        return move.missing[name]
    constant, value = constant_default(column)
    return value if constant and not column.nullable else None


def _unique(plan: TablePlan) -> list[frozenset[str]]:
    """The sets of columns in which no two rows are alike."""
    return [frozenset(holder.columns) for holder in plan.holders if holder.unique]


def _key_problems(main: TablePlan, companion: TablePlan, links: Mapping[str, str]) -> Iterator[Problem]:
    for end, names in ((main, links.keys()), (companion, links.values())):
        if not any(unique <= set(names) for unique in _unique(end)):
            yield Problem(
                code="CF116",
                what=f"{end.name[1]} may have several rows with the same {', '.join(names)}.",
                why="which of them the moved columns belong to would be open.",
                instead="let these columns be its primary key, or put a unique constraint on them, first.",
            )
        if nullable := [name for name in names if end.table.columns[name].nullable]:
            yield Problem(
                code="CF116",
                what=f"{end.name[1]}.{nullable[0]} may be NULL.",
                why="such a row would belong to none of the other table.",
                instead="make it NOT NULL, in an upgrade of its own, first.",
            )


def _default_problems(
    main: TablePlan, held: Mapping[str, sa.Column[Any]], missing: Mapping[str, Any]
) -> Iterator[Problem]:
    """A row that the new release inserts into the main table must look like one without a companion row."""
    for name, column in held.items():
        constant, value = constant_default(column)
        title = f"{main.name[1]}.{name}"
        if default_text(column) is None:
            if missing[name] is None and not column.nullable:
                yield Problem(
                    code="CF116",
                    what=f"{title} is NOT NULL without a default.",
                    why="the new release, which does not know it, inserts the row before the one it moves to.",
                    instead=f'say what it holds until then: missing={{"{name}": ...}}.',
                )
        elif not constant or value != missing[name]:
            yield Problem(
                code="CF106",
                what=f"an INSERT into {main.name[1]} that leaves {name} at its default is undecidable.",
                why="the values do not tell whether the old release means the default, or the new one no such value.",
                instead=f'say that they are the same, where they are: missing={{"{name}": {value!r}}};'
                if constant
                else f"drop the default of {title} in an upgrade of its own, first.",
            )


def _companion_problems(
    companion: TablePlan, links: Mapping[str, str], kept: Mapping[str, sa.Column[Any]], *, created: bool
) -> Iterator[Problem]:
    """What keeps the sync from inserting a companion row."""
    generated = companion.table.autoincrement_column
    for column in companion.table.columns:
        if column.name in kept or column.name in links.values() or column is generated:
            continue
        given = column.server_default is not None or column.identity is not None or column.computed is not None
        if not column.nullable and not given:
            yield Problem(
                code="CF116",
                what=f"{companion.name[1]}.{column.name} is NOT NULL without a default, and does not move.",
                why=f"a row that the {'old' if created else 'new'} release writes has no value for it.",
                instead="give it a server default, make it nullable, or move it too.",
            )
    for name, column in kept.items():
        if column.computed is not None or column.identity is not None:
            yield Problem(
                code="CF110",
                what=f"{companion.name[1]}.{name} is generated by the server.",
                why="the sync could not write it.",
                instead="declare a plain column; turn it into a generated one in a later revision.",
            )


def _unique_problems(
    main: TablePlan, companion: TablePlan, across: Mapping[str, str], links: Mapping[str, str]
) -> Iterator[Problem]:
    """A unique constraint over moved columns must hold in the other table, too, or its writes would be refused."""
    names = {**across, **links}
    for end, other, images in (
        (main, companion, names),
        (companion, main, {there: here for here, there in names.items()}),
    ):
        moved = set(across) if end is main else set(across.values())
        for holder in end.holders:
            if not holder.unique or not moved & set(holder.columns):
                continue
            found = {images[name] for name in holder.columns if name in images}
            if len(found) < len(holder.columns) or not any(unique <= found for unique in _unique(other)):
                yield Problem(
                    code="CF109",
                    what=f"{end.name[1]} has {holder.title}, and nothing keeps {other.name[1]} from repeating itself"
                    " there.",
                    why="a write of the other release would be refused.",
                    instead=f"let both tables have it; or drop it in an upgrade before, or let {end.name[1]} have it"
                    " (AddUnique) in one after this.",
                )


def _end(
    end: TablePlan, key: Sequence[str], columns: Mapping[str, sa.Column[Any]], move: Move, source: TablePlan
) -> PairTable:
    schema, table = end.name
    meaning = [list(source.name), list(move.to), sorted(move.columns), list(end.name)]
    digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:8]
    return PairTable(
        table=table,
        schema=schema,
        key=tuple(_sync_column(end.table.columns[name]) for name in key),
        columns={name: _sync_column(column) for name, column in columns.items()},
        name=f"zcf_{table.encode()[:36].decode(errors='ignore')}_{digest}",
    )


def _sync_column(column: sa.Column[Any]) -> SyncColumn:
    constant, value = constant_default(column)
    return SyncColumn(
        name=column.name,
        type=column.type,
        nullable=bool(column.nullable),
        default=default_text(column),
        default_constant=constant,
        default_value=value,
    )


def _lens(pair: Pair, move: Move) -> Sync:
    """The pair as a lens of its old table: new columns carry their table's name, NULL is as good as no row."""
    old, new = pair.old_table, pair.new_table
    far = {name: f"{new.table}.{name}" for name in new.columns}
    forward, backward = pair.to_companion, pair.to_main
    if pair.old == "companion":
        forward, backward = backward, forward
    columns = {**old.columns}
    for name, column in new.columns.items():
        may_be_null = column.nullable or isinstance(forward[name], Ref)
        columns[far[name]] = replace(column, name=far[name], nullable=may_be_null, default=None, default_constant=False)
    group = Group(
        old=tuple(old.columns),
        new=tuple(far.values()),
        forward={far[name]: image for name, image in forward.items()},
        backward={
            name: _renamed(image, far[move.columns[name]], new.columns[move.columns[name]].type)
            for name, image in backward.items()
        },
    )
    return Sync(
        table=old.table,
        schema=old.schema,
        key=tuple(column.name for column in old.key),
        columns=columns,
        groups=(group,),
        marker=pair.marker,
        name=old.name,
    )


def _renamed(image: sa.ColumnElement[Any], name: str, type_: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """The image, a reference or one with a value in place of NULL, of a column under another name."""
    ref = Ref(name, type_)
    if isinstance(image, Ref):
        return ref
    _, value = children(image)
    return sa.func.coalesce(ref, value)
