"""Operations on whole tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Check, Constraint, ForeignKey
from contraflow.installed import Index
from contraflow.operations.base import (
    LONGEST_NAME,
    Fragment,
    Key,
    Schema,
    TableName,
    check_comment,
    default_text,
    find_table,
    incomplete,
    referred,
)
from contraflow.operations.held import put_index
from contraflow.problems import Problem, ProblemError

__all__ = ["CreateTable", "DropTable", "RenameTable", "assembled", "describe_table", "name_taken", "references"]


@dataclass(frozen=True, kw_only=True)
class CreateTable:
    """Create a table that only the new release knows, with its constraints and indexes.

    It is created by ``expand``, and dropped by ``rollback`` with all that the new release wrote there. Operations that
    follow in the same upgrade change the declaration, not the table. A foreign key to a table of the old release must
    say what becomes of rows whose parent the old release deletes (``ondelete="CASCADE"``, ``"SET NULL"``): its DELETE
    would be refused otherwise (``CF121``). ``restricts=True`` says that this is meant.
    """

    definition: sa.Table
    """The table: ``sa.Table("orders", sa.MetaData(), sa.Column(...), ...)``. Tables that its foreign keys refer to by
    name need not be in its MetaData."""
    restricts: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.table.encode()) <= LONGEST_NAME:
            raise incomplete(
                f"the table's name {self.table!r} is empty or longer than {LONGEST_NAME} bytes.",
                "choose one that every server keeps whole.",
            )
        if not len(self.definition.columns):
            raise incomplete(f"the table {self.table} has no columns.", "declare them.")
        check_comment(self.table, self.definition.comment)
        for column in self.definition.columns:
            if isinstance(column.type, sa.types.NullType):
                raise incomplete(f"{self.table}.{column.name} has no type.", "give it one, also beside a foreign key.")
            check_comment(f"{self.table}.{column.name}", column.comment)
            if isinstance(column.default, sa.Sequence):
                raise incomplete(
                    f"{self.table}.{column.name} takes its values from a sequence of its own.",
                    "declare it as sa.Identity(), or create the sequence in an earlier revision.",
                )

    @property
    def table(self) -> str:
        """The table's name."""
        return self.definition.name

    @property
    def schema(self) -> str | None:
        """The table's schema; None for the connection's own."""
        return self.definition.schema

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        if table in schema:
            raise name_taken(table)
        return Fragment(table=table, create=self.definition, restricts=self.restricts)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "CreateTable", "restricts": self.restricts, **describe_table(self.definition)}


@dataclass(frozen=True, kw_only=True)
class DropTable:
    """Drop a table that only the old release knows: it stands, for the old release, until ``contract``.

    A foreign key by which the table refers to one that stays would refuse what the new release deletes there, unless it
    says ``ON DELETE CASCADE`` or ``SET NULL`` (``CF121``). ``restricts=True`` says that this is meant. A table that
    others refer to cannot be dropped (``CF111``).
    """

    table: str
    schema: str | None = None
    restricts: bool = False

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        return Fragment(table=(self.schema, self.table), remove=True, restricts=self.restricts)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropTable", "table": [self.schema, self.table], "restricts": self.restricts}


@dataclass(frozen=True, kw_only=True)
class RenameTable:
    """Give a table another name; both releases find it under theirs until ``contract``.

    The new name is a view that every statement goes through (PostgreSQL, MySQL, MariaDB), or a table of its own that
    triggers keep equal (SQLite). ``contract`` gives the table its new name in one moment. Operations that follow use
    the new name. Indexes, constraints and sequences keep theirs.
    """

    table: str
    new: str
    schema: str | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.new.encode()) <= LONGEST_NAME or self.new == self.table:
            raise incomplete(
                f"the new name {self.new!r} of {self.table} is its own, empty or longer than {LONGEST_NAME} bytes.",
                "choose one that every server keeps whole.",
            )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        if (self.schema, self.new) in schema:
            raise name_taken((self.schema, self.new))
        return Fragment(table=(self.schema, self.table), rename=self.new)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "RenameTable", "table": [self.schema, self.table], "new": self.new}


# --- for planning ---


def name_taken(table: TableName) -> ProblemError:
    """``CF120``."""
    name = f"{table[0]}.{table[1]}" if table[0] else table[1]
    return ProblemError(
        Problem(
            code="CF120",
            what=f"the name {name} is taken.",
            why="both releases' tables stand side by side until contract, under one name each.",
            instead="choose another name, or let the other table go in an upgrade before.",
        )
    )


def references(table: sa.Table) -> list[tuple[str, TableName, bool]]:
    """The table's foreign keys: name or columns, the table referred to, and whether it lets go of a deleted row."""
    keys = [constraint for constraint in table.constraints if isinstance(constraint, sa.ForeignKeyConstraint)]
    return [
        (
            str(key.name or ", ".join(key.column_keys)),
            referred(key)[0],
            (key.ondelete or "NO ACTION").upper() not in ("NO ACTION", "RESTRICT"),
        )
        for key in sorted(keys, key=lambda key: (str(key.name), list(key.column_keys)))
    ]


def assembled(
    definition: sa.Table,
    *,
    name: str,
    comment: str | None,
    columns: Mapping[str, sa.Column[Any]],
    key: Key | None,
    released: Sequence[Index],
    built: Sequence[Index],
    unconstrained: Sequence[Constraint],
    constrained: Sequence[Constraint],
    stands: Callable[[TableName], TableName],
) -> sa.Table:
    """The table as the upgrade's operations leave its declaration, in a MetaData of its own.

    ``stands`` gives the present name of a table, which may have another one in the new release.
    """
    metadata = sa.MetaData(naming_convention=definition.metadata.naming_convention)
    # Tables cannot be changed in all respects, and their parts belong to one of them: so they are copied, as
    # Table.to_metadata() does.
    table = sa.Table(
        name,
        metadata,
        *(_copy_column(column, key) for column in columns.values()),
        schema=definition.schema,
        comment=comment,
        **definition.dialect_kwargs,
    )
    gone = {index.name for index in released if index.name}
    unnamed = {index.columns for index in released if not index.name}
    for constraint in definition.constraints:
        keys = tuple(constraint.columns.keys()) if isinstance(constraint, sa.UniqueConstraint) else None
        if _is_gone(constraint, unconstrained, key):
            continue
        if isinstance(constraint, sa.ForeignKeyConstraint):
            _refer(table, constraint, stands)
        elif constraint._type_bound or getattr(constraint, "_column_flag", False):  # noqa: SLF001
            continue  # made by the column
        elif constraint.name not in gone and keys not in unnamed:
            table.append_constraint(constraint._copy(target_table=table))  # noqa: SLF001
    for index in definition.indexes:
        if index.name not in gone and not getattr(index, "_column_flag", False):
            _copy_index(table, index)
    for made in built:
        if made.constraint:
            table.append_constraint(sa.UniqueConstraint(*made.columns, name=made.name))
        else:
            put_index(table, made)
    for rule in constrained:
        if isinstance(rule, Check):
            table.append_constraint(sa.CheckConstraint(sa.text(rule.text.replace(":", "\\:")), name=rule.name))
        elif isinstance(rule, ForeignKey):
            _refer(table, _key(rule), stands)
        else:
            raise incomplete(
                f"{rule.name} is added to the table {name}, which the same upgrade creates.",
                "declare it there: sqlalchemy.dialects.postgresql.ExcludeConstraint.",
            )
    if key is not None and key.columns:
        table.append_constraint(sa.PrimaryKeyConstraint(*key.columns, name=key.name))
    return table


def _copy_column(column: sa.Column[Any], key: Key | None) -> sa.Column[Any]:
    """``key``: another primary key than the declared one."""
    copied = column._copy()  # noqa: SLF001
    if key is not None:
        copied.primary_key = False
        if copied.name in key.columns:
            copied.nullable = False
            if copied.autoincrement == "auto":
                copied.autoincrement = False  # as with a key that is added to a table which stands
    return copied


def _is_gone(constraint: sa.Constraint, unconstrained: Sequence[Constraint], key: Key | None) -> bool:
    if isinstance(constraint, sa.PrimaryKeyConstraint):
        return key is not None
    if isinstance(constraint, sa.ForeignKeyConstraint):
        return any(
            isinstance(gone, ForeignKey) and list(gone.columns) == constraint.column_keys for gone in unconstrained
        )
    return isinstance(constraint, sa.CheckConstraint) and any(
        isinstance(gone, Check) and gone.name == constraint.name for gone in unconstrained
    )


def _key(key: ForeignKey) -> sa.ForeignKeyConstraint:
    prefix = f"{key.target_schema}.{key.target}" if key.target_schema else key.target
    return sa.ForeignKeyConstraint(
        key.columns,
        [f"{prefix}.{column}" for column in key.target_columns],
        name=key.name,
        ondelete=key.ondelete,
        onupdate=key.onupdate,
        deferrable=key.deferrable or None,
        initially="DEFERRED" if key.deferred else None,
    )


def describe_table(table: sa.Table) -> dict[str, Any]:
    """The definition as plain data, stable for equal ones."""
    return {
        "table": [table.schema, table.name],
        "comment": table.comment,
        "options": sorted(f"{name}={value}" for name, value in table.dialect_kwargs.items()),
        "columns": [
            [
                column.name,
                repr(column.type),
                bool(column.nullable),
                default_text(column),
                column.comment,
                str(column.autoincrement),
                str(column.computed.sqltext) if column.computed is not None else None,
                column.identity is not None,
            ]
            for column in table.columns
        ],
        "constraints": sorted(_describe_constraint(constraint) for constraint in table.constraints),
        "indexes": sorted(
            [str(index.name), str(index.unique), *map(str, index.expressions)] for index in table.indexes
        ),
    }


def _describe_constraint(constraint: sa.Constraint) -> list[str]:
    described = [type(constraint).__name__, str(constraint.name)]
    if isinstance(constraint, sa.ForeignKeyConstraint):
        (schema, table), there = referred(constraint)
        prefix = f"{schema}.{table}" if schema else table
        targets = [f"{prefix}.{column}" for column in there]
        return [*described, *constraint.column_keys, *targets, str(constraint.ondelete), str(constraint.onupdate)]
    if isinstance(constraint, sa.CheckConstraint):
        return [*described, str(constraint.sqltext)]
    columns = getattr(constraint, "columns", ())
    return [*described, *(column.name for column in columns)]


def _refer(table: sa.Table, key: sa.ForeignKeyConstraint, stands: Callable[[TableName], TableName]) -> None:
    target, columns = referred(key)
    schema, name = stands(target)
    own = (schema, name) == (table.schema, table.name)
    # The compiler wants to see what is referred to.
    other = table if own else sa.Table(name, table.metadata, schema=schema, keep_existing=True)
    for column in columns:
        if column not in other.columns and not own:
            other.append_column(sa.Column(column))
    table.append_constraint(
        sa.ForeignKeyConstraint(
            list(key.column_keys),
            [other.c[column] for column in columns],
            name=key.name,
            onupdate=key.onupdate,
            ondelete=key.ondelete,
            deferrable=key.deferrable,
            initially=key.initially,
            match=key.match,
            **key.dialect_kwargs,
        )
    )


def _copy_index(table: sa.Table, index: sa.Index) -> None:
    parts = [table.c[part.name] if isinstance(part, sa.Column) else sa.text(str(part)) for part in index.expressions]
    sa.Index(index.name, *parts, unique=index.unique, _table=table, **index.dialect_kwargs)
