"""Another primary key, of another type, with the foreign keys that refer to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import ForeignKey
from contraflow.expressions.trees import Lookup, Match, new_uuid
from contraflow.installed import Index
from contraflow.lens import Lens, Row
from contraflow.operations.base import (
    Fragment,
    Key,
    Refer,
    Release,
    Schema,
    TableName,
    check_name,
    constant_default,
    default_text,
    find_column,
    find_table,
    incomplete,
)
from contraflow.operations.held import Holder, holders
from contraflow.problems import Problem, ProblemError

__all__ = ["KeyReference", "ReplaceKey"]

_ACTIONS = (None, "RESTRICT", "CASCADE", "SET NULL")
"""What a foreign key may do when a row that is referred to is deleted, or, but for SET NULL, changes its key."""
_DIGITS = 32


@dataclass(frozen=True, kw_only=True)
class KeyReference:
    """A foreign key to the key that a :class:`ReplaceKey` replaces.

    ``old`` is the column of ``table`` that refers to the old key, ``new`` the new one that refers to the new key. It is
    NOT NULL if the old one is. ``name`` is the new foreign key's, whose actions are those of the old one.

    ``index`` is the name of an index over the new column; the plain one over the old column alone, if there is any,
    goes with it. Without ``index`` there is no new one but on MySQL and MariaDB, which make their own.

    While the new key is filled, rows of ``table`` are looked for by ``old``: without an index that begins so, ``scans``
    must say that the table may be read as a whole for each row of the other one, which is right for a small table.
    """

    table: str
    old: str
    new: str
    name: str
    index: str | None = None
    scans: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        for name in (self.name, self.index):
            check_name(f"a foreign key or index of {self.table}", name)


@dataclass(frozen=True, kw_only=True)
class ReplaceKey:
    """Replace a numbered primary key by a UUID, and the foreign keys that refer to it, in one upgrade::

        ReplaceKey(
            table="users",
            old="id",
            column=sa.Column("uid", sa.Uuid()),
            references=[KeyReference(table="orders", old="user_id", new="user_uid", name="fk_orders_user")],
        )

    Rows that the old release inserts get a UUID from the server, those from before get theirs by ``migrate``; rows
    that the new release inserts get their number from the server, as ever. A row that refers is written by the old
    release by number, by the new one by UUID: each is looked up from the other, and NULL stays NULL. From ``migrate``
    on both foreign keys stand, the new one with the actions of the old one. ``contract`` drops the old columns and
    foreign keys, and makes the UUID the primary key.

    ``column`` is of the type ``sa.Uuid``, or a text of at least 32 characters (with hyphens from 36 on), and becomes
    NOT NULL. ``name`` is the new key's own, where the server keeps one, as for :class:`AddPrimaryKey`. ``references``
    are all foreign keys that refer to the old key, of whatever table: ``CF111`` names one that is missing. A column
    that holds such a number without a foreign key is not known, and refers to nothing after ``contract``.

    The server makes random UUIDs (version 4) for ``sa.Uuid``, but on MariaDB: see :class:`NewUuid`.

    Refused (``CF116``): a key of several columns, or one that the server does not number; foreign keys that are
    deferrable, with ``SET DEFAULT``, or with ``SET NULL`` when the key changes; a NOT NULL one of the table to itself.
    Refused (``CF205``): any foreign key of the table to itself on MySQL and MariaDB; all of it on CockroachDB and on
    Galera clusters.
    """

    table: str
    old: str
    column: sa.Column[Any]
    references: Sequence[KeyReference] = ()
    name: str | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "references", tuple(self.references))
        title, type_ = f"{self.table}.{self.column.name}", self.column.type
        text = isinstance(type_, sa.types.String) and not isinstance(type_, sa.types.Enum)
        length = getattr(type_, "length", None)
        if not isinstance(type_, sa.types.Uuid) and not (text and (length is None or length >= _DIGITS)):
            raise incomplete(f"{title} is {type_!r}, which holds no UUID.", "declare it sa.Uuid(), or sa.String(36).")
        if default_text(self.column) is not None or self.column.computed is not None:
            raise incomplete(
                f"{title} has a default.", "leave it out; add it in an upgrade after this (ChangeDefault)."
            )
        check_name(f"a key of {self.table}", self.name)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        old = find_column(schema, table, self.old)
        ProblemError.raise_any(self._problems(find_table(schema, table), old))
        new = self.column._copy()  # noqa: SLF001 - SQLAlchemy has no other word
        new.nullable, new.primary_key = False, False
        image = new_uuid(new.type)
        lens = Lens(old=(), new=(new.name,), forward=lambda _row: {new.name: image})
        key = Key(columns=(new.name,), name=self.name, replaces=True, retires=True)
        return Fragment(
            table=table,
            add=(new,),
            lens=lens,
            once=frozenset({new.name}),
            then=(
                *(_refer(reference, schema, table, old, new) for reference in self.references),
                Fragment(table=table, drop=(old.name,), key=key),
            ),
        )

    def _problems(self, columns: Mapping[str, sa.Column[Any]], old: sa.Column[Any]) -> Iterator[Problem]:
        title = f"{self.table}.{old.name}"
        key = [name for name, column in columns.items() if column.primary_key]
        if key != [old.name]:
            yield Problem(
                code="CF116",
                what=f"the primary key of {self.table} is on {', '.join(key) or 'nothing'}, not on {old.name} alone.",
                instead="change another key by AddColumn(...), DropPrimaryKey(...), AddPrimaryKey(...).",
            )
        elif not _is_numbered(old):
            yield Problem(
                code="CF116",
                what=f"the server does not number {title}.",
                why="the new release does not know the column: nothing would give its rows the key by which the old one"
                " knows them.",
                instead="let the server number it, in an upgrade before; or let the new release write both columns:"
                "\nAddColumn(...), then DropPrimaryKey(...), AddPrimaryKey(...) in a later upgrade.",
            )

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "ReplaceKey",
            "table": [self.schema, self.table],
            "old": self.old,
            "column": [self.column.name, repr(self.column.type), self.column.comment],
            "name": self.name,
            "references": [
                [one.schema, one.table, one.old, one.new, one.name, one.index, one.scans] for one in self.references
            ],
        }


def _is_numbered(column: sa.Column[Any]) -> bool:
    """Whether the server gives a row its number where a statement does not."""
    table = column.table
    return (
        column.identity is not None
        or (column.server_default is not None and not constant_default(column)[0])
        or (isinstance(table, sa.Table) and table.autoincrement_column is column)
    )


def _refer(
    reference: KeyReference, schema: Schema, to: TableName, old_key: sa.Column[Any], new_key: sa.Column[Any]
) -> Fragment:
    """The column of a table that refers, its lens, its foreign key and its index."""
    table = (reference.schema, reference.table)
    old = find_column(schema, table, reference.old)
    standing = holders(old.table) if isinstance(old.table, sa.Table) else []
    key = _foreign_key(reference, standing, to, old_key.name)
    new = sa.Column(reference.new, new_key.type, nullable=old.nullable, comment=old.comment)

    def forward(row: Row) -> Mapping[str, Any]:
        match = Match(name=old_key.name, value=row[old.name], type=old_key.type)
        return {new.name: _lookup(to, new_key, match, fills=True)}

    def backward(row: Row) -> Mapping[str, Any]:
        return {old.name: _lookup(to, old_key, Match(name=new_key.name, value=row[new.name], type=new_key.type))}

    plain = [holder for holder in standing if holder.kind == "index" and holder.columns == (old.name,)]
    build = (Index(name=reference.index, columns=(new.name,)),) if reference.index else ()
    return Fragment(
        table=table,
        add=(new,),
        drop=(old.name,),
        lens=Lens(old=(old.name,), new=(new.name,), forward=forward, backward=backward),
        refer=Refer(
            to=to,
            key=new_key.name,
            column=new.name,
            columns={old.name: old_key.name},
            creates=False,
            follows=True,
            fills=True,
            clears=key.ondelete == "SET NULL" and table != to,
            scans=reference.scans,
        ),
        release=tuple(holder.index for holder in plain if holder.index is not None and not holder.text),
        build=build,
        unconstrain=(Release(kind=ForeignKey.kind, columns=(old.name,)),),
        constrain=(replace(key, name=reference.name, columns=(new.name,), target_columns=(new_key.name,)),),
    )


def _lookup(to: TableName, column: sa.Column[Any], match: Match, *, fills: bool = False) -> Lookup:
    schema, table = to
    return Lookup(table=table, schema=schema, column=column.name, type_=column.type, matches=(match,), fills=fills)


def _foreign_key(reference: KeyReference, standing: Sequence[Holder], to: TableName, key: str) -> ForeignKey:
    """The foreign key that refers to the old key. Raises ``CF101`` without one, ``CF116`` for one that would not do."""
    title = f"{reference.table}.{reference.old}"
    schema, table = to
    found = [holder.constraint for holder in standing if isinstance(holder.constraint, ForeignKey)]
    meant = [
        one
        for one in found
        if one.columns == (reference.old,)
        and (one.target, one.target_columns) == (table, (key,))
        and one.target_schema in (schema, None)
    ]
    if not meant:
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"{title} has no foreign key that refers to {table}.{key}.",
                why="it is what keeps rows from referring to nothing, and decides what becomes of them.",
                instead=f'add one in an upgrade before: AddForeignKey(table="{reference.table}", name=...,'
                f' columns=["{reference.old}"], target="{table}", target_columns=["{key}"]).',
            )
        )
    (one, *others) = meant
    what = None
    if others:
        what = f"{title} refers to {table}.{key} by {len(meant)} foreign keys."
    elif one.deferrable:
        what = f"{one.title} of {reference.table} is deferrable: a row may come before the one that it refers to."
    elif one.ondelete not in _ACTIONS or one.onupdate not in _ACTIONS[:3]:
        what = (
            f"{one.title} of {reference.table} writes {reference.old} by itself"
            f" (ON DELETE {one.ondelete or 'NO ACTION'}, ON UPDATE {one.onupdate or 'NO ACTION'})."
        )
    if what is not None:
        raise incomplete(
            what,
            "let one stand that is checked at once, with CASCADE, RESTRICT or NO ACTION, or ON DELETE SET NULL, in an"
            " upgrade before.",
        )
    return one
