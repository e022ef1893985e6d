"""The primary key of a table: a first one, none any more, or another one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from contraflow.installed import Index, Installed, KeyChange, Numbered
from contraflow.operations.base import (
    LONGEST_NAME,
    Fragment,
    Key,
    Nullability,
    Schema,
    check_name,
    find_column,
    find_table,
    incomplete,
)
from contraflow.operations.gathering import Plans, TablePlan, stem
from contraflow.operations.held import Holder, names_of
from contraflow.operations.nullability import change_nullability
from contraflow.problems import Problem, ProblemError
from contraflow.steps import Block, ChangeKey, NumberColumn, Online, ProveReferences

__all__ = [
    "AddPrimaryKey",
    "AddSurrogateKey",
    "DropPrimaryKey",
    "change_key",
    "key_blocks",
    "key_change",
    "key_index",
    "key_problems",
    "lost_key",
    "moving_problems",
    "number_blocks",
    "number_end",
    "numbered",
    "plain_columns",
]


@dataclass(frozen=True, kw_only=True)
class AddPrimaryKey:
    """Give the table a primary key, over columns that are there or that the same upgrade adds.

    The table has none, or the same change drops the one that it has (:class:`DropPrimaryKey`, before this). Until
    contract the old release may write rows that are alike under the new key, or hold a NULL there: ``verify`` shows
    them (``CF014``, ``CF013``), and the new release must not count on the key before. ``contract`` proves NOT NULL
    and builds the key beside the writers, before it drops anything.

    ``name`` is the constraint's, where the server keeps one (PostgreSQL, SQLite); without it ``<table>_pkey``, or
    another one while an old key has that. Foreign keys that refer to an old key's columns go on doing so: for them
    these columns must stay unique (``CF111``), by an ``AddUnique`` in the same change. A table that the same upgrade
    creates is created with the key.
    """

    table: str
    columns: Sequence[str]
    name: str | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise incomplete(
                f"the primary key of {self.table} names no column, or one twice.",
                "name each column once: columns=[...].",
            )
        check_name(
            f"the primary key of {self.table}",
            self.name,
            instead="choose one that every server keeps whole, or leave it out.",
        )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        for column in self.columns:
            find_column(schema, table, column)
        return Fragment(table=table, key=Key(columns=tuple(self.columns), name=self.name))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddPrimaryKey",
            "table": [self.schema, self.table],
            "columns": list(self.columns),
            "name": self.name,
        }


@dataclass(frozen=True, kw_only=True)
class DropPrimaryKey:
    """Take the primary key away. Until contract it stands, for both releases; its columns stay, and stay NOT NULL.

    With an :class:`AddPrimaryKey` behind it in the same change the table gets another key. Without one, MySQL and
    MariaDB can only copy the table, and writers wait for that long: there it is refused (``CF205``) unless
    ``copies=True`` accepts the wait, which is right for a small table.
    """

    table: str
    copies: bool = False
    schema: str | None = None

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        return Fragment(table=(self.schema, self.table), key=Key(columns=(), copies=self.copies))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropPrimaryKey", "table": [self.schema, self.table], "copies": self.copies}


@dataclass(frozen=True, kw_only=True)
class AddSurrogateKey:
    """Give the table a new column that the server numbers as its primary key; the old key becomes a unique constraint.

    Rows of both releases are numbered from ``expand`` on, those from before by ``migrate``, so the new release knows
    every row by its number; the old one needs not know the column. ``contract`` lets the two keys change places.
    Foreign keys that refer to the old key go on, by the unique constraint. To drop the old key's column, let an
    upgrade after this one do it.

    ``column`` is of an integer type, and may say ``sa.Identity()``; without it PostgreSQL gives the column a sequence
    of its own, as for any integer key that SQLAlchemy declares. ``unique`` names the constraint on the old key's
    columns. ``name`` is the key's own, as for :class:`AddPrimaryKey`.

    MySQL and MariaDB can only number the rows of a table while writers wait, because no trigger knows the number
    before the row is stored: there it is refused (``CF205``) unless ``copies=True`` accepts the wait, at ``expand``,
    which is right for a small table. SQLite makes the table anew at ``expand``, and other writers wait.
    """

    table: str
    column: sa.Column[Any]
    unique: str | None = None
    name: str | None = None
    copies: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        title = f"{self.table}.{self.column.name}"
        identity = self.column.identity
        if not isinstance(self.column.type, sa.types.Integer):
            raise incomplete(f"{title} is to be numbered, and is no integer.", "declare it sa.BigInteger.")
        if self.column.server_default is not None and identity is None:
            raise incomplete(f"{title} is to be numbered, and has a default.", "leave server_default out.")
        options = [] if identity is None else [identity.start, identity.increment, identity.minvalue, identity.maxvalue]
        if any(option not in (None, 1) for option in options):
            raise incomplete(f"{title} is numbered in steps of its own.", "write sa.Identity() without these options.")
        for name in (self.unique, self.name):
            check_name(f"a key of {self.table}", name)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        old = tuple(name for name, column in find_table(schema, table).items() if column.primary_key)
        if bool(old) != bool(self.unique):
            raise incomplete(
                f"the primary key of {self.table} on {', '.join(old)} becomes a unique constraint without a name."
                if old
                else f"{self.table} has no primary key that could become the unique constraint {self.unique}.",
                'name it: AddSurrogateKey(..., unique="...").' if old else "leave unique= out.",
            )
        # Plain until contract: what numbers it is put on it apart.
        plain = sa.Column(self.column.name, self.column.type, nullable=True, comment=self.column.comment)
        key = Key(columns=(plain.name,), name=self.name, copies=self.copies, replaces=True, number=self.column)
        build = (Index(name=self.unique, columns=old, unique=True, constraint=True),) if old else ()
        return Fragment(table=table, add=(plain,), build=build, key=key)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddSurrogateKey",
            "table": [self.schema, self.table],
            "column": [self.column.name, repr(self.column.type), _identity(self.column)],
            "unique": self.unique,
            "name": self.name,
            "copies": self.copies,
        }


def _identity(column: sa.Column[Any]) -> str:
    if column.identity is None:
        return ""
    return "ALWAYS" if column.identity.always else "BY DEFAULT"


def numbered(found: TablePlan) -> Numbered | None:
    """The new column that the server numbers; None without one."""
    if found.key is None or found.key.number is None:
        return None
    column, (schema, table) = found.key.number, found.name
    identity = _identity(column)
    sequence = f"{table}_{column.name}_seq"
    if identity or len(sequence.encode()) > LONGEST_NAME:
        sequence = f"{stem((schema, table))}_n"
    old = _columns(found)
    return Numbered(
        column=column.name,
        identity=identity,
        sequence=sequence,
        index=f"{stem((schema, table))}_n",
        unique=next((str(index.name) for index in found.build if index.unique and index.columns == old), ""),
        copies=found.key.copies,
    )


def plain_columns(found: TablePlan) -> tuple[sa.Column[Any], ...]:
    """The new columns without the one that the server numbers."""
    one = numbered(found)
    return tuple(column for column in found.added if one is None or column.name != one.column)


def number_blocks(found: TablePlan, stage: Literal["add", "fill"]) -> Iterator[Block]:
    """A stage of the column that the server numbers, if there is one."""
    one, change = numbered(found), key_change(found)
    if one is None or change is None:
        return
    schema, table = found.name
    step = NumberColumn(
        stage=stage, table=table, schema=schema, numbered=one, key=change, column=found.columns[one.column]
    )
    title = f"{'add' if stage == 'add' else 'number'} {table}.{one.column}"
    yield Online(title=title, table=table, schema=schema, step=step)


def number_end(found: Installed) -> Iterator[Block]:
    """What rollback does with the column that the server numbers, before anything else of the table."""
    if found.numbered and found.key:
        where: dict[str, Any] = {"table": found.table, "schema": found.schema}
        step = NumberColumn(stage="undo", **where, numbered=found.numbered, key=found.key)
        yield Online(title=f"drop {found.table}.{found.numbered.column}", step=step, **where)


def change_key(found: TablePlan, wish: Key) -> None:
    """What the wish means for the table while operations are gathered.

    Raises ``CF116`` where a key would be added to the one that stands, ``CF101`` where there is none to be dropped.
    """
    table = found.name[1]
    if found.created and (wish.number is not None or wish.retires):
        raise incomplete(
            f"{table} would get a key that is filled, in the upgrade that creates the table.",
            "declare the key with the table: sa.Column(..., primary_key=True).",
        )
    stands = found.key.columns if found.key is not None else _columns(found)
    if wish.columns and stands and not wish.replaces:
        raise incomplete(
            f"{table} has a primary key already, on {', '.join(stands)}.",
            f'drop it in the same change, before the new one: DropPrimaryKey(table="{table}").',
        )
    if not wish.columns and not stands:
        raise ProblemError(
            Problem(code="CF101", what=f"table {table} has no primary key.", instead="leave DropPrimaryKey out.")
        )
    found.key = wish
    if found.created:
        return  # it is declared with the key
    computed = {name for lens, _ in found.lenses for name in lens.new}
    for name in wish.columns:
        if not found.columns[name].nullable:
            continue
        change = Nullability(column=name, nullable=False)
        if name in found.original or name in computed:
            change_nullability(found, change)
        else:
            found.nullability[name] = change  # only the new release writes it, and nobody looks for its NULLs else


def _columns(found: TablePlan) -> tuple[str, ...]:
    return tuple(column.name for column in found.table.primary_key.columns)


def _held(found: TablePlan) -> Holder | None:
    return next((holder for holder in found.holders if holder.kind == "primary key"), None)


def key_change(found: TablePlan) -> KeyChange | None:
    """The table's other primary key; None if it keeps the one it has."""
    if found.key is None or found.key.columns == _columns(found):
        return None
    held = _held(found)
    return KeyChange(
        old=_columns(found),
        old_name=held.name if held else None,
        new=found.key.columns,
        name=(found.key.name or _free_name(found)) if found.key.columns else "",
        copies=found.key.copies,
        retires=found.key.retires,
    )


def _free_name(found: TablePlan) -> str:
    """A name that PostgreSQL would give, or one like it where the old key has that."""
    held = _held(found)
    table = found.name[1]
    for name in (f"{table}_pkey", f"{table}_{'_'.join(found.key.columns if found.key else ())}_pkey"):
        if len(name.encode()) <= LONGEST_NAME and (held is None or held.name != name):
            return name
    return (
        f"cf_{hashlib.sha256('.'.join((table, *(found.key.columns if found.key else ()))).encode()).hexdigest()[:16]}"
    )


def key_index(found: TablePlan) -> tuple[Index, ...]:
    """The new key as an index that is built: at contract, when the old release cannot violate it any more."""
    change = key_change(found)
    if change is None or not change.new:
        return ()
    if change.retires:
        return (_bearer(change),)
    # What the server numbers is unique from the start, whoever writes.
    late = found.key is None or found.key.number is None
    return (Index(name=change.name, columns=change.new, unique=True, late=late, primary=True),)


def _bearer(change: KeyChange) -> Index:
    """What foreign keys stand on until their columns are the primary key."""
    return Index(name=change.name, columns=change.new, unique=True)


def key_blocks(found: Installed) -> Iterator[Block]:
    """What changes the key: at contract, before columns, indexes or the sync of its table go."""
    change = found.key
    if change is None:
        return
    where: dict[str, Any] = {"table": found.table, "schema": found.schema}
    named = f"make {', '.join(change.new)} the primary key" if change.new else "drop the primary key"
    doubles = tuple(index for index in found.replaced if index.unique and index.columns == change.new)
    if found.numbered:
        doubles = (*doubles, Index(name=found.numbered.index, columns=change.new, unique=True))
    if change.retires:
        doubles = (*doubles, _bearer(change))
    step = ChangeKey(**where, key=change, doubles=doubles)
    yield Online(title=f"{named} of {found.table}", step=step, **where)
    if change.old and not change.retires:
        prove = ProveReferences(**where, columns=change.old)
        yield Online(title=f"prove the foreign keys that refer to {found.table}", step=prove, **where)


def moving_problems(plans: Plans) -> Iterator[Problem]:
    """``CF116`` for a table whose key changes while columns move to or from it, or come to refer to rows."""
    for what, pairs in (
        ("has columns that move to or from another one", [both for _, *both in plans.moves]),
        ("has rows that come to or from another one", [both for _, *both in plans.parts]),
        (
            "comes to refer to another one, or the other way round",
            [both for wish, *both in plans.refers if not wish.fills],
        ),
    ):
        for found in (found for both in pairs for found in both):
            if key_change(found) is not None:
                yield _beside(found, what)


def _is_numbered(found: TablePlan) -> bool:
    return found.key is not None and found.key.number is not None


def _beside(found: TablePlan, what: str) -> Problem:
    return Problem(
        code="CF116",
        what=f"the primary key of {found.name[1]} changes in an upgrade in which the table {what}.",
        why="rows are found by the key meanwhile.",
        instead="declare the key with the table: sa.Column(..., primary_key=True)."
        if found.created
        else "change the key in an upgrade of its own.",
    )


def key_problems(found: TablePlan) -> Iterator[Problem]:
    """``CF116`` for a key that changes beside what would count on it."""
    change = key_change(found)
    if change is None:
        return
    table = found.name[1]
    if change.name in names_of(found.holders) | {made.name for made in (*found.build, *found.constrain)}:
        yield Problem(
            code="CF117",
            what=f"table {table} has an index or constraint {change.name} already.",
            why="both releases' indexes stand side by side until contract.",
            instead="choose another name for the new one: AddPrimaryKey(..., name=...).",
        )
    others = [
        ("gets another name", bool(found.renamed)),
        ("has columns of a wider type", bool(found.widened)),
        ("has columns that only Python computes", bool(found.opaque)),
        ("has columns that are copied from others", bool(found.copied)),
        ("gets or loses other columns", _is_numbered(found) and bool(found.dropped or plain_columns(found))),
    ]
    for what, is_so in others:
        if is_so:
            yield _beside(found, what)
    yield from lost_key(found)


def lost_key(found: TablePlan) -> Iterator[Problem]:
    """``CF111`` for a column that goes although the upgrade's own key stands on it."""
    wanted = found.key.columns if found.key is not None else ()
    if gone := [name for name in wanted if name not in found.columns]:
        yield Problem(
            code="CF111",
            what=f"{found.name[1]}.{gone[0]} cannot be dropped: the primary key that this upgrade makes stands on it.",
            why="the new release would not have the key.",
            instead="drop it in the later change, and make one over the new columns.",
        )
