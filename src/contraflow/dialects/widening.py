"""Wider types under one name: in place where the server reads no row for it, else by a shadow column and one swap.

The shadow has the other type, and triggers (the *mirror*) write into it whatever is written into the column that has
the name. That is right before and after the two exchange their names, so no trigger changes with the swap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import BackfillText, Found, escape
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.data import beyond, bounds
from contraflow.dialects.kinds import Kind, kind_of, misfit
from contraflow.dialects.remaining import require
from contraflow.installed import Widening
from contraflow.problems import Problem
from contraflow.steps import WidenColumns

__all__ = ["Rule", "Widened", "differ", "fill_text", "held_problems", "rebuild_problems"]

Rule = Callable[[str, Kind, Kind, "Found | None"], bool]
"""Whether the server gives the column (name, old kind, new kind) the wider type without reading a row."""


@dataclass(frozen=True, kw_only=True)
class Widened:
    """One stage on one table, told apart into what is done in place and what by a shadow."""

    step: WidenColumns
    found: Found | None
    compiler: Compiler
    product: str
    rule: Rule

    @property
    def table(self) -> str:
        """The table's quoted name."""
        return self.compiler.table(self.step.table, self.step.schema)

    @property
    def in_place(self) -> list[Widening]:
        """The columns whose type is changed in place, and has still to be."""
        return [one for one in self.step.widenings if self._is_in_place(one) and self._is_due(one)]

    @property
    def shadowed(self) -> list[Widening]:
        """The columns with a shadow."""
        return [one for one in self.step.widenings if not self._is_in_place(one)]

    def _is_in_place(self, one: Widening) -> bool:
        old, new = kind_of(one.old, self.product), kind_of(one.new, self.product)
        return self.rule(one.column, old, new, self.found)

    def _is_due(self, one: Widening) -> bool:
        """Whether the column has yet the type that the stage takes from it."""
        if self.found is None:
            return True
        require(self.found, self.step.table, [one.column])
        return self.has_old_type(one) is (self.step.stage != "undo")

    def has_old_type(self, one: Widening) -> bool:
        """Whether the column is as the old release declares it."""
        return self.found is None or self.found.details["types"][one.column] == one.old

    def stands(self, one: Widening) -> bool:
        """Whether the shadow is there."""
        return self.found is None or one.shadow in self.found.columns

    @property
    def standing(self) -> list[Widening]:
        """The columns whose shadow is there."""
        return [one for one in self.shadowed if self.stands(one)]

    @property
    def to_swap(self) -> list[Widening]:
        """The columns that have still to exchange their name with the shadow. Raises ``CF101`` if it is gone."""
        found = self.found
        if found is None:
            return self.shadowed
        wanted = self.step.stage not in ("undo", "reindex")
        due = [one for one in self.shadowed if self.has_old_type(one) is wanted]
        require(found, self.step.table, [one.shadow for one in due])
        return due

    def has(self, trigger: str) -> bool:
        """Whether a trigger of the mirror is there; None of them is yet where nothing is known of the table."""
        return self.found is not None and trigger in self.found.triggers

    def is_nullable(self, one: Widening) -> bool:
        """Whether the column may be NULL."""
        return self.found is not None and self.found.columns[one.column]

    def filler(self, one: Widening) -> str:
        """What the shadow holds where it cannot hold the value."""
        return "0" if kind_of(one.old, self.product).family in ("integer", "decimal") else "''"

    def misfit(self, one: Widening, row: str) -> str | None:
        """The condition that the value in ``row`` (``NEW``, or nothing) is none of the old type."""
        value = f"{row}.{self.compiler.quote(one.column)}" if row else self.compiler.quote(one.column)
        return misfit(kind_of(one.old, self.product), value, self.product)

    def assignments(self) -> list[tuple[str, str]]:
        """Shadow, quoted, and what the mirror writes into it."""
        quote = self.compiler.quote
        assigned = []
        for one in self.shadowed:
            value = f"NEW.{quote(one.column)}"
            if condition := self.misfit(one, "NEW"):
                value = f"CASE WHEN {condition} THEN {self.filler(one)} ELSE {value} END"
            assigned.append((quote(one.shadow), value))
        return assigned

    def refused(self) -> str:
        """The condition that a new row holds a value that an old type does not."""
        conditions = filter(None, (self.misfit(one, "NEW") for one in self.shadowed))
        return " OR ".join(conditions) or "1 = 0"


def differ(one: Widening, compiler: Compiler, product: str) -> str:
    """The condition that shadow and column do not hold the same."""
    family = kind_of(one.old, product).family
    types: dict[str, sa.types.TypeEngine[Any]] = {"text": sa.String(), "binary": sa.LargeBinary()}
    type_ = types.get(family, sa.Integer())
    return f"NOT ({compiler.same(compiler.quote(one.shadow), compiler.quote(one.column), type_)})"


def fill_text(widened: Widened, estimate: str, keep: Sequence[str] = ()) -> BackfillText | None:
    """The statements that fill shadows, of rows from before the mirror; None if there are no shadows.

    ``keep`` are columns assigned to themselves, because the server would change them by itself.
    """
    shadowed = widened.shadowed
    if not shadowed or not widened.step.key:
        return None
    quote, table = widened.compiler.quote, widened.table
    where = " OR ".join(differ(one, widened.compiler, widened.product) for one in shadowed)
    images = [f"{quote(one.shadow)} = {quote(one.column)}" for one in shadowed]
    kept = [f"{quote(name)} = {quote(name)}" for name in keep]
    columns = [escape(quote(name)) for name in widened.step.key]
    first_bound, bound = bounds(widened.compiler, table, columns)
    fill = escape(f"UPDATE {table} SET {', '.join([*images, *kept])} WHERE ({where})")
    fill = f"{fill} AND {beyond(widened.compiler, columns, '<=', 'u')}"
    return BackfillText(
        first_bound=first_bound,
        bound=bound,
        first_fill=fill,
        fill=f"{fill} AND {beyond(widened.compiler, columns, '>', 'k')}",
        remaining=escape(f"SELECT count(*) FROM {table} WHERE {where}"),
        estimate=estimate,
    )


def held_problems(connection: sa.Connection, widened: Widened) -> Iterator[Problem]:
    """What keeps a column from being rebuilt beside its writers: what stands on it would stay on the old one."""
    step = widened.step
    if not widened.shadowed:
        return
    yield from rebuild_problems(widened)
    inspector = sa.inspect(connection)
    where: dict[str, Any] = {"table_name": step.table, "schema": step.schema}
    held = {
        f"the index {index['name']}": (*index["column_names"], *index.get("include_columns", ()))
        for index in inspector.get_indexes(**where)
    }
    held |= {
        f"the unique constraint {constraint['name']}": tuple(constraint["column_names"])
        for constraint in inspector.get_unique_constraints(**where)
    }
    held["the primary key"] = tuple(inspector.get_pk_constraint(**where)["constrained_columns"])
    for one in widened.shadowed:
        for holder, columns in held.items():
            if one.column in columns:
                yield _rebuilt(step, one, f"{holder} stands on it")


def rebuild_problems(widened: Widened) -> Iterator[Problem]:
    """What keeps any column from having a second one for a time."""
    step = widened.step
    if widened.shadowed and not step.key:
        yield _rebuilt(step, widened.shadowed[0], "the table has no primary key, by which its rows could be filled")
    for one in widened.shadowed:
        if widened.found is not None and one.shadow in widened.found.columns and widened.has_old_type(one):
            yield Problem(
                code="CF112",
                what=f"table {step.table} has a column {one.shadow} already.",
                why="the wider column is to have that name until it takes the other's place.",
                instead="contraflow status; drop the column if no upgrade is open.",
            )


def _rebuilt(step: WidenColumns, one: Widening, reason: str) -> Problem:
    return Problem(
        code="CF111",
        what=f"{step.table}.{one.column} cannot become {one.new} beside its writers: {reason}.",
        why=f"from {one.old} the server would write the table anew while writers wait, and the second column that"
        " spares them would not have it.",
        instead="give the wider type to a column of another name: ChangeType(...), with DropIndex or DropUnique and"
        "\nCreateIndex or AddUnique; or take away what stands on it in an upgrade before this one.",
    )
