"""Operations on the indexes and unique constraints of one table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from contraflow.installed import Index
from contraflow.operations.base import Fragment, Schema, check_name, find_column, find_table, incomplete, sql_text
from contraflow.operations.held import names_column
from contraflow.operations.mending import Values, described_repair, repair_of

__all__ = ["AddUnique", "CreateIndex", "DropIndex", "DropUnique"]


@dataclass(frozen=True, kw_only=True)
class CreateIndex:
    """Build an index beside the writers. Its columns may be new ones of the same upgrade.

    It is built at the end of ``migrate``, so it stands before the new release writes. A ``unique`` one that the old
    release's writes could violate is built by ``contract`` instead, see :class:`AddUnique`.

    Among ``columns`` there may be expressions, ``sa.text("lower(mail)")``, and ``where`` lets only some rows into the
    index, ``sa.text("deleted_at IS NULL")``. Both are in the server's own words: those in which queries have them, for
    an index that says it otherwise does not serve them. PostgreSQL, CockroachDB and SQLite have such indexes. MySQL
    builds one over an expression only while writers wait (9.7: ``LOCK=NONE is not supported``), MariaDB has none, and
    neither of them has partial ones: there they are refused (``CF205``), with the computed column to index instead.

    ``using`` is the access method, ``storage`` are storage parameters (``{"fillfactor": 70}``): PostgreSQL's only.
    """

    table: str
    name: str
    columns: Sequence[str | sa.TextClause]
    unique: bool = False
    where: sa.TextClause | None = None
    using: str = ""
    storage: Mapping[str, str | int] = field(default_factory=dict)
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_index(self.table, self.name, self._key)
        self._where  # noqa: B018 - raises for a text that cannot be one
        object.__setattr__(self, "storage", {name: str(value) for name, value in self.storage.items()})
        for word in (self.using or "btree", *self.storage, *self.storage.values()):
            if not re.fullmatch(r"[\w.]+", str(word)):
                raise incomplete(
                    f"{word!r} of the index {self.name} is no method, storage parameter or value.",
                    'write using="hash", storage={"fillfactor": 70}.',
                )

    @property
    def _kept(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, str(value)) for name, value in self.storage.items())

    @property
    def _key(self) -> tuple[str, ...]:
        return tuple(
            part if isinstance(part, str) else sql_text(f"the index {self.name}", part) for part in self.columns
        )

    @property
    def _where(self) -> str:
        return "" if self.where is None else sql_text(f"the index {self.name}", self.where)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        plain = tuple(part for part in self.columns if isinstance(part, str))
        if len(plain) == len(self.columns) and self.where is None:
            index = Index(name=self.name, columns=plain, unique=self.unique, using=self.using, storage=self._kept)
            return _build(self, schema, index)
        table = (self.schema, self.table)
        texts = [*(part for part in self._key if part not in plain), self._where]
        known = find_table(schema, table)
        read = [name for name in known if name not in plain and any(names_column(text, name) for text in texts)]
        if any(text and not any(names_column(text, name) for name in known) for text in texts):
            raise incomplete(
                f"an expression of the index {self.name} names no column of {self.table}.",
                f"write it over the table's own columns: {', '.join(known)}.",
            )
        index = Index(
            name=self.name,
            columns=(*plain, *read),
            unique=self.unique,
            parts=self._key,
            where=self._where,
            using=self.using,
            storage=self._kept,
        )
        return _build(self, schema, index)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "CreateIndex",
            "table": [self.schema, self.table],
            "name": self.name,
            "columns": [
                part if isinstance(part, str) else {"sql": sql_text(f"the index {self.name}", part)}
                for part in self.columns
            ],
            "unique": self.unique,
            **({"where": self._where} if self.where is not None else {}),
            **({"using": self.using} if self.using else {}),
            **({"storage": dict(self.storage)} if self.storage else {}),
        }


@dataclass(frozen=True, kw_only=True)
class DropIndex:
    """Drop an index that the new release does not need. Until contract it stands, for both releases."""

    table: str
    name: str
    schema: str | None = None

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        return Fragment(table=(self.schema, self.table), release=(Index(name=self.name, columns=()),))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropIndex", "table": [self.schema, self.table], "name": self.name}


@dataclass(frozen=True, kw_only=True)
class AddUnique:
    """Make columns unique together: a constraint on PostgreSQL, a unique index elsewhere.

    Where an old unique constraint or primary key already keeps the old release's writes unique under the new one
    (the column is renamed), or where the old release does not write one of the columns at all, it is built at the end
    of ``migrate``. Else a write of the old release could be refused because of it, so it is checked by ``verify``
    (``CF014`` shows the rows that are alike) and built by ``contract``.

    ``repair={"slug": lambda row: concat(row.slug, "-", to_text(row.id))}`` says what one column gets in all rows but
    the first one (by the primary key) of those that are alike, over ``columns`` and ``reads``: then ``verify`` lets
    them pass, and ``contract`` writes that, when the old release is gone, before it builds the constraint.
    """

    table: str
    name: str
    columns: Sequence[str]
    schema: str | None = None
    repair: Values | None = None
    reads: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "reads", tuple(self.reads))
        _check_index(self.table, self.name, self.columns)
        repair_of(self.name, (None, ""), None, self.repair, self._read)

    @property
    def _read(self) -> tuple[str, ...]:
        return (*self.columns, *self.reads)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        index = Index(name=self.name, columns=tuple(self.columns), unique=True, constraint=True)
        repair = repair_of(self.name, (self.schema, self.table), schema, self.repair, self._read)
        return replace(_build(self, schema, index), repair=repair)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "AddUnique",
            "table": [self.schema, self.table],
            "name": self.name,
            "columns": list(self.columns),
            **described_repair(self.name, self.repair, self._read),
        }


@dataclass(frozen=True, kw_only=True)
class DropUnique:
    """Drop a unique constraint (or unique index), told by the columns it stands on, in their order.

    Its name need not be known: servers name such constraints each in their own way, SQLite not at all. Until contract
    it stands, for both releases.
    """

    table: str
    columns: Sequence[str]
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_columns(self.table, self.columns)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_table(schema, (self.schema, self.table))
        index = Index(name=None, columns=tuple(self.columns), unique=True, constraint=True)
        return Fragment(table=(self.schema, self.table), release=(index,))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "DropUnique", "table": [self.schema, self.table], "columns": list(self.columns)}


def _build(operation: CreateIndex | AddUnique, schema: Schema, index: Index) -> Fragment:
    table = (operation.schema, operation.table)
    for column in index.columns:
        find_column(schema, table, column)
    return Fragment(table=table, build=(index,))


def _check_index(table: str, name: str, columns: Sequence[str]) -> None:
    check_name(f"an index of {table}", name)
    _check_columns(table, columns)


def _check_columns(table: str, columns: Sequence[str]) -> None:
    if not columns or len(set(columns)) < len(columns):
        raise incomplete(f"an index of {table} names no column, or one twice.", "name each column once: columns=[...].")
