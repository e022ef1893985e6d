"""Rows that refer to rows of another table: by natural key before, by key after; and rows that are made for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from contraflow import expressions
from contraflow.expressions.trees import Lookup, Made, Match, NewUuid
from contraflow.lens import Lens, Row, Side
from contraflow.operations.base import (
    Fragment,
    Refer,
    Schema,
    TableName,
    contradiction,
    default_text,
    find_column,
    find_table,
    incomplete,
)
from contraflow.problems import Problem, ProblemError

__all__ = ["AddCompanion", "ReferColumns"]

Value = Callable[[Row], Any]


@dataclass(frozen=True, kw_only=True)
class ReferColumns:
    """Let rows refer to rows of another table by its key, instead of repeating its natural key.

    ``columns`` are the columns of ``table`` that go, each with the column of ``to`` that it repeats: these are a unique
    key of ``to``. ``column`` is the new column of ``table``, of the type of ``key``, the column of ``to`` by which its
    rows are known from now on.

    What the old release writes into ``columns`` is looked up in ``to``; what the new one writes into ``column`` is
    looked up there by ``key``. Values are alike if they are to the unique key of ``to``, in its collation; NULL is like
    NULL where both tables allow it, but a row with nothing but NULLs refers to nothing. When a row of ``to`` changes
    its key or natural key, the rows that refer to it follow, in both shapes; when it is deleted, they refer to nothing.

    With ``create`` a row that is not there is made, at the moment when the old release (or the backfill) refers to it:
    that extracts a look-up table from columns. ``to`` may then be made by a ``CreateTable`` before it in the same
    upgrade. ``values`` says what its other columns get: a value, a function of the row's ``columns``, or ``NewUuid()``.
    Columns that are not named get what the server gives them. A row of ``to`` stays when nobody refers to it any more.

    Without it, ``column`` of a row that refers to no row of ``to`` is NULL, until there is one.

    What ``columns`` hold is lost at contract where ``to`` has nothing, or something alike that is not the same ('ulm'
    and 'Ulm', in many collations). Such rows are refused, before the upgrade and at contract: ``lossy`` accepts it.

    Rows of ``table`` are looked for by ``column`` when a row of ``to`` changes, and by ``columns`` when one comes:
    without indexes that begin so, ``scans`` must say that the table may be read as a whole.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if the declaration contradicts itself.
    """

    table: str
    columns: Mapping[str, str]
    column: sa.Column[Any]
    to: str
    key: str
    create: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    lossy: bool = False
    scans: bool = False
    schema: str | None = None
    winner: Side = "new"
    omitted: Side | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "values", dict(self.values))
        if not self.columns:
            raise incomplete(f"ReferColumns of {self.table} names no columns.", "name at least one in columns=.")
        if self.values and not self.create:
            raise incomplete(f"ReferColumns of {self.table} has values=, and makes no rows.", "say create=True.")

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table, to = (self.schema, self.table), (self.schema, self.to)
        mine = {name: find_column(schema, table, name) for name in self.columns}
        theirs = {name: find_column(schema, to, there) for name, there in self.columns.items()}
        key = find_column(schema, to, self.key)
        ProblemError.raise_any(_shape_problems(self, mine, theirs, key))
        nulls = _nulls(mine, theirs)
        made = _made(self.values, tuple(self.columns), find_table(schema, to), to) if self.create else None
        column, columns = self.column.name, self.columns

        def forward(row: Row) -> Mapping[str, Any]:
            matches = tuple(
                Match(name=there, value=row[name], type=theirs[name].type, nulls=name in nulls)
                for name, there in columns.items()
            )
            return {column: _lookup(to, key, matches, None if made is None else made(row))}

        def backward(row: Row) -> Mapping[str, Any]:
            match = Match(name=key.name, value=row[column])
            return {name: _lookup(to, theirs[name], (match,)) for name in columns}

        lens = Lens(
            old=tuple(columns),
            new=(column,),
            forward=forward,
            backward=backward,
            winner=self.winner,
            omitted=self.omitted,
            lossy=self.lossy,
        )
        meant = Refer(
            to=to,
            key=self.key,
            column=column,
            columns=columns,
            nulls=nulls,
            creates=self.create,
            given=tuple(self.values),
            follows=True,
            scans=self.scans,
        )
        return Fragment(table=table, add=(self.column,), drop=tuple(columns), lens=lens, refer=meant)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "ReferColumns",
            "table": [self.schema, self.table],
            "columns": dict(self.columns),
            "column": _describe_column(self.column),
            "to": [self.to, self.key],
            "create": self.create,
            "values": _describe_values(self.values, tuple(self.columns)),
            "lossy": self.lossy,
            "winner": self.winner,
            "omitted": self.omitted,
        }


@dataclass(frozen=True, kw_only=True)
class AddCompanion:
    """Add a column that refers to a row of another table, made for each row that has none.

    ``columns`` are columns of ``table``, which stay, each with the column of ``to`` that holds the same in the row that
    is made; ``where`` are further columns of ``to`` with their values. Together they are a unique key of ``to``: a row
    that is there already is taken, so that neither a second run nor a second runner makes another one. ``values`` says
    what other columns of a row that is made get: a value, a function of the row's ``columns``, or ``NewUuid()``; those
    that are not named get what the server gives them. ``column`` gets the value of ``key``.

    It is filled when the old release inserts a row, or by the backfill, and then left to its writers: the new release
    may refer to any row. A row of ``to`` stays when nobody refers to it any more.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if the declaration contradicts itself.
    """

    table: str
    column: sa.Column[Any]
    to: str
    key: str
    columns: Mapping[str, str]
    where: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    schema: str | None = None

    def __post_init__(self) -> None:
        for name in ("columns", "where", "values"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        if not self.columns:
            raise incomplete(f"AddCompanion of {self.table} names no columns.", "name at least one in columns=.")
        if twice := set(self.where) & set(self.columns.values()):
            raise incomplete(f"AddCompanion of {self.table} matches {min(twice)} twice.", "leave it out of where=.")

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table, to = (self.schema, self.table), (self.schema, self.to)
        mine = {name: find_column(schema, table, name) for name in self.columns}
        theirs = {name: find_column(schema, to, there) for name, there in self.columns.items()}
        for name in self.where:
            find_column(schema, to, name)
        key = find_column(schema, to, self.key)
        ProblemError.raise_any(_made_problems(self.table, self.to, mine, theirs, self.column, key))
        made = _made(self.values, tuple(self.columns), find_table(schema, to), to)
        column, columns, where = self.column.name, self.columns, self.where

        def forward(row: Row) -> Mapping[str, Any]:
            matches = [Match(name=there, value=row[name], type=theirs[name].type) for name, there in columns.items()]
            matches += [Match(name=name, value=expressions.validate(value)) for name, value in where.items()]
            return {column: _lookup(to, key, tuple(matches), made(row))}

        lens = Lens(old=tuple(columns), new=(column,), forward=forward)
        meant = Refer(
            to=to,
            key=self.key,
            column=column,
            columns=columns,
            where=tuple(where),
            creates=True,
            given=tuple(self.values),
        )
        return Fragment(table=table, add=(self.column,), lens=lens, once=frozenset({column}), refer=meant)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddCompanion",
            "table": [self.schema, self.table],
            "column": _describe_column(self.column),
            "to": [self.to, self.key],
            "columns": dict(self.columns),
            "where": {name: repr(value) for name, value in sorted(self.where.items())},
            "values": _describe_values(self.values, tuple(self.columns)),
        }


# --- the lens ---------------------------------------------------------------------------------------------------------


def _lookup(
    to: TableName, column: sa.Column[Any], matches: tuple[Match, ...], made: tuple[Made, ...] | None = None
) -> Lookup:
    schema, table = to
    return Lookup(table=table, schema=schema, column=column.name, type_=column.type, matches=matches, made=made)


def _made(
    values: Mapping[str, Any], names: Sequence[str], columns: Mapping[str, sa.Column[Any]], to: TableName
) -> Callable[[Row], tuple[Made, ...]]:
    """What further columns of a row that is made get, told from the row at hand."""
    if strangers := set(values) - set(columns):
        raise incomplete(f"values= names {min(strangers)}, which {to[1]} does not have.", "name its columns only.")

    def made(row: Row) -> tuple[Made, ...]:
        cells = Row({name: row[name] for name in names})
        return tuple(
            Made(
                name=name,
                value=_value(value, cells),
                type=columns[name].type,
            )
            for name, value in values.items()
        )

    return made


def _value(value: Any, row: Row) -> expressions.Expression | NewUuid:
    return value if isinstance(value, NewUuid) else _expression(value, row)


def _expression(value: Any, row: Row) -> expressions.Expression:
    return expressions.validate(value(row) if callable(value) else value)


def _nulls(mine: Mapping[str, sa.Column[Any]], theirs: Mapping[str, sa.Column[Any]]) -> frozenset[str]:
    """The columns whose NULL finds NULL; not that of a single one, which would refer to nothing by it."""
    if len(mine) == 1:
        return frozenset()
    return frozenset(name for name in mine if mine[name].nullable and theirs[name].nullable)


def _describe_column(column: sa.Column[Any]) -> list[Any]:
    return [column.name, repr(column.type), bool(column.nullable)]


def _describe_values(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    row = Row({name: expressions.Ref(name) for name in names})
    return {
        name: repr(value) if isinstance(value, NewUuid) else expressions.describe(_expression(value, row))
        for name, value in sorted(values.items())
    }


# --- what is wrong with a declaration ---------------------------------------------------------------------------------


def _shape_problems(
    operation: ReferColumns,
    mine: Mapping[str, sa.Column[Any]],
    theirs: Mapping[str, sa.Column[Any]],
    key: sa.Column[Any],
) -> Iterator[Problem]:
    table, to, column = operation.table, operation.to, operation.column
    yield from _type_problems(table, to, mine, theirs, column, key)
    for name, here in mine.items():
        there = theirs[name]
        if there.nullable and not here.nullable:
            yield contradiction(
                f"{to}.{there.name} may be NULL, and {table}.{name} may not.",
                "the old release could not read a row that the new one lets refer to such a row.",
                f"make {table}.{name} nullable (LoosenNotNull), or {to}.{there.name} NOT NULL (TightenNotNull), in an"
                " upgrade before.",
            )
        room, length = getattr(here.type, "length", None), getattr(there.type, "length", None)
        if room is not None and (length is None or length > room):
            yield contradiction(
                f"{to}.{there.name} holds longer texts than {table}.{name}.",
                "the old release's column could not hold what the new release may refer to.",
                f"widen {table}.{name} in an upgrade before (WidenColumn).",
            )
    required = [name for name, here in mine.items() if not here.nullable]
    if column.nullable and required:
        yield contradiction(
            f"{table}.{column.name} may be NULL, and {table}.{required[0]} may not.",
            "the old release could not read a row that the new one lets refer to nothing.",
            f"declare the new column with nullable=False, or make {table}.{required[0]} nullable in an upgrade before.",
        )
    if not column.nullable and not required:
        yield contradiction(
            f"{table}.{column.name} is NOT NULL, and all of {', '.join(mine)} may be NULL.",
            "a row in which they are refers to nothing.",
            "declare the new column with nullable=True, or make one of the others NOT NULL in an upgrade before.",
        )
    if operation.create:
        yield from _made_problems(table, to, mine, theirs, column, key, told=True)


def _type_problems(
    table: str,
    to: str,
    mine: Mapping[str, sa.Column[Any]],
    theirs: Mapping[str, sa.Column[Any]],
    column: sa.Column[Any],
    key: sa.Column[Any],
) -> Iterator[Problem]:
    pairs = [(f"{table}.{name}", here, theirs[name]) for name, here in mine.items()]
    for title, here, there in (*pairs, (f"{table}.{column.name}", column, key)):
        if here.type._type_affinity is not there.type._type_affinity:  # noqa: SLF001 - SQLAlchemy has no other word
            yield contradiction(
                f"{title} is {here.type!r}, and {to}.{there.name} is {there.type!r}.",
                "servers differ in which values of two types are alike.",
                "let both have one type, in an upgrade before.",
            )
    if default_text(column) is not None or column.computed is not None or column.identity is not None:
        yield contradiction(
            f"{table}.{column.name} has a default.",
            "a row that the old release inserts would refer to what the default says.",
            "leave it out; add it in an upgrade after this one (ChangeDefault).",
        )


def _made_problems(
    table: str,
    to: str,
    mine: Mapping[str, sa.Column[Any]],
    theirs: Mapping[str, sa.Column[Any]],
    column: sa.Column[Any],
    key: sa.Column[Any],
    *,
    told: bool = False,
) -> Iterator[Problem]:
    """What keeps each row from having a row made for it."""
    if not told:
        yield from _type_problems(table, to, mine, theirs, column, key)
    nullable = [name for name, here in mine.items() if here.nullable]
    if nullable and (len(mine) > 1 or not column.nullable):
        yield contradiction(
            f"{table}.{nullable[0]} may be NULL: no row of {to} can be told by it.",
            "a row with NULL could be made twice, as NULLs are not alike to a unique key.",
            f"make {table}.{nullable[0]} NOT NULL in an upgrade before (TightenNotNull)"
            + (", or declare the new column with nullable=True." if len(mine) == 1 else "."),
        )
    for name, here in mine.items():
        room, length = getattr(theirs[name].type, "length", None), getattr(here.type, "length", None)
        if room is not None and (length is None or length > room):
            yield contradiction(
                f"{table}.{name} holds longer texts than {to}.{theirs[name].name}.",
                "a write of the old release would be refused.",
                f"widen {to}.{theirs[name].name} in an upgrade before (WidenColumn), or declare it wider.",
            )
