"""Operations on the columns of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from contraflow import expressions
from contraflow.lens import Lens, Row, Side
from contraflow.operations.base import (
    Fragment,
    Schema,
    constant_default,
    default_text,
    find_column,
    find_table,
    incomplete,
)
from contraflow.operations.widening import changes_under_one_name
from contraflow.problems import Problem, ProblemError

__all__ = ["AddColumn", "ChangeType", "DropColumn", "RenameColumn", "TransformColumns"]

Value = Callable[[Row], Any]
Keep = Literal["fill", "track"]


@dataclass(frozen=True, kw_only=True)
class RenameColumn:
    """Give a column another name. Type, nullability, default and comment stay.

    ``omitted`` is asked for (``CF106``) when the column is nullable and has a default.
    """

    table: str
    old: str
    new: str
    schema: str | None = None
    winner: Side = "new"
    omitted: Side | None = None

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        column = find_column(schema, (self.schema, self.table), self.old)
        return Fragment(
            table=(self.schema, self.table),
            add=(_copy(column, self.new),),
            drop=(self.old,),
            lens=_copy_lens(self.old, self.new, self.winner, self.omitted),
        )

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "RenameColumn",
            "table": [self.schema, self.table],
            "old": self.old,
            "new": self.new,
            "winner": self.winner,
            "omitted": self.omitted,
        }


def _copy_lens(old: str, new: str, winner: Side, omitted: Side | None) -> Lens:
    return Lens(
        old=[old],
        new=[new],
        forward=lambda row: {new: row[old]},
        backward=lambda row: {old: row[new]},
        winner=winner,
        omitted=omitted,
    )


@dataclass(frozen=True, kw_only=True)
class TransformColumns:
    """Turn the ``old`` columns of a lens into its ``new`` ones: split, merge, recode, unite, unpack.

    ``columns`` are the new columns in their final shape (type, nullability, server default). The lens's old
    columns are dropped at contract,
    except those named in ``keep``.
    """

    table: str
    columns: Sequence[sa.Column[Any]]
    lens: Lens
    schema: str | None = None
    keep: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "keep", tuple(self.keep))
        names = {column.name for column in self.columns}
        if strangers := names - set(self.lens.new):
            raise incomplete(
                f"columns= of {self.table} names {', '.join(sorted(strangers))}, which the lens does not make.",
                "name them in the lens's new=, or add them with AddColumn.",
            )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        added = {column.name for column in self.columns}
        for name in (*self.lens.old, *(name for name in self.lens.new if name not in added)):
            find_column(schema, table, name)
        return Fragment(
            table=table,
            add=tuple(self.columns),
            drop=tuple(name for name in self.lens.old if name not in self.keep),
            lens=self.lens,
        )

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "TransformColumns",
            "table": [self.schema, self.table],
            "columns": [_describe_column(column) for column in self.columns],
            "keep": list(self.keep),
            "lens": _describe_lens(self.lens),
        }


@dataclass(frozen=True, kw_only=True)
class ChangeType:
    """Change a column's type, under a new name: both releases see one physical column, so the old name keeps
    the old type.

    ``forward`` gives the new value from ``row.<column>``, ``backward`` the old one from ``row.<new name>``.
    """

    table: str
    column: str
    new: sa.Column[Any]
    forward: Value
    backward: Value
    schema: str | None = None
    winner: Side = "new"
    omitted: Side | None = None
    lossy: bool = False

    def __post_init__(self) -> None:
        if self.new.name == self.column:
            raise changes_under_one_name(self.table, self.column)
        self._lens()

    def _lens(self) -> Lens:
        old, new = self.column, self.new.name
        return Lens(
            old=[old],
            new=[new],
            forward=lambda row: {new: self.forward(row)},
            backward=lambda row: {old: self.backward(row)},
            winner=self.winner,
            omitted=self.omitted,
            lossy=self.lossy,
        )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        find_column(schema, (self.schema, self.table), self.column)
        return Fragment(table=(self.schema, self.table), add=(self.new,), drop=(self.column,), lens=self._lens())

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {
            "operation": "ChangeType",
            "table": [self.schema, self.table],
            "column": self.column,
            "new": _describe_column(self.new),
            "lens": _describe_lens(self._lens()),
        }


@dataclass(frozen=True, kw_only=True)
class AddColumn:
    """Add a column that the new release writes.

    ``value`` computes it for rows the old release writes, from the columns it reads (name them in ``reads``);
    without it the column's constant server default is used, or NULL. ``keep="fill"`` computes it when a row is
    inserted or first synced, and leaves it to the new release from then on; ``keep="track"`` computes it again
    whenever one of ``reads`` changes and the statement does not write the column itself. With ``reads`` one of
    the two must be said (``CF114``).

    A column may also be computed by the server when it is read, ``sa.Column(..., sa.Computed("lower(mail)"))``: then it
    is added as it is. One that the server stores, or numbers (``sa.Identity``), is refused (``CF110``): every row would
    be written anew while writers wait. A number that is to be the primary key: :class:`AddSurrogateKey`.
    """

    table: str
    column: sa.Column[Any]
    value: Value | None = None
    reads: Sequence[str] = ()
    keep: Keep | None = None
    schema: str | None = None
    omitted: Side | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))
        _check_reads(self, f"{self.table}.{self.column.name}")
        if self.value is not None and self.column.computed is not None:
            raise incomplete(
                f"{self.table}.{self.column.name} is computed by the server, and value= is given.",
                "leave one of them out.",
            )
        self._lens()

    def _lens(self) -> Lens | None:
        name = self.column.name
        if self.value is None:
            default = _constant_default(self.column)
            if default is None:
                return None
            return Lens(
                old=[],
                new=[name],
                forward=lambda _row: {name: default},
                omitted=self.omitted,
            )
        value = self.value
        return Lens(
            old=self.reads,
            new=[name],
            forward=lambda row: {name: value(row)},
            omitted=self.omitted,
        )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        find_table(schema, table)
        for name in self.reads:
            find_column(schema, table, name)
        lens = self._lens()
        generated = self.column.computed is not None or self.column.identity is not None
        if lens is None and not self.column.nullable and not generated:
            raise incomplete(
                f"{self.table}.{self.column.name} is NOT NULL, and nothing says what old rows get.",
                "give value=lambda row: ..., or a constant server_default= to the column.",
            )
        once = _once(lens, self.keep, self.column.name)
        return Fragment(table=table, add=(self.column,), lens=lens, once=once)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        lens = self._lens()
        return {
            "operation": "AddColumn",
            "table": [self.schema, self.table],
            "column": _describe_column(self.column),
            "lens": _describe_lens(lens) if lens else None,
            "keep": self.keep,
        }


@dataclass(frozen=True, kw_only=True)
class DropColumn:
    """Drop a column that only the old release knows.

    ``value`` computes it for rows that the new release inserts, from the columns it reads (name them in
    ``reads``). It is needed where the column is NOT NULL without a default. ``keep`` is as for
    :class:`AddColumn`; without ``reads`` the column is filled once.
    """

    table: str
    column: str
    value: Value | None = None
    reads: Sequence[str] = ()
    keep: Keep | None = None
    schema: str | None = None
    omitted: Side | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))
        _check_reads(self, f"{self.table}.{self.column}")
        self._lens()

    def _lens(self) -> Lens | None:
        if self.value is None:
            return None
        name, value = self.column, self.value
        return Lens(
            old=[name],
            new=self.reads,
            backward=lambda row: {name: value(row)},
            omitted=self.omitted,
        )

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        table = (self.schema, self.table)
        column = find_column(schema, table, self.column)
        for name in self.reads:
            find_column(schema, table, name)
        lens = self._lens()
        if lens is None and not column.nullable and column.server_default is None:
            raise incomplete(
                f"{self.table}.{self.column} is NOT NULL without a default:"
                " the new release, which does not know it, could not insert.",
                "say what the old release reads in such rows: value=lambda row: ...",
            )
        once = _once(lens, self.keep, self.column)
        return Fragment(table=table, drop=(self.column,), lens=lens, once=once)

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        lens = self._lens()
        return {
            "operation": "DropColumn",
            "table": [self.schema, self.table],
            "column": self.column,
            "lens": _describe_lens(lens) if lens else None,
            "keep": self.keep,
        }


# --- helpers ---


def _check_reads(operation: AddColumn | DropColumn, title: str) -> None:
    """A value that is computed from other columns needs the computation, and what to do when they change."""
    if operation.reads and operation.value is None:
        raise incomplete("reads= is given without value=.", "give value=lambda row: ... too.")
    if operation.reads and operation.keep is None:
        raise _fill_or_track(title)


def _once(lens: Lens | None, keep: Keep | None, name: str) -> frozenset[str]:
    """The column, if it is computed and then left to its writers."""
    return frozenset() if lens is None or keep == "track" else frozenset({name})


def _fill_or_track(name: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF114",
            what=f"{name} is computed from other columns: what when they change later?",
            why="both answers are right for somebody, and they differ.",
            instead='keep="fill" computes it once and leaves it to its writers; keep="track" computes it again.',
        )
    )


def _copy(column: sa.Column[Any], name: str) -> sa.Column[Any]:
    return sa.Column(
        name,
        column.type,
        nullable=column.nullable,
        server_default=column.server_default.arg
        if column.server_default is not None and hasattr(column.server_default, "arg")
        else None,
        comment=column.comment,
    )


def _constant_default(column: sa.Column[Any]) -> Any:
    """The Python value of the column's server default, None if it has none."""
    if default_text(column) is None:
        return None
    constant, value = constant_default(column)
    if not constant:
        raise incomplete(
            f"the server default of {column.name} is an expression.",
            "say what old rows get: value=lambda row: ... (contraflow.expressions.utcnow() for the present time).",
        )
    return value


def _describe_column(column: sa.Column[Any]) -> list[Any]:
    default = getattr(column.server_default, "arg", None)
    return [column.name, repr(column.type), bool(column.nullable), None if default is None else str(default)]


def _describe_lens(lens: Lens) -> dict[str, Any]:
    row = Row({name: expressions.Ref(name) for name in (*lens.old, *lens.new)})

    def images(direction: Literal["forward", "backward"]) -> Mapping[str, str]:
        return {name: expressions.describe(image) for name, image in sorted(lens.images(direction, row).items())}

    return {
        "old": list(lens.old),
        "new": list(lens.new),
        "forward": images("forward"),
        "backward": images("backward"),
        "winner": lens.winner,
        "omitted": lens.omitted,
    }
