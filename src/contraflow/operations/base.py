"""What every operation promises. Operations are blind to dialects: they plan, the engine does."""

from __future__ import annotations

import decimal
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import sqlalchemy as sa

from contraflow.constraints import Exclusion, ForeignKey
from contraflow.copies import Source
from contraflow.installed import Comment, Index, Labels
from contraflow.lens import Lens
from contraflow.opaque import Opaque
from contraflow.problems import Problem, ProblemError

__all__ = [
    "LONGEST_NAME",
    "Condition",
    "Copying",
    "Fragment",
    "Key",
    "Move",
    "Nullability",
    "Operation",
    "Part",
    "Refer",
    "Release",
    "Repair",
    "Schema",
    "TableName",
    "check_comment",
    "check_name",
    "constant_default",
    "contradiction",
    "default_text",
    "find_column",
    "find_table",
    "incomplete",
    "referred",
    "sql_text",
]

LONGEST_NAME = 63
"""Bytes. PostgreSQL cuts a longer name silently (Identifiers, NAMEDATALEN); MySQL and MariaDB refuse 65 characters."""
TableName: TypeAlias = "tuple[str | None, str]"
"""Schema (None: the connection's own) and name."""
Schema: TypeAlias = Mapping[TableName, Mapping[str, "sa.Column[Any]"]]
"""The columns of each table as the operations so far leave them."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A check that the new release has; planning gets its text from the server's own words."""

    name: str
    columns: tuple[str, ...]
    expression: Any
    """In the language of lenses, over columns with their types."""
    copies: bool = False
    """See :attr:`contraflow.constraints.Check.copies`."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """Which foreign keys (by their columns) or check (by name, else by its columns) an operation takes away."""

    kind: str
    name: str | None = None
    columns: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The wish in words."""
        return f"{self.kind} {self.name}" if self.name else f"{self.kind} on {', '.join(self.columns)}"


@dataclass(frozen=True, kw_only=True)
class Move:
    """Columns of one table that become columns of another one's row."""

    to: TableName
    on: Mapping[str, str]
    """Columns by which a row finds its row in the other table."""
    columns: Mapping[str, str]
    """The columns, with their names in the other table."""
    missing: Mapping[str, Any]
    """What a column of the main table holds while there is no row in the other table."""


@dataclass(frozen=True, kw_only=True)
class Copying:
    """A new column that follows columns of other tables."""

    column: str
    sources: tuple[Source, ...]
    winner: Literal["old", "new"]
    scans: bool


@dataclass(frozen=True, kw_only=True)
class Refer:
    """A new column that refers to a row of another table."""

    to: TableName
    key: str
    """The other table's column whose value it holds."""
    column: str
    columns: Mapping[str, str]
    """Columns that tell which row, with their names in the other table."""
    nulls: frozenset[str] = frozenset()
    """Those of them whose NULL matches NULL."""
    where: tuple[str, ...] = ()
    """Columns of the other table that hold a constant in that row."""
    given: tuple[str, ...] = ()
    """Further ones that a row gets which is made."""
    creates: bool
    """A row that is not there is made."""
    follows: bool = False
    """The old columns and the new one say the same, so both follow the other table's row."""
    scans: bool = False
    """Rows that refer may be looked for in the whole table."""
    fills: bool = False
    """The key is a new column of the other table; see :attr:`contraflow.references.Reference.fills`."""
    clears: bool = False
    """See :attr:`contraflow.references.Reference.clears`."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one table, ``whole``, that are those of another one, ``part``, in the other release."""

    whole: TableName
    part: TableName
    old: Literal["whole", "part"]
    """Which of the two is the old release's."""
    where: Any
    """Which rows: an expression over columns of the whole table that is never NULL; None for all."""
    reads: tuple[str, ...]
    """Its columns."""
    values: Mapping[str, Any]
    """What columns of the whole table hold for rows of this part, which does not have them."""
    stays: bool
    """The old table may stay beside the new one."""


@dataclass(frozen=True, kw_only=True)
class Nullability:
    """A column that may hold NULLs in one release, and not in the other."""

    column: str
    nullable: bool
    """In the new release."""
    value: Any = None
    """What is written into NULLs where they may not stand: an expression in the language of lenses, or None."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """The primary key that the new release has."""

    columns: tuple[str, ...]
    """Empty for none."""
    name: str | None = None
    copies: bool = False
    """See :attr:`contraflow.installed.KeyChange.copies`."""
    replaces: bool = False
    """Whatever key the table has."""
    number: sa.Column[Any] | None = None
    """The new column of which it consists, to be numbered by the server."""
    retires: bool = False
    """See :attr:`contraflow.installed.KeyChange.retires`."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What is written into a column of the rows that violate a constraint."""

    of: str
    """The constraint's name."""
    column: str
    value: Any
    """In the language of lenses."""


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """What one operation means for one table."""

    table: TableName
    add: tuple[sa.Column[Any], ...] = ()
    """New columns in their final shape."""
    drop: tuple[str, ...] = ()
    """Columns the new release no longer knows."""
    lens: Lens | None = None
    once: frozenset[str] = field(default=frozenset())
    """Columns of the lens that are filled when a row is inserted or first synced, and then left to their writers."""
    build: tuple[Index, ...] = ()
    """Indexes and unique constraints the new release has."""
    release: tuple[Index, ...] = ()
    """Those it no longer has: named, or told by their columns."""
    widen: tuple[sa.Column[Any], ...] = ()
    """Columns that get a wider type under their own name, in their final shape."""
    extend: tuple[Labels, ...] = ()
    """Values that enumerated types get."""
    opaque: Opaque | None = None
    replans: bool = False
    """The application runs a statement again whose prepared plan does not fit a widened column any more."""
    move: Move | None = None
    """Where dropped columns go."""
    parts: tuple[Part, ...] = ()
    """Whose rows live in other tables."""
    copying: Copying | None = None
    """Where an added column's values come from."""
    refer: Refer | None = None
    """What a new column refers to."""
    redefault: tuple[tuple[sa.Column[Any], bool], ...] = ()
    """Columns that get another default under their own name, in their final shape; whether not before contract."""
    comment: Comment | None = None
    """Another comment of the table, or of a column."""
    create: sa.Table | None = None
    """The table itself is new."""
    rename: str | None = None
    """The new release's name of the table."""
    remove: bool = False
    """The new release does not know the table."""
    restricts: bool = False
    """Foreign keys of a table that only one release knows may refuse what the other one deletes."""
    constrain: tuple[ForeignKey | Condition | Exclusion, ...] = ()
    """Foreign keys and checks the new release has."""
    unconstrain: tuple[Release, ...] = ()
    """Those it no longer has."""
    nullability: Nullability | None = None
    repair: tuple[Repair, ...] = ()
    """For rows that violate what is built or constrained."""
    key: Key | None = None
    """Another primary key than the one that stands."""
    then: tuple[Fragment, ...] = ()
    """What the operation means besides, for this table or others, in this order."""


@runtime_checkable
class Operation(Protocol):
    """One schema evolution: a frozen keyword-only dataclass with one pure method."""

    @property
    def table(self) -> str:
        """The table it evolves."""
        ...

    @property
    def schema(self) -> str | None:
        """The table's schema; None for the connection's own."""
        ...

    def plan(self, schema: Schema) -> Fragment:
        """What the operation means for ``schema``, the columns as earlier operations leave them.

        No I/O, no SQL text. Raises :class:`~contraflow.problems.ProblemError` if it cannot be done.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The declaration as plain data, stable for equal declarations."""
        ...


def incomplete(what: str, instead: str) -> ProblemError:
    """``CF116``: a declaration that lacks something, or contradicts itself."""
    return ProblemError(Problem(code="CF116", what=what, instead=instead))


def contradiction(what: str, why: str, instead: str) -> Problem:
    """``CF116``: declarations that contradict each other, or what is there."""
    return Problem(code="CF116", what=what, why=why, instead=instead)


def check_name(of: str, name: str | None, instead: str = "choose one that every server keeps whole.") -> None:
    """Refuse a name that a server would cut or not take; None is not one.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116``. ``of`` says what is named.
    """
    if name is not None and not 0 < len(name.encode()) <= LONGEST_NAME:
        raise incomplete(f"the name {name!r} of {of} is empty or longer than {LONGEST_NAME} bytes.", instead)


def check_comment(of: str, comment: str | None) -> None:
    """Refuse a comment that no server stores as it is; None is not one.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116``. ``of`` says what it is about.
    """
    if comment is not None and "\0" in comment:
        raise incomplete(f"the comment of {of} has a NUL character in it.", "leave it out.")


def find_table(schema: Schema, table: TableName) -> Mapping[str, sa.Column[Any]]:
    """The table's columns. Raises ``CF101`` if there is no such table."""
    if table not in schema:
        name = f"{table[0]}.{table[1]}" if table[0] else table[1]
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"there is no table {name}.",
                instead="check the table's name (and schema=) in the revision, and the database the URL points to.",
            )
        )
    return schema[table]


def find_column(schema: Schema, table: TableName, name: str) -> sa.Column[Any]:
    """The column. Raises ``CF101`` if there is no such table or column."""
    columns = find_table(schema, table)
    if name not in columns:
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"table {table[1]} has no column {name}.",
                instead=f"its columns are: {', '.join(columns)}.",
            )
        )
    return columns[name]


def referred(key: sa.ForeignKeyConstraint) -> tuple[TableName, tuple[str, ...]]:
    """The table that the key refers to, which need not be known, and its columns there, in the key's order."""
    if hasattr(sa.ForeignKey, "target_tokens"):
        targets = [element.target_tokens for element in key.elements]
        return targets[0][:2], tuple(str(target.column_name) for target in targets)
    # Before SQLAlchemy 2.1 there is one text only, in which a dot of a name cannot be told from the one before a name.
    places = [element.target_fullname.rpartition(".") for element in key.elements]
    schema, _, name = places[0][0].rpartition(".")
    return (schema or None, name), tuple(column for _, _, column in places)


def sql_text(title: str, text: sa.TextClause) -> str:
    """The SQL that ``sa.text`` holds, as it is sent. Raises ``CF116`` if it is none, or has parameters."""
    if not isinstance(text, sa.TextClause) or not text.text.strip():
        raise incomplete(
            f"{title} has an expression that is no SQL text.", 'write it as a query has it: sa.text("...").'
        )
    if text._bindparams:  # noqa: SLF001 - the only place that tells
        raise incomplete(
            f"{title} has an expression with a parameter (:{min(text._bindparams)}).",  # noqa: SLF001
            "write the value itself, and a colon that is meant as \\:.",
        )
    return text.text.replace("\\:", ":").strip()


def default_text(column: sa.Column[Any]) -> str | None:
    """The SQL text of the column's server default, None if it has none."""
    if column.identity is not None or column.computed is not None:
        return None
    argument = getattr(column.server_default, "arg", None)
    if argument is None:
        return None
    if isinstance(argument, str):
        quoted = argument.replace("'", "''")
        return f"'{quoted}'"
    if isinstance(argument, sa.sql.elements.TextClause):
        return argument.text
    return str(argument.compile(compile_kwargs={"literal_binds": True}))


def constant_default(column: sa.Column[Any]) -> tuple[bool, Any]:
    """Whether the column's server default is a constant, and its Python value."""
    text = default_text(column)
    if text is None:
        return False, None
    bare = text.strip()
    while bare.startswith("(") and bare.endswith(")"):
        bare = bare[1:-1].strip()
    value: Any
    if match := re.fullmatch(r"(?:_utf8mb4)?'((?:[^']|'')*)'(?:::[\w\s\".()\[\]]+)?", bare):
        value = match[1].replace("''", "'")
    elif match := re.fullmatch(r"([+-]?\d+(?:\.\d+)?)(?:::\w+)?", bare):
        value = match[1]
    elif bare.lower() in ("true", "false"):
        return True, bare.lower() == "true"
    else:
        return False, None
    try:
        if isinstance(column.type, sa.types.Boolean):
            value = value.lower() in ("1", "t", "true")
        elif isinstance(column.type, sa.types.Integer):
            value = int(value)
        elif isinstance(column.type, sa.types.Numeric):
            value = decimal.Decimal(value)
    except (ValueError, decimal.InvalidOperation):
        return False, None
    return True, value
