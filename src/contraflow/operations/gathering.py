"""What the operations of an upgrade come to, table by table: which come, go and are renamed, and how each changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Constraint, Exclusion, ForeignKey
from contraflow.installed import Index, Labels
from contraflow.lens import Lens
from contraflow.opaque import Opaque
from contraflow.operations.base import (
    Condition,
    Copying,
    Fragment,
    Key,
    Move,
    Nullability,
    Part,
    Refer,
    Repair,
    TableName,
)
from contraflow.operations.held import Holder, holders
from contraflow.operations.tables import assembled, name_taken, references
from contraflow.problems import Problem, ProblemError

__all__ = ["Plans", "TablePlan", "order", "stem"]


def order(name: TableName) -> tuple[str, str]:
    """By schema and name."""
    return name[0] or "", name[1]


def stem(name: TableName) -> str:
    """The stem of the names of what an upgrade puts beside the table; at most 50 bytes, unique in the schema."""
    digest = hashlib.sha256(json.dumps(list(name)).encode()).hexdigest()[:8]
    return f"cf_{name[1].encode()[:36].decode(errors='ignore')}_{digest}"


@dataclass(kw_only=True)
class TablePlan:
    """One table while its operations are gathered."""

    name: TableName
    """Where it stands: the old release's name, or that of a new table."""
    table: sa.Table
    """In its old shape, or as it was declared."""
    columns: dict[str, sa.Column[Any]]
    """The columns as the operations so far leave them."""
    lenses: list[tuple[Lens, frozenset[str]]] = field(default_factory=list)
    opaque: list[Opaque] = field(default_factory=list)
    build: list[Index] = field(default_factory=list)
    released: list[Index] = field(default_factory=list)
    widened: dict[str, bool] = field(default_factory=dict)
    """Columns of the old shape that get a wider type, and whether the application replans."""
    labels: list[Labels] = field(default_factory=list)
    """Values that columns of the old shape get."""
    constrain: list[ForeignKey | Condition | Exclusion] = field(default_factory=list)
    unconstrained: list[Constraint] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    nullability: dict[str, Nullability] = field(default_factory=dict)
    """Columns of the old shape that change their NOT NULL."""
    redefaulted: dict[str, bool] = field(default_factory=dict)
    """Columns of the old shape that get another default, and whether not before contract."""
    commented: dict[str | None, str | None] = field(default_factory=dict)
    """Comments that columns get, and the table (None)."""
    copied: set[str] = field(default_factory=set)
    """New columns that follow other tables: what the old release writes there comes into them."""
    key: Key | None = None
    """The new release's primary key, where an operation said so."""
    created: bool = False
    renamed: str | None = None
    restricts: bool = False

    @property
    def holders(self) -> list[Holder]:
        """What stands on the table."""
        return holders(self.table)

    @property
    def original(self) -> Mapping[str, sa.Column[Any]]:
        """The old release's columns."""
        return {column.name: column for column in self.table.columns}

    @property
    def added(self) -> tuple[sa.Column[Any], ...]:
        """The new release's columns that the old one does not have."""
        return tuple(column for name, column in self.columns.items() if name not in self.original)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The old release's columns that the new one does not have."""
        return tuple(name for name in self.original if name not in self.columns)


@dataclass(kw_only=True)
class Plans:
    """All tables while the operations are gathered."""

    current: dict[TableName, TablePlan]
    """By the names that the next operation uses."""
    removed: list[TablePlan] = field(default_factory=list)
    names: dict[TableName, TableName] = field(default_factory=dict)
    """Names that operations used, to those that took their place."""
    moves: list[tuple[Move, TablePlan, TablePlan]] = field(default_factory=list)
    """Columns that move, from which table to which."""
    parts: list[tuple[Part, TablePlan, TablePlan]] = field(default_factory=list)
    """Whole tables, and tables that have some of their rows in the other release."""
    copies: list[tuple[Copying, TablePlan]] = field(default_factory=list)
    """Columns that follow others, and their tables."""
    refers: list[tuple[Refer, TablePlan, TablePlan]] = field(default_factory=list)
    """Columns that refer, of which table to which."""

    def claim(self, name: TableName) -> None:
        """Raise ``CF120`` if a table of either release has the name."""
        if name in self.current or any(
            found.name == name and not found.created for found in (*self.current.values(), *self.removed)
        ):
            raise name_taken(name)

    def exist(self, fragment: Fragment) -> bool:
        """Let a table come, go, or take another name; False if the fragment says nothing of the kind."""
        name = fragment.table
        if fragment.create is not None:
            self.claim(name)
            columns = {column.name: column for column in fragment.create.columns}
            made = TablePlan(name=name, table=fragment.create, columns=columns, created=True)
            made.restricts = fragment.restricts
            self.current[name] = made
        elif fragment.remove:
            found = self.current.pop(name)
            found.restricts = fragment.restricts
            if not found.created:
                self.removed.append(found)
        elif fragment.rename is not None:
            self._rename(name, (name[0], fragment.rename))
        else:
            return False
        return True

    def _rename(self, name: TableName, new: TableName) -> None:
        found = self.current[name]
        if new != found.name:
            self.claim(new)
        self.current[new] = self.current.pop(name)
        self.names[name] = new
        self.names.pop(new, None)
        if found.created:
            found.name = new
        else:
            found.renamed = None if new == found.name else new[1]

    def stands(self, name: TableName) -> TableName:
        """Where the table stands that an operation knew as ``name``."""
        while name in self.names:
            name = self.names[name]
        return self.current[name].name if name in self.current else name

    def changed(self) -> list[TablePlan]:
        """The tables that both releases have, in a stable order; those that follow another one's new key after that.

        Raises ``CF116`` for a circle.
        """
        left = sorted(
            (found for found in self.current.values() if not found.created), key=lambda found: order(found.name)
        )
        follows = [
            (source.name, target.name) for wish, source, target in self.refers if wish.fills and source is not target
        ]
        ordered: list[TablePlan] = []
        while left:
            waiting = {source for source, target in follows if target in {found.name for found in left}}
            ready = [found for found in left if found.name not in waiting]
            if not ready:
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"the tables {', '.join(found.name[1] for found in left)} refer to each other by keys that"
                        " are replaced.",
                        why="none of them could be filled, or lose its old key, before the others.",
                        instead="replace one of the keys in an upgrade of its own.",
                    )
                )
            ordered += ready
            left = [found for found in left if found.name in waiting]
        return ordered

    def resolve(self) -> None:
        """Let new foreign keys refer to where tables stand."""
        for found in self.current.values():
            for place, made in enumerate(found.constrain):
                if isinstance(made, ForeignKey):
                    schema, table = self.stands((made.target_schema, made.target))
                    found.constrain[place] = replace(made, target_schema=schema, target=table)

    def definitions(
        self, constraint: Callable[[TablePlan, ForeignKey | Condition | Exclusion], Constraint]
    ) -> list[sa.Table]:
        """The new tables, each after those that it refers to. Raises ``CF116`` for a circle."""
        made = {
            found.name: assembled(
                found.table,
                name=found.name[1],
                comment=found.commented.get(None, found.table.comment),
                columns=found.columns,
                key=found.key,
                released=found.released,
                built=found.build,
                unconstrained=found.unconstrained,
                constrained=[constraint(found, made) for made in found.constrain],
                stands=self.stands,
            )
            for found in self.current.values()
            if found.created
        }
        ordered: list[sa.Table] = []
        while made:
            ready = [
                name
                for name, table in made.items()
                if not {target for _, target, _ in references(table)} & (set(made) - {name})
            ]
            if not ready:
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"the new tables {', '.join(sorted(name for _, name in made))} refer to each other.",
                        why="none of them can be created before the others.",
                        instead="leave out one of the foreign keys, and add it in a later upgrade.",
                    )
                )
            ordered += [made.pop(name) for name in ready]
        return ordered

    def removed_in_order(self) -> list[TableName]:
        """The tables that go, each before those that it refers to."""
        left = {found.name: found for found in sorted(self.removed, key=lambda found: order(found.name))}
        ordered: list[TableName] = []
        while left:
            wanted = {
                target for name, found in left.items() for _, target, _ in references(found.table) if target != name
            }
            ready = [name for name in left if name not in wanted]
            if not ready:
                raise ProblemError(
                    Problem(
                        code="CF111",
                        what=f"the tables {', '.join(name for _, name in left)} refer to each other.",
                        why="none of them can be dropped before the others.",
                        instead="drop one of the foreign keys in an earlier upgrade.",
                    )
                )
            ordered += ready
            for name in ready:
                del left[name]
        return ordered

    def _constraint_problems(self) -> Iterator[Problem]:
        """``CF116`` for foreign keys and checks on renamed tables, and for keys to tables that come or are renamed."""
        special = {name: found for name, found in self.current.items() if found.created or found.renamed}
        special |= {found.name: found for found in special.values()}
        for name, found in self.current.items():
            if found.created:
                continue  # declared with the table
            if name in special and (changed := [*found.constrain, *found.unconstrained]):
                yield _mixed(found, str(changed[0].name))
                continue
            for key in found.constrain:
                if isinstance(key, ForeignKey) and (target := special.get((key.target_schema, key.target))):
                    yield _mixed(target, str(key.name))

    def problems(self) -> Iterator[Problem]:
        """``CF121`` for keys of a table that one release does not know, ``CF111`` for those to a table that goes."""
        yield from self._constraint_problems()
        gone = {found.name for found in self.removed}
        new = {found.name for found in self.current.values() if found.created}
        for found in (*self.current.values(), *self.removed):
            made = [
                (str(key.name), (key.target_schema, key.target), key.ondelete not in (None, "NO ACTION", "RESTRICT"))
                for key in found.constrain
                if isinstance(key, ForeignKey)
            ]
            for key, target, _ in made:
                if not found.created and self.stands(target) in gone:
                    yield _refers(found, key, target)
            for key, target, lets_go in (*references(found.table), *(made if found.created else ())):
                stands = self.stands(target)
                if found.created and stands in gone:
                    yield _refers(found, key, target)
                lone = found.created or found.name in gone
                if lone and not (lets_go or found.restricts or stands in gone or stands in new):
                    yield _restricts(found, key, target, release="old" if found.created else "new")


def _mixed(found: TablePlan, name: str) -> Problem:
    how = "created" if found.created else "renamed"
    return Problem(
        code="CF116",
        what=f"{name} is made on {found.name[1]}, or refers to it, in the upgrade in which that table is {how}.",
        why="until contract the table is known under two names, or to the new release only.",
        instead="make it in a later upgrade.",
    )


def _refers(found: TablePlan, key: str, target: TableName) -> Problem:
    return Problem(
        code="CF111",
        what=f"the table {target[1]} cannot be dropped: the foreign key {key} of {found.name[1]} refers to it.",
        why="the new release would have a table that refers to none.",
        instead=f"leave the foreign key out, or keep {target[1]}.",
    )


def _restricts(found: TablePlan, key: str, target: TableName, *, release: str) -> Problem:
    table = found.name[1]
    return Problem(
        code="CF121",
        what=f"the {release} release does not know {table}, whose foreign key ({key}) refers to {target[1]}.",
        why=f"once a row of {table} refers to a row of {target[1]}, the {release} release can no longer delete that.",
        instead=f'let the key say what becomes of {table}: ondelete="CASCADE" or "SET NULL";'
        f"\nor say that the {release} release deletes no such rows: restricts=True.",
    )
