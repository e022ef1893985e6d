"""Operations on the foreign keys, checks and exclusion constraints of one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from contraflow import expressions
from contraflow.constraints import Exclusion, ForeignKey
from contraflow.lens import Row
from contraflow.operations.base import (
    Condition,
    Fragment,
    Release,
    Schema,
    check_name,
    find_column,
    find_table,
    incomplete,
    sql_text,
)
from contraflow.operations.held import names_column
from contraflow.operations.mending import Values, described_repair, repair_of

__all__ = ["AddCheck", "AddExclusion", "AddForeignKey", "DropCheck", "DropExclusion", "DropForeignKey"]

Action = Literal["CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT", "NO ACTION"]
_ACTIONS = ("CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT", "NO ACTION")


@dataclass(frozen=True, kw_only=True)
class AddForeignKey:
    """Make ``columns`` refer to ``target_columns`` of the table ``target``, which must be unique there.

    Where an old foreign key with the same target and the same actions stands on the columns of which these are copies
    (the column is renamed), or where the old release does not write one of them at all, it is built at the end of
    ``migrate``. Else a write of the old release could be refused because of it, so it is checked by ``verify``
    (``CF016`` shows the rows that refer to nothing) and built by ``contract``.

    ``ondelete`` and ``onupdate`` are in SQL's words. ``deferrable`` and ``deferred`` (INITIALLY DEFERRED) exist on
    PostgreSQL and SQLite; elsewhere they are refused (``CF205``), and so is ``SET DEFAULT`` on MySQL and MariaDB.

    ``repair={"group_id": lambda row: None}`` says what one column gets in rows that refer to nothing, over ``columns``
    and ``reads``: then ``verify`` lets them pass, and ``contract`` writes that, when the old release is gone, before it
    builds the key. The table needs a primary key for it, and the key may not refer to its own table.
    """

    table: str
    name: str
    columns: Sequence[str]
    target: str
    target_columns: Sequence[str]
    schema: str | None = None
    target_schema: str | None = None
    ondelete: Action | None = None
    onupdate: Action | None = None
    deferrable: bool = False
    deferred: bool = False
    repair: Values | None = None
    reads: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "target_columns", tuple(self.target_columns))
        object.__setattr__(self, "reads", tuple(self.reads))
        repair_of(self.name, (None, ""), None, self.repair, self._read)
        check_name(f"a constraint of {self.table}", self.name)
        _check_columns(f"the foreign key {self.name} of {self.table}", self.columns)
        if len(self.columns) != len(self.target_columns):
            raise incomplete(
                f"{self.name} refers from {len(self.columns)} columns to {len(self.target_columns)}.",
                "name as many target_columns as columns, in the same order.",
            )
        for action in (self.ondelete, self.onupdate):
            if action not in (None, *_ACTIONS):
                raise incomplete(f"{action!r} is no action of a foreign key.", f"write one of {', '.join(_ACTIONS)}.")
        if self.deferred and not self.deferrable:
            raise incomplete(f"{self.name} is deferred, but not deferrable.", "write deferrable=True as well.")

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        for column in self.columns:
            find_column(schema, table, column)
        if (self.target_schema, self.target) in schema:
            for column in self.target_columns:
                find_column(schema, (self.target_schema, self.target), column)
        repair = repair_of(self.name, table, schema, self.repair, self._read)
        return Fragment(table=table, constrain=(self._key(),), repair=repair)

    @property
    def _read(self) -> tuple[str, ...]:
        return (*self.columns, *self.reads)

    def _key(self) -> ForeignKey:
        return ForeignKey(
            name=self.name,
            columns=tuple(self.columns),
            target=self.target,
            target_schema=self.target_schema,
            target_columns=tuple(self.target_columns),
            ondelete=None if self.ondelete == "NO ACTION" else self.ondelete,
            onupdate=None if self.onupdate == "NO ACTION" else self.onupdate,
            deferrable=self.deferrable,
            deferred=self.deferred,
        )

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddForeignKey",
            "table": [self.schema, self.table],
            **self._key().as_dict(),
            **described_repair(self.name, self.repair, self._read),
        }


@dataclass(frozen=True, kw_only=True)
class DropForeignKey:
    """Drop the foreign keys on exactly these columns, in their order. Until contract they stand, for both releases.

    Their names need not be known. The index that MySQL and MariaDB made for such a key by themselves goes with it.
    """

    table: str
    columns: Sequence[str]
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_columns(f"a foreign key of {self.table}", self.columns)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        wish = Release(kind=ForeignKey.kind, columns=tuple(self.columns))
        return Fragment(table=(self.schema, self.table), unconstrain=(wish,))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropForeignKey", "table": [self.schema, self.table], "columns": list(self.columns)}


@dataclass(frozen=True, kw_only=True)
class AddCheck:
    """Refuse rows for which ``condition`` is false; as everywhere in SQL, a NULL is not false.

    ``condition`` gets a row with the ``columns`` that it reads, and gives an expression in the language of lenses::

        AddCheck(table="users", name="ck_users_age", columns=["age"], condition=lambda row: row.age >= 0)

    A write of the old release could be refused because of it. So ``verify`` checks the rows (``CF016`` shows those
    that violate it) and ``contract`` builds it, unless the old release writes none of the columns: then it is built at
    the end of ``migrate``.

    MySQL and MariaDB cannot add a check without copying the table, and writers wait for that long. There it is refused
    (``CF205``) unless ``copies=True`` accepts the wait, which is right for a small table.

    ``repair={"age": lambda row: 0}`` says what one column gets in rows for which it is false, over ``columns`` and
    ``reads``: then ``verify`` lets them pass, and ``contract`` writes that, when the old release is gone, before it
    builds the check. The table needs a primary key for it.
    """

    table: str
    name: str
    columns: Sequence[str]
    condition: Callable[[Row], Any]
    copies: bool = False
    schema: str | None = None
    repair: Values | None = None
    reads: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "reads", tuple(self.reads))
        repair_of(self.name, (None, ""), None, self.repair, self._read)
        check_name(f"a constraint of {self.table}", self.name)
        _check_columns(f"the check {self.name} of {self.table}", self.columns)
        found = self._expression(Row({name: expressions.Ref(name) for name in self.columns}))
        if not expressions.is_deterministic(found):
            raise incomplete(
                f"the condition of {self.name} does not always give the same for the same row.",
                "compare with a column or a literal, not with the present time.",
            )

    def _expression(self, row: Row) -> Any:
        try:
            return expressions.validate(self.condition(row))
        except (TypeError, ValueError) as error:
            raise incomplete(
                f"the condition of {self.name} raises {type(error).__name__}: {error}.",
                "it is called once, with columns instead of values, and must return an expression over them.",
            ) from error

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        row = Row({name: expressions.Ref(name, find_column(schema, table, name).type) for name in self.columns})
        condition = Condition(
            name=self.name, columns=tuple(self.columns), expression=self._expression(row), copies=self.copies
        )
        repair = repair_of(self.name, table, schema, self.repair, self._read)
        return Fragment(table=table, constrain=(condition,), repair=repair)

    @property
    def _read(self) -> tuple[str, ...]:
        return (*self.columns, *self.reads)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        row = Row({name: expressions.Ref(name) for name in self.columns})
        return {
            "operation": "AddCheck",
            "table": [self.schema, self.table],
            "name": self.name,
            "columns": list(self.columns),
            "condition": expressions.describe(self._expression(row)),
            "copies": self.copies,
            **described_repair(self.name, self.repair, self._read),
        }


@dataclass(frozen=True, kw_only=True)
class DropCheck:
    """Drop a check constraint, told by its name, or by all the columns that it reads where it has none (SQLite).

    Until contract it stands, for both releases.
    """

    table: str
    name: str | None = None
    columns: Sequence[str] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if (self.name is None) == (not self.columns):
            raise incomplete(f"DropCheck of {self.table} needs a name, or columns.", "give one of the two.")

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        wish = Release(kind="check constraint", name=self.name, columns=tuple(self.columns))
        return Fragment(table=(self.schema, self.table), unconstrain=(wish,))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "DropCheck",
            "table": [self.schema, self.table],
            "name": self.name,
            "columns": list(self.columns),
        }


@dataclass(frozen=True, kw_only=True)
class AddExclusion:
    """Refuse a row if for another one all ``elements`` compare true (PostgreSQL's ``EXCLUDE``)::

        AddExclusion(
            table="bookings",
            name="ex_bookings_room",
            elements=[("room_id", "="), (sa.text("tsrange(starts_at, ends_at)"), "&&")],
            where=sa.text("NOT cancelled"),
            blocks=True,
        )

    Each element is a column, or SQL in the server's own words, and the operator that compares it. ``using`` is the
    index's access method; with ``gist``, ``=`` over plain types needs the extension ``btree_gist``.

    A write of the old release could be refused because of it. So ``verify`` compares the rows with each other
    (``CF016`` shows those that another one excludes) and ``contract`` makes it, unless the old release does not write
    one of the columns that are compared: then it is made at the end of ``migrate``.

    PostgreSQL builds its index while readers and writers wait (``ALTER TABLE``: there is neither ``CONCURRENTLY`` nor
    ``NOT VALID`` for it): it is refused (``CF205``) unless ``blocks=True`` accepts that, which is right for a small
    table. Other servers have no such constraints, and refuse it.
    """

    table: str
    name: str
    elements: Sequence[tuple[str | sa.TextClause, str]]
    using: str = "gist"
    where: sa.TextClause | None = None
    blocks: bool = False
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple((one, operator) for one, operator in self.elements))
        check_name(f"a constraint of {self.table}", self.name)
        if not self.elements:
            raise incomplete(f"{self.name} compares nothing.", 'name what must differ: elements=[("room_id", "=")].')
        for word in (*(operator for _, operator in self.elements), self.using):
            if not re.fullmatch(r"[-+*/<>=~!@#%^&|`?]+|\w+", word):
                raise incomplete(f"{word!r} of {self.name} is no operator, or no access method.", 'write "=", "&&".')
        self._made(())

    def _made(self, known: Sequence[str]) -> Exclusion:
        title = f"the exclusion constraint {self.name}"
        elements = tuple(
            (one if isinstance(one, str) else sql_text(title, one), operator) for one, operator in self.elements
        )
        where = "" if self.where is None else sql_text(title, self.where)
        plain = [one for one, _ in self.elements if isinstance(one, str)]
        texts = [where, *(one for one, _ in elements if one not in plain)]
        read = [name for name in known if name not in plain and any(names_column(text, name) for text in texts)]
        return Exclusion(
            name=self.name,
            columns=tuple(dict.fromkeys([*plain, *read])),
            using=self.using,
            elements=elements,
            where=where,
            blocks=self.blocks,
        )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        for one, _ in self.elements:
            if isinstance(one, str):
                find_column(schema, table, one)
        return Fragment(table=table, constrain=(self._made(tuple(find_table(schema, table))),))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "AddExclusion", "table": [self.schema, self.table], **self._made(()).as_dict()}


@dataclass(frozen=True, kw_only=True)
class DropExclusion:
    """Drop an exclusion constraint, told by its name. Until contract it stands, for both releases."""

    table: str
    name: str
    schema: str | None = None

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        wish = Release(kind=Exclusion.kind, name=self.name)
        return Fragment(table=(self.schema, self.table), unconstrain=(wish,))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropExclusion", "table": [self.schema, self.table], "name": self.name}


def _check_columns(title: str, columns: Sequence[str]) -> None:
    if not columns or len(set(columns)) < len(columns):
        raise incomplete(f"{title} names no column, or one twice.", "name each column once: columns=[...].")
