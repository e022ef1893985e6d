"""What stands on a table's columns: keys, constraints, indexes; and what an upgrade may do to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Check, Constraint, Exclusion, ForeignKey
from contraflow.expressions import Ref
from contraflow.expressions.trees import Lookup
from contraflow.installed import Index
from contraflow.lens import Group
from contraflow.operations.base import Release, referred
from contraflow.problems import Problem, ProblemError

__all__ = [
    "EXCLUSIONS",
    "Holder",
    "check_injective",
    "check_left_out",
    "holders",
    "index_of",
    "is_implied",
    "is_key_implied",
    "names_column",
    "names_of",
    "new_index",
    "new_name",
    "not_injective",
    "put_index",
    "released_constraints",
    "released_index",
]

EXCLUSIONS = "contraflow_exclusions"
"""In a table's ``info``: its exclusion constraints, which SQLAlchemy does not reflect, by name; of each the SQL and the
columns."""
_KINDS: tuple[tuple[type[sa.Constraint], str], ...] = (
    (sa.PrimaryKeyConstraint, "primary key"),
    (sa.UniqueConstraint, "unique constraint"),
    (sa.ForeignKeyConstraint, "foreign key"),
)


# String literals, with a backslash as an escape (MySQL, MariaDB, PostgreSQL's E'') and without. Nothing here knows
# which of the two a text is written in, so a name counts as a column's unless it is inside of a literal either way.
_LITERALS = (re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL), re.compile(r"'(?:[^']|'')*'"))


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A key, constraint or index of a table in its old shape."""

    kind: str
    name: str | None
    columns: tuple[str, ...]
    text: str = ""
    """SQL in which further columns may stand: of a check, an expression index, a partial index."""
    unique: bool = False
    """No two rows may be alike in ``columns``: neither an expression nor a condition weakens it."""
    constraint: Constraint | None = None
    """The foreign key or check, if it is one."""

    @property
    def title(self) -> str:
        """The holder in words."""
        if self.name:
            return f"the {self.kind} {self.name}"
        return f"the {self.kind} on {', '.join(self.columns)}" if self.columns else f"the {self.kind} ({self.text})"

    @property
    def index(self) -> Index | None:
        """The index to be dropped, if it is one, or a unique constraint."""
        if self.kind not in ("index", "unique index", "unique constraint"):
            return None
        constraint = self.kind == "unique constraint"
        return Index(name=self.name, columns=self.columns, unique=self.unique or constraint, constraint=constraint)

    def holds(self, column: str) -> bool:
        """Whether the column could not be dropped without it."""
        return column in self.columns or names_column(self.text, column)

    def way_out(self, table: str) -> str:
        """The operation to write for it."""
        if self.kind == "unique constraint" or (self.kind == "unique index" and self.name is None):
            columns = ", ".join(f'"{column}"' for column in self.columns)
            return (
                f'add DropUnique(table="{table}", columns=[{columns}]) to the change,'
                "\nand AddUnique(...) over the new columns, which the new release is to have in its place."
            )
        if self.index is not None:
            return (
                f'add DropIndex(table="{table}", name="{self.name}") to the change,'
                "\nand CreateIndex(...) over the new columns, which the new release is to have in its place."
            )
        if isinstance(self.constraint, ForeignKey):
            columns = ", ".join(f'"{column}"' for column in self.columns)
            return (
                f'add DropForeignKey(table="{table}", columns=[{columns}]) to the change,'
                "\nand AddForeignKey(...) over the new columns, which the new release is to have in its place."
            )
        if isinstance(self.constraint, Check):
            told = f'name="{self.name}"' if self.name else f"columns={list(self.constraint.columns)}"
            return (
                f'add DropCheck(table="{table}", {told}) to the change,'
                "\nand AddCheck(...) over the new columns, which the new release is to have in its place."
            )
        if isinstance(self.constraint, Exclusion):
            return (
                f'add DropExclusion(table="{table}", name="{self.name}") to the change,'
                "\nand AddExclusion(...) over the new columns, which the new release is to have in its place."
            )
        return f"move {self.title} to the new columns in a revision of its own, first."


def names_column(text: str, column: str) -> bool:
    """Whether SQL may name the column."""
    name = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)", re.IGNORECASE)
    return any(name.search(literal.sub("''", text)) for literal in _LITERALS)


def holders(table: sa.Table) -> list[Holder]:
    """Everything that stands on the table's columns, in a stable order."""
    found = [
        *_constraints(table),
        *map(_index, sorted(table.indexes, key=lambda index: str(index.name))),
    ]
    constraints = {holder.name for holder in found if holder.kind == "unique constraint"}
    # Servers that keep a constraint as an index may show both.
    return [
        holder
        for holder in found
        if holder.index is None or holder.kind == "unique constraint" or holder.name not in constraints
    ]


def _constraints(table: sa.Table) -> Iterator[Holder]:
    for excluding, (text, columns) in sorted(table.info.get(EXCLUSIONS, {}).items()):
        exclusion = Exclusion(name=excluding, columns=columns)
        yield Holder(kind=Exclusion.kind, name=excluding, columns=columns, text=text, constraint=exclusion)
    for constraint in sorted(table.constraints, key=lambda found: (type(found).__name__, str(found.name))):
        name = str(constraint.name) if constraint.name else None
        if isinstance(constraint, sa.CheckConstraint):
            text = str(constraint.sqltext)
            holder = Holder(kind=Check.kind, name=name, columns=(), text=text)
            columns = tuple(column.name for column in table.columns if holder.holds(column.name))
            yield replace(holder, constraint=Check(name=name, columns=columns, text=text))
        elif isinstance(constraint, sa.schema.ColumnCollectionConstraint):
            columns = tuple(column.name for column in constraint.columns)
            kind = next((kind for type_, kind in _KINDS if isinstance(constraint, type_)), "constraint")
            if columns:
                unique = kind in ("primary key", "unique constraint")
                key = _foreign_key(constraint, name) if isinstance(constraint, sa.ForeignKeyConstraint) else None
                yield Holder(kind=kind, name=name, columns=columns, unique=unique, constraint=key)


def _foreign_key(key: sa.ForeignKeyConstraint, name: str | None) -> ForeignKey:
    # The tables that it refers to need not be known: their names stand in text.
    (schema, table), columns = referred(key)
    ondelete, onupdate = (str(action or "").upper() for action in (key.ondelete, key.onupdate))
    return ForeignKey(
        name=name,
        columns=tuple(key.column_keys),
        target=table,
        target_schema=schema,
        target_columns=columns,
        ondelete=None if ondelete in ("", "NO ACTION") else ondelete,
        onupdate=None if onupdate in ("", "NO ACTION") else onupdate,
        deferrable=bool(key.deferrable),
        deferred=str(key.initially or "").upper() == "DEFERRED",
    )


def index_of(index: sa.Index) -> Index:
    """The index as it is reflected, or declared with its table."""
    columns = tuple(column.name for column in index.columns)
    parts = tuple(part.name if isinstance(part, sa.Column) else str(part) for part in index.expressions)
    wheres = (index.dialect_options[dialect].get("where") for dialect in ("postgresql", "sqlite"))
    return Index(
        name=str(index.name) if index.name else None,
        columns=columns,
        unique=bool(index.unique),
        parts=() if parts == columns else parts,
        where=next((str(where) for where in wheres if where is not None), ""),
    )


def put_index(table: sa.Table, index: Index) -> None:
    """Let the table have the index: the reverse of :func:`index_of`."""

    def text(sql: str) -> sa.TextClause:
        return sa.text(sql.replace(":", "\\:"))

    parts = [table.c[part] if part in index.columns else text(f"({part})") for part in index.key]
    only: dict[str, Any] = {f"{name}_where": text(index.where) for name in ("postgresql", "sqlite") if index.where}
    if index.using:
        only["postgresql_using"] = index.using
    if index.storage:
        only["postgresql_with"] = dict(index.storage)
    sa.Index(index.name, *parts, unique=index.unique, _table=table, **only)


def _index(index: sa.Index) -> Holder:
    found = index_of(index)
    return Holder(
        kind="unique index" if found.unique else "index",
        name=found.name,
        columns=found.columns,
        text=" ".join([*(part for part in found.parts if part not in found.columns), found.where]).strip(),
        unique=found.unique and found.is_plain,
    )


def names_of(found: Iterable[Holder]) -> set[str]:
    """The names that are taken on the table."""
    return {holder.name for holder in found if holder.name}


def released_index(table: str, found: Sequence[Holder], wish: Index) -> Index:
    """The index or unique constraint that an operation names. Raises ``CF101`` if there is none."""
    for holder in found:
        index = holder.index
        if index is None:
            continue
        named = wish.name is not None and holder.name == wish.name
        told = wish.name is None and holder.unique and holder.columns == wish.columns
        if named or told:
            return index
    known = [holder.title for holder in found if holder.index is not None]
    raise ProblemError(
        Problem(
            code="CF101",
            what=f"table {table} has no {f'index {wish.name}' if wish.name else wish.title.removeprefix('the ')}.",
            instead=f"it has: {', '.join(known)}." if known else "it has no index or unique constraint.",
        )
    )


def released_constraints(table: str, found: Sequence[Holder], wish: Release) -> list[Constraint]:
    """The foreign keys or the check that an operation names. Raises ``CF101`` if there is none."""
    told = [holder.constraint for holder in found if holder.constraint is not None and holder.kind == wish.kind]
    meant = [
        constraint
        for constraint in told
        if (constraint.name == wish.name if wish.name else _same_columns(constraint, wish.columns))
    ]
    if not meant:
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"table {table} has no {wish.title}.",
                instead=f"it has: {', '.join(constraint.title for constraint in told)}."
                if told
                else f"it has no {wish.kind}.",
            )
        )
    return meant


def _same_columns(constraint: Constraint, columns: tuple[str, ...]) -> bool:
    if isinstance(constraint, Check):  # they were found in its text
        return constraint.name is None and set(constraint.columns) == set(columns)
    return constraint.columns == columns


def new_index(table: str, taken: set[str], index: Index) -> Index:
    """``index``, if its name is free. Raises ``CF117`` if not."""
    new_name(table, taken, index.name)
    return index


def new_name(table: str, taken: set[str], name: str | None) -> None:
    """Raise ``CF117`` if an index or constraint of the table has the name already."""
    if name in taken:
        raise ProblemError(
            Problem(
                code="CF117",
                what=f"table {table} has an index or constraint {name} already.",
                why="both releases' indexes stand side by side until contract.",
                instead="choose another name for the new one.",
            )
        )


def is_implied(
    index: Index,
    found: Sequence[Holder],
    groups: Sequence[Group],
    old: Mapping[str, sa.Column[Any]],
    new: Mapping[str, sa.Column[Any]],
) -> bool:
    """Whether no write of the old release can violate a new unique index.

    Either it never writes one of the columns, which then stays NULL until the new release writes it; or all of them
    are its own (or copies), and one of its own unique constraints stands on these or some of them. What an expression
    in the key gives is not known: it counts for nothing.
    """
    forward = {name: image for group in groups for name, image in group.forward.items()}
    own = set()
    for name in index.plain:
        if name in old:
            own.add(name)
        elif name not in forward:
            return True
        elif (source := _copied(forward[name])) in old and _same_type(new[name], old[source]):
            own.add(source)
    return any(holder.unique and set(holder.columns) <= own for holder in found)


def is_key_implied(
    key: ForeignKey,
    found: Sequence[Holder],
    groups: Sequence[Group],
    old: Mapping[str, sa.Column[Any]],
    new: Mapping[str, sa.Column[Any]],
) -> bool:
    """Whether no write of the old release can be refused because of a new foreign key.

    Either it never writes one of the columns, which then stays NULL until the new release writes it; or all of them
    are its own (or copies), and one of its own foreign keys on these demands no less.
    """
    forward = {name: image for group in groups for name, image in group.forward.items()}
    own = [holder.constraint for holder in found if isinstance(holder.constraint, ForeignKey)]
    if (former := _looked_up(key, forward)) is not None:
        return any(other.columns == former.columns and former.demands_no_more_than(other) for other in own)
    sources = []
    for name in key.columns:
        if name not in old and name not in forward:
            return True
        source = name if name in old else _copied(forward[name])
        if source not in old or (name not in old and not _same_type(new[name], old[source])):
            return False
        sources.append(source)
    return any(other.columns == tuple(sources) and key.demands_no_more_than(other) for other in own)


def _looked_up(key: ForeignKey, forward: Mapping[str, sa.ColumnElement[Any]]) -> ForeignKey | None:
    """The foreign key by old columns that finds the rows to which ``key`` refers by what is looked up in them."""
    image = forward.get(key.columns[0])
    if len(key.columns) > 1 or not isinstance(image, Lookup) or image.made is not None:
        return None
    if (key.target_schema, key.target, key.target_columns) != (image.schema, image.table, (image.column,)):
        return None
    there = tuple(match.name for match in image.matches)
    return replace(key, columns=image.given, target_columns=there) if len(image.given) == len(there) else None


def check_injective(
    table: str,
    found: Sequence[Holder],
    group: Group,
    old: Mapping[str, sa.Column[Any]],
    new: Mapping[str, sa.Column[Any]],
) -> Iterator[Problem]:
    """``CF109`` for images under a key or constraint, unless they are plain copies under a unique one."""
    for name, sources, holder in not_injective(found, group, old, new):
        yield Problem(
            code="CF109",
            what=f"{table}.{name} is computed from {', '.join(sources) or 'nothing'}, and {holder.title} stands on it.",
            why="two different values could have one image: a write of the other release would fail,"
            " or replace another row.",
            instead=f"drop {holder.title} first, in an upgrade of its own, or keep {name} as it is in both releases.",
        )


def not_injective(
    found: Sequence[Holder],
    group: Group,
    old: Mapping[str, sa.Column[Any]],
    new: Mapping[str, sa.Column[Any]],
) -> Iterator[tuple[str, Sequence[str], Holder]]:
    """Columns whose images a key or constraint may refuse: each with what it is computed from, and the first such."""
    # A copy of a new column repeats itself only where the new release does; what an old one holds may repeat.
    images = [(name, _copied(image), group.new) for name, image in group.backward.items()]
    images += [(name, "", group.old) for name in group.forward if name in old]
    for name, source, sources in images:
        is_copy = source in new and _same_type(new[source], old[name])
        for holder in found:
            # A unique index over an expression, or a part of the rows, tells copies apart as it does the new values.
            bears_copies = holder.unique or holder.kind == "unique index" or holder.constraint is not None
            if holder.kind == "index" or not holder.holds(name) or (bears_copies and is_copy):
                continue
            if name in group.backward and _bears_key(holder, name, group):
                continue
            yield name, sources, holder
            break


def check_left_out(
    table: str, found: Sequence[Holder], dropped: Mapping[str, sa.Column[Any]], written: set[str]
) -> Iterator[Problem]:
    """``CF109`` for a dropped column under a unique constraint of which each new row would have the same default."""
    for name, column in dropped.items():
        if name in written or column.server_default is None:
            continue
        for holder in found:
            if holder.unique and name in holder.columns:
                yield Problem(
                    code="CF109",
                    what=f"{table}.{name} has a default, and {holder.title} stands on it.",
                    why="all rows that the new release inserts would have this one value, and be refused.",
                    instead=f"drop {holder.title} first, in an upgrade of its own.",
                )


def _bears_key(holder: Holder, name: str, group: Group) -> bool:
    """Whether the holder takes any natural key of another table's rows that the column is a part of.

    A unique constraint that stands on all of the key: two rows have the same one if they refer to the same row. A
    foreign key that is the reference itself.
    """
    image = group.backward[name]
    if not isinstance(image, Lookup):
        return False
    looked_up = {
        column: found.column
        for column, found in group.backward.items()
        if isinstance(found, Lookup) and (found.table, found.matches) == (image.table, image.matches)
    }
    if isinstance(key := holder.constraint, ForeignKey):
        there = tuple(looked_up.get(column) for column in key.columns)
        return (key.target, key.target_columns) == (image.table, there)
    return holder.unique and set(looked_up) <= set(holder.columns)


def _copied(image: sa.ColumnElement[Any]) -> str:
    """The column whose plain copy the image is; empty if it is something else."""
    return image.name if isinstance(image, Ref) else ""


def _same_type(one: sa.Column[Any], other: sa.Column[Any]) -> bool:
    """Whether a copy loses nothing, and what is alike to one is alike to the other (collation)."""
    return one.type is other.type or repr(one.type) == repr(other.type)
