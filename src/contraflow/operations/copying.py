"""A new column whose value is copied from other tables, and follows them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa
from alembic.operations import ops

from contraflow.copies import BackfillCopy, Copy, Hop, InstallCopy, Path, Place, ProbeCopy, Source
from contraflow.expressions import Ref
from contraflow.installed import Installed, InstalledCopy
from contraflow.lens import Group
from contraflow.operations.base import (
    Copying,
    Fragment,
    Schema,
    default_text,
    find_column,
    find_table,
    incomplete,
    referred,
)
from contraflow.operations.gathering import Plans, TablePlan
from contraflow.problems import Problem, ProblemError
from contraflow.steps import AddColumns, Block, Hold, Online, RemovePair
from contraflow.syncs import Sync, SyncColumn

__all__ = ["CopyColumn", "copies_of", "copy_blocks", "copy_lenses", "installed_copies", "note_copy", "plan_copies_end"]


@dataclass(frozen=True, kw_only=True)
class CopyColumn:
    """Add a column that holds what other tables say of the row, and follows them until contract.

    Both releases know these tables and go on writing them; the new release also reads and writes the column. The first
    of ``sources`` that has a value counts; where several rows of a table belong to a row, the one with the least
    primary key that has a value. The column is written again only when that changes: what the new release writes there
    stays until then, whatever else happens to the rows. It is not written back: as long as the old release lives, the
    new one changes what it means to change in the source as well.

    ``winner`` says whose value stays where the new release gave one before any source had one: its own (``"new"``), or
    the source's (``"old"``). A row without any source holds NULL; a column that is NOT NULL in its declaration keeps
    its last value instead, and becomes NOT NULL at contract.

    ``scans`` accepts that a table on a way is read as a whole for each write, because no index helps.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if the declaration contradicts itself.
    """

    table: str
    column: sa.Column[Any]
    sources: Sequence[Source]
    winner: Literal["old", "new"] = "new"
    scans: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        title = f"CopyColumn of {self.table}.{self.column.name}"
        if not self.sources:
            raise incomplete(f"{title} needs sources=.", "name a Source: the table and column that it is copied from.")
        if self.winner not in ("old", "new"):
            raise incomplete(f"{title}: winner= is 'old' or 'new'.", "write one of these two words.")
        for source in self.sources:
            ways = source.ways
            if not all(way.on for way in ways):
                raise incomplete(f"{title} needs on= for every table.", "say by which columns its rows are found.")
            places = [(way.schema, way.table) for way in ways]
            if (self.schema, self.table) in places or len(set(places)) < len(places):
                raise incomplete(
                    f"{title}: the way to {source.table} comes by a table twice.",
                    "a trigger cannot follow that on every server: let the application write the column (AddColumn).",
                )

    @property
    def tables(self) -> tuple[Place, ...]:
        """The tables that the column follows."""
        return tuple((way.schema, way.table) for source in self.sources for way in source.ways)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        target = (self.schema, self.table)
        find_table(schema, target)
        for source in self.sources:
            before = target
            for way in source.ways:
                place = (way.schema, way.table)
                for name, there in way.on.items():
                    find_column(schema, before, name)
                    find_column(schema, place, there)
                before = place
            find_column(schema, before, source.column)
        column = self.column._copy()  # noqa: SLF001 - a column belongs to one table
        copying = Copying(column=column.name, sources=tuple(self.sources), winner=self.winner, scans=self.scans)
        return Fragment(table=target, add=(column,), copying=copying)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""

        return {
            "operation": "CopyColumn",
            "table": [self.schema, self.table],
            "column": [self.column.name, repr(self.column.type), self.column.nullable],
            "sources": [
                [[[way.schema, way.table, dict(way.on)] for way in source.ways], source.column]
                for source in self.sources
            ],
            "winner": self.winner,
        }


# --- for planning -----------------------------------------------------------------------------------------------------


def note_copy(fragment: Fragment, plans: Plans) -> None:
    """Note a fragment's copy."""
    if fragment.copying is not None:
        target = plans.current[fragment.table]
        target.copied.add(fragment.copying.column)
        plans.copies.append((fragment.copying, target))


def copies_of(plans: Plans) -> list[Copy]:
    """What the copies come to. Raises :class:`~contraflow.problems.ProblemError` with all that stands in their way."""
    problems: list[Problem] = []
    found: list[Copy] = []
    for copying, target in plans.copies:
        try:
            found.append(_Planner(copying=copying, target=target, plans=plans).copy())
        except ProblemError as error:
            problems.extend(error.problems)
    ProblemError.raise_any(problems)
    return found


@dataclass(kw_only=True)
class _Planner:
    """One copy while its parts are looked up."""

    copying: Copying
    target: TablePlan
    plans: Plans
    types: dict[Place, dict[str, sa.types.TypeEngine[Any]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.target.name[1]}.{self.copying.column}"

    def copy(self) -> Copy:
        target, column = self.target, self._column()
        if all(found is not target for found in self.plans.current.values()):
            raise self._changes(target.name[1], "dropped")
        self._stays(target)
        paths = tuple(self._path(source) for source in self.copying.sources)
        ProblemError.raise_any(self.problems)
        self._type(target, column.name)
        keeps = not column.nullable
        firsts = [path.hops[0] for path in paths]
        followed = [name for hop in firsts if not self._comes_along(hop) for name in hop.on]
        meaning = json.dumps([list(target.name), column.name]).encode()
        return Copy(
            table=target.name[1],
            schema=target.name[0],
            key=tuple(target.table.primary_key.columns.keys()),
            key_types=tuple(one.type for one in target.table.primary_key.columns),
            column=column.name,
            type=column.type,
            image=f"cf_image_{hashlib.sha256(meaning).hexdigest()[:8]}",
            paths=paths,
            types=self.types,
            winner=self.copying.winner,
            keeps=keeps,
            followed=tuple(dict.fromkeys(followed)),
            untouched=tuple(
                name
                for name, one in target.original.items()
                if re.search(r"\bON UPDATE\b", default_text(one) or "", re.IGNORECASE)
            ),
            cascades=tuple(dict.fromkeys(self._cascades(paths, keeps=keeps))),
        )

    def _column(self) -> sa.Column[Any]:
        name = self.copying.column
        if name not in self.target.columns:
            raise incomplete(f"{self.title} is dropped again.", "leave it out.")
        column = self.target.columns[name]
        if column.server_default is not None or column.computed is not None or column.identity is not None:
            raise incomplete(
                f"{self.title} is copied, and has a default or is generated.",
                "leave that out: the sources say what it holds.",
            )
        return column

    def _changes(self, table: str, how: str) -> ProblemError:
        return ProblemError(
            Problem(
                code="CF116",
                what=f"{table} is {how} in the upgrade in which {self.title} follows other tables.",
                why="both releases must know all of these tables, by one name.",
                instead=f"add {self.title} in an upgrade of its own.",
            )
        )

    def _find(self, schema: str | None, table: str) -> TablePlan:
        found = self.plans.current.get((schema, table))
        if found is None:  # it was there when the operation was read
            raise self._changes(table, "dropped or renamed")
        self._stays(found)
        return found

    def _stays(self, found: TablePlan) -> None:
        """Both releases know the table, by one name, and a row by its key."""
        name = found.name[1]
        if found.created or found.renamed:
            raise self._changes(name, "created" if found.created else "renamed")
        if not found.table.primary_key.columns:
            self.problems.append(
                Problem(
                    code="CF116",
                    what=f"{name} has no primary key.",
                    why=f"of its rows, nothing tells which one {self.title} is copied from or to.",
                    instead="give it one, in an upgrade of its own, first.",
                )
            )

    def _type(self, found: TablePlan, name: str) -> None:
        column = found.original.get(name, found.columns.get(name))
        assert column is not None  # noqa: S101 - found when the operation was read
        self.types.setdefault(found.name, {})[name] = column.type

    def _path(self, source: Source) -> Path:
        before, hops = self.target, []
        for way in source.ways:
            found = self._find(way.schema, way.table)
            for plan, names in ((before, way.on), (found, way.on.values())):
                for name in names:
                    self._both(plan, name)
            self._indexed(before, list(way.on), found)
            self._indexed(found, list(way.on.values()), before)
            hops.append(
                Hop(
                    table=way.table,
                    schema=way.schema,
                    key=tuple(found.table.primary_key.columns.keys()),
                    on=dict(way.on),
                    single=any(
                        holder.unique and set(holder.columns) <= set(way.on.values()) for holder in found.holders
                    ),
                )
            )
            before = found
        self._both(before, source.column)
        return Path(hops=tuple(hops), column=source.column)

    def _both(self, found: TablePlan, name: str) -> None:
        """Both releases have the column, and mean the same by it."""
        changed = name not in found.original or name not in found.columns
        if changed or name in found.widened or any(name in lens.old or name in lens.new for lens, _ in found.lenses):
            self.problems.append(
                Problem(
                    code="CF116",
                    what=f"{self.title} depends on {found.name[1]}.{name}, which changes in the same upgrade.",
                    why="both releases must write it, and mean the same.",
                    instead=f"change {found.name[1]}.{name} in an upgrade of its own, after this one or before.",
                )
            )
        else:
            self._type(found, name)

    def _indexed(self, found: TablePlan, names: Sequence[str], other: TablePlan) -> None:
        """Rows are found by an index, or ``scans`` accepts that they are not."""
        columns = [holder.columns for holder in found.holders if holder.unique or holder.index is not None]
        if self.copying.scans or any(listed and listed[0] in names for listed in columns):
            return
        wanted = ", ".join(f'"{name}"' for name in names)
        table = found.name[1]
        self.problems.append(
            Problem(
                code="CF116",
                what=f"no index begins with {table}.{names[0]}.",
                why=f"all of {table} would be read for each write to {other.name[1]} that {self.title} follows, and for"
                " each row of the backfill.",
                instead=f'CreateIndex(table="{table}", name=..., columns=[{wanted}]) in an upgrade before; or, for a'
                " small table, accept it: scans=True.",
            )
        )

    # -- foreign keys --

    def _key(self, found: TablePlan, columns: Mapping[str, str], to: Place) -> sa.ForeignKeyConstraint | None:
        """The foreign key that says: these columns, to those of the other table."""
        for key in found.table.foreign_key_constraints:
            place, there = referred(key)
            if place == to and dict(zip(key.column_keys, there, strict=True)) == dict(columns):
                return key
        return None

    def _comes_along(self, hop: Hop) -> bool:
        """Whether rows of the path's first table follow when the target's columns change: they lead to the same."""
        back = {there: name for name, there in hop.on.items()}
        key = self._key(self.plans.current[hop.place], back, self.target.name)
        return key is not None and _rule(key.onupdate) == "CASCADE"

    def _cascades(self, paths: Sequence[Path], *, keeps: bool) -> Iterator[str]:
        """Foreign keys whose actions change what the paths find, but for those whose other end's triggers tell."""
        lasting = keeps and len(paths) == 1
        for path in paths:
            heard: dict[Place, list[sa.ForeignKeyConstraint | None]] = {}
            before = self.target
            for hop in path.hops:
                found = self.plans.current[hop.place]
                back = {there: name for name, there in hop.on.items()}
                # Of a row that goes, the one that it leads to or from tells; of a changed key, either.
                heard.setdefault(before.name, []).append(self._key(before, hop.on, hop.place))
                heard.setdefault(hop.place, []).append(self._key(found, back, before.name))
                before = found
            reads: dict[Place, set[str]] = {self.target.name: set(path.hops[0].on)}
            for position, hop in enumerate(path.hops):
                reads[hop.place] = {name for part in path.relevant(position) for name in part}
            single = all(hop.single for hop in path.hops)
            for place, names in reads.items():
                for key in self.plans.current[place].table.foreign_key_constraints:
                    if key in heard[place]:
                        continue
                    touched = bool(names & set(key.column_keys))
                    goes = _rule(key.ondelete) == "CASCADE" and place != self.target.name
                    emptied = _rule(key.ondelete).startswith("SET") and touched
                    if (goes or emptied) and not (lasting and single):
                        yield f"{_title(key)} of {place[1]} (ON DELETE {_rule(key.ondelete)})"
                    if touched and _rule(key.onupdate) not in ("", "NO ACTION", "RESTRICT"):
                        yield f"{_title(key)} of {place[1]} (ON UPDATE {_rule(key.onupdate)})"


def _rule(said: str | None) -> str:
    return str(said or "").upper()


def _title(key: sa.ForeignKeyConstraint) -> str:
    return f"the foreign key {key.name or ', '.join(key.column_keys)}"


def copy_lenses(copy: Copy) -> list[Sync]:
    """The copy as lenses of its sources' tables, for the checks of values."""
    lenses = []
    for path in copy.paths:
        hop = path.hops[-1]
        type_, far = copy.types[hop.place][path.column], f"{copy.table}.{copy.column}"
        columns = {
            path.column: SyncColumn(name=path.column, type=type_, nullable=True),
            far: SyncColumn(name=far, type=copy.type, nullable=True),
        }
        group = Group(old=(path.column,), new=(far,), forward={far: Ref(path.column, type_)}, backward={})
        lenses.append(
            Sync(
                table=hop.table,
                schema=hop.schema,
                key=hop.key,
                columns=columns,
                groups=(group,),
                marker=copy.image,
                name=copy.stem(hop.place),
            )
        )
    return lenses


def copy_blocks(copy: Copy) -> tuple[list[Block], Block, Block]:
    """The blocks of expand, and those of migrate and of verify."""
    title = f"{copy.table}.{copy.column}"
    image = ops.AddColumnOp(copy.table, sa.Column(copy.image, copy.type), schema=copy.schema)
    expand: list[Block] = []
    for place in (copy.target, *copy.others):
        schema, table = place
        install = InstallCopy(copy=copy, on=place)
        added = AddColumns(table=table, schema=schema, columns=(image,))
        steps = (added, install) if place == copy.target else (install,)
        expand.append(Hold(title=f"let {title} follow {table}", table=table, schema=schema, steps=steps))
    where: dict[str, Any] = {"table": copy.table, "schema": copy.schema}
    return (
        expand,
        Online(title=f"copy {title}", step=BackfillCopy(copy=copy), **where),
        Online(title=f"compare {copy.title}", step=ProbeCopy(copy=copy), **where),
    )


def installed_copies(installed: Sequence[Installed], copies: Sequence[Copy]) -> list[Installed]:
    """What is installed, with the copies."""

    def of(item: Installed) -> tuple[InstalledCopy, ...]:
        place = (item.schema, item.table)
        return tuple(
            InstalledCopy(
                name=copy.stem(place),
                fingerprint=copy.fingerprint,
                triggers=copy.triggers(place),
                image=copy.image if place == copy.target else None,
            )
            for copy in copies
            if place in (copy.target, *copy.others)
        )

    return [replace(item, copies=of(item)) for item in installed]


def plan_copies_end(installed: Sequence[Installed]) -> list[Block]:
    """The blocks that remove the copies' triggers, for contract and rollback alike: before any column goes."""
    return [
        Hold(
            title=f"stop following {found.table}",
            table=found.table,
            schema=found.schema,
            steps=(RemovePair(table=found.table, schema=found.schema, name=copy.name),),
        )
        for found in installed
        for copy in found.copies
    ]
