"""Checks of lenses before anything is installed: over the rows that are there, and over the values that may come.

The rows are examined by the server itself, with the very expressions the sync will use. The values that may
come are generated from the
columns' types and examined in Python, by the language's own meaning (:func:`contraflow.expressions.evaluate`).
"""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow import expressions
from contraflow.constraints import ForeignKey
from contraflow.dialects.base import Adapter
from contraflow.dialects.compiler import Compiler, compiler_for
from contraflow.expressions import Ref
from contraflow.expressions.trees import Lookup
from contraflow.installed import Installed
from contraflow.lens import Group, Side
from contraflow.operations.widening import integer_range
from contraflow.problems import Problem
from contraflow.steps import Hold, MakeTable, Phases
from contraflow.syncs import Sync, SyncColumn

__all__ = ["check_dependents", "check_domain", "check_names", "check_routines", "check_rows", "domain", "misfit"]

EXAMPLES = 3
"""How many counter-examples a problem shows."""


@dataclass(frozen=True, kw_only=True)
class _Direction:
    """One direction of a group."""

    group: Group
    target: Side

    @property
    def images(self) -> Mapping[str, Any]:
        return self.group.forward if self.target == "new" else self.group.backward

    @property
    def sources(self) -> tuple[str, ...]:
        return self.group.old if self.target == "new" else self.group.new

    @property
    def name(self) -> str:
        return "forward" if self.target == "new" else "backward"

    @property
    def release(self) -> str:
        return "old" if self.target == "new" else "new"


# --- what else reads a column that contract drops ---------------------------------------------------------------------


def check_dependents(connection: sa.Connection, adapter: Adapter, installed: Sequence[Installed]) -> list[Problem]:
    """``CF111`` for what reads a column or table that contract drops or renames: views, triggers, generated columns.

    What is changed by contract itself is not among it.
    """
    released = {(gone.name, item.table) for item in installed for gone in item.released if isinstance(gone, ForeignKey)}
    return [
        Problem(
            code="CF111",
            what=f"{found.table}.{column} cannot be dropped: {reader} reads it.",
            why="contract would fail half way, where there is no way back, or drop or break what reads it.",
            instead="let it read the new columns, or drop it once no node of the old release needs it;\n"
            "then contract again. Until then, rollback is possible.",
        )
        for found in installed
        if found.dropped
        for column, reader in dict.fromkeys(adapter.dependents(connection, found))
        if _constraint_of(reader) not in released
    ] + [
        Problem(
            code="CF111",
            what=f"{found.table} cannot be {'dropped' if found.removed else 'renamed'}: {reader} reads it.",
            why="contract would fail half way, where there is no way back, or break what reads it.",
            instead="drop it once no node of the old release needs it; then contract again."
            if found.removed
            else f"let it read {found.renamed}, which is there already; then contract again.",
        )
        for found in installed
        if found.removed or found.renamed
        for reader in adapter.table_readers(connection, found)
    ]


def check_routines(connection: sa.Connection, adapter: Adapter, installed: Sequence[Installed]) -> list[Problem]:
    """``CF122`` for each routine whose text names what contract drops or renames."""
    return [
        Problem(
            code="CF122",
            what=f"{routine} names {found.table}"
            + ("." if found.removed or found.renamed else f" and {' or '.join(found.dropped)}."),
            why="what its text means cannot be known; if it is this, the routine fails from contract on.",
            instead="change it, so that it does not depend on what goes; or, if it does not,"
            ' say so: contraflow contract --force "reason".',
        )
        for found in installed
        if found.removed or found.renamed or found.dropped
        for routine in adapter.routines(connection, found)
    ]


# --- names ------------------------------------------------------------------------------------------------------------


def check_names(adapter: Adapter, phases: Phases) -> list[Problem]:
    """``CF118`` for each new column, index or constraint whose name the server would cut or refuse."""
    if adapter.longest_name is None:
        return []
    limit, unit = adapter.longest_name
    problems = []
    for table, kind, name in _new_names(phases):
        length = len(name.encode()) if unit == "bytes" else len(name)
        if length > limit:
            problems.append(
                Problem(
                    code="CF118",
                    what=f"the name of the new {kind} {name} of {table} has {length} {unit};"
                    f" {adapter.profile.product} keeps {limit}.",
                    why="a name that is cut is not the one which the new release asks for, and may meet another.",
                    instead=f"choose a name of at most {limit} {unit}.",
                )
            )
    return problems


def _new_names(phases: Phases) -> Iterator[tuple[str, str, str]]:
    """Table, kind and name of all that an upgrade makes and the declaration names."""
    for item in phases.installed:
        yield from ((item.table, "column", name) for name in item.added)
        yield from ((item.table, "index", str(index.name)) for index in item.built)
        yield from ((item.table, "constraint", one.name) for one in item.constrained if one.name)
    for block in phases.expand:
        for step in block.steps if isinstance(block, Hold) else (block.step,):
            if not isinstance(step, MakeTable):
                continue
            made = step.definition
            yield from ((made.name, "column", column.name) for column in made.columns)
            yield from ((made.name, "index", str(index.name)) for index in made.indexes)
            yield from ((made.name, "constraint", str(one.name)) for one in made.constraints if one.name)


def _constraint_of(reader: str) -> tuple[str, str] | None:
    """The name and the table of a constraint of another table, as PostgreSQL describes it."""
    match = re.fullmatch(r'constraint "?(.+?)"? on table (?:.+\.)?"?([^."]+)"?', reader)
    return (match[1], match[2]) if match else None


# --- the rows that are there ------------------------------------------------------------------------------------------


def check_rows(connection: sa.Connection, adapter: Adapter, syncs: Sequence[Sync]) -> list[Problem]:
    """Problems that the present rows of the tables, in their old shape, would have with their lenses.

    Reads each table once a group. ``CF107`` where a forward image is NULL for a NOT NULL column, too long, or
    raises; ``CF108`` where
    ``backward(forward(old))`` differs from ``old`` and the lens is not declared lossy (``CF115`` if the lens
    is non-deterministic).
    """
    compiler = compiler_for(adapter.profile.product)
    return [
        problem
        for sync in syncs
        for group in sync.groups
        if group.forward
        # What is looked up may be made when it is: then only the rows themselves tell.
        for problem in _examination(group)(connection, compiler, sync, group)
    ]


def _examination(group: Group) -> Callable[[sa.Connection, Compiler, Sync, Group], Iterator[Problem]]:
    if any(lookup.made is not None for lookup in group.lookups):
        return _alike_rows
    return _lost_rows if any(lookup.fills for lookup in group.lookups) else _group_rows


def _lost_rows(connection: sa.Connection, compiler: Compiler, sync: Sync, group: Group) -> Iterator[Problem]:
    """Rows that refer to nothing; what the others will refer to by is not there yet."""
    quote = compiler.quote
    for lookup in group.lookups:
        (match,) = lookup.matches
        if not lookup.fills or not isinstance(match.value, Ref):
            continue
        itself = Lookup(
            table=lookup.table, schema=lookup.schema, column=match.name, type_=match.type, matches=lookup.matches
        )
        lost = f"{quote(match.value.name)} IS NOT NULL AND {compiler.compile(itself, quote)} IS NULL"
        table = compiler.table(sync.table, sync.schema)
        columns = ", ".join(map(quote, dict.fromkeys((*sync.key, match.value.name))))
        found = _send(connection, f"SELECT COUNT(*) FROM {table} WHERE {lost}").scalar_one()
        if found:
            rows = _send(connection, f"SELECT {columns} FROM {table} WHERE {lost} LIMIT {EXAMPLES}").mappings()
            shown = "; ".join(", ".join(f"{key} = {value!r}" for key, value in row.items()) for row in rows)
            yield _round_trip(sync, group, f"{found} rows: {shown}")


def _alike_rows(connection: sa.Connection, compiler: Compiler, sync: Sync, group: Group) -> Iterator[Problem]:
    """Rows for which one row of the other table would be made, though they do not hold quite the same."""
    names = [compiler.quote(name) for name in group.backward if isinstance(sync.columns[name].type, sa.types.String)]
    if not names or group.lossy:
        return
    columns = ", ".join(map(compiler.quote, group.backward))
    various = " OR ".join(f"COUNT(DISTINCT {compiler.reference(name, sa.types.String())}) > 1" for name in names)
    table = compiler.table(sync.table, sync.schema)
    grouped = f"SELECT {columns}, COUNT(*) AS contraflow_rows FROM {table} GROUP BY {columns} HAVING {various}"
    found = [dict(row) for row in _send(connection, f"{grouped} LIMIT {EXAMPLES}").mappings()]
    if found:
        rows = sum(int(row.pop("contraflow_rows")) for row in found)
        shown = "; ".join(", ".join(f"{key} = {value!r}" for key, value in row.items()) for row in found)
        yield _round_trip(sync, group, f"{rows} rows or more: {shown}")


def _group_rows(connection: sa.Connection, compiler: Compiler, sync: Sync, group: Group) -> Iterator[Problem]:
    quote = compiler.quote

    def old_ref(name: str) -> str:
        # New columns are not there yet: their present value is NULL.
        return quote(name) if name in group.old else "NULL"

    images = {name: compiler.image(image, sync.columns[name], old_ref) for name, image in group.forward.items()}
    tests: dict[str, str] = {}
    for name, image in images.items():
        column = sync.columns[name]
        if not column.nullable and not group.lookups:  # of these the way back tells more
            tests[f"{name} would be NULL"] = f"({image}) IS NULL"
        limit = getattr(column.type, "length", None)
        if limit and _holds_text(column.type):
            tests[f"{name} would be longer than {limit} characters"] = f"({compiler.fn_length(f'({image})')}) > {limit}"
    back = {
        name: compiler.image(image, sync.columns[name], lambda ref: _image_ref(ref, images, sync, compiler))
        for name, image in group.backward.items()
    }
    same = [
        f"({compiler.same(quote(name), compiler.coerced(image, sync.columns[name]), sync.columns[name].type)})"
        for name, image in back.items()
    ]
    lost = f"NOT ({' AND '.join(same)})" if same else ""
    if lost and not group.lossy:
        tests["backward(forward(row)) differs from the row"] = lost
    table = compiler.table(sync.table, sync.schema)
    columns = ", ".join(quote(name) for name in (*sync.key, *(name for name in group.old if name not in sync.key)))
    for what, condition in tests.items():
        try:
            found = _send(connection, f"SELECT COUNT(*) FROM {table} WHERE {condition}").scalar_one()
            if not found:
                continue
            total = _send(connection, f"SELECT COUNT(*) FROM {table}").scalar_one()
            rows = _send(
                connection, f"SELECT {columns or '*'} FROM {table} WHERE {condition} LIMIT {EXAMPLES}"
            ).mappings()
            examples = "; ".join(", ".join(f"{key} = {value!r}" for key, value in row.items()) for row in rows)
        except sa.exc.DBAPIError as error:
            yield _raises(sync, group, str(error.orig))
            return
        counted = f"{found:,} of {total:,} rows".replace(",", " ")
        if condition == lost:
            yield _round_trip(sync, group, f"{counted}: {examples}")
        else:
            yield Problem(
                code="CF107",
                what=f"{sync.table}: {what} in {counted}: {examples}.",
                why="the sync could not store it: the old release's writes of such rows would fail, and the backfill.",
                instead="make forward total over these rows (coalesce, case), or widen or relax the new column.",
            )


def _holds_text(type_: sa.types.TypeEngine[Any]) -> bool:
    """Whether the type holds any text up to its length; SQLAlchemy counts enumerations and SET as texts, too."""
    if isinstance(type_, sa.types.Enum):
        return not type_.native_enum
    return isinstance(type_, sa.types.String) and not hasattr(type_, "values")


def _image_ref(name: str, images: Mapping[str, str], sync: Sync, compiler: Compiler) -> str:
    if name in images:
        return f"({compiler.coerced(f'({images[name]})', sync.columns[name])})"
    return compiler.quote(name)


def _send(connection: sa.Connection, sql: str) -> sa.CursorResult[Any]:
    return connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def _round_trip(sync: Sync, group: Group, found: str) -> Problem:
    if group.lookups:
        to = group.lookups[0].table
        return Problem(
            code="CF108",
            what=f"{sync.table}: no row of {to} has exactly the same {', '.join(group.old)} in {found}.",
            why="what the old release wrote is kept until contract, and then lost in these rows.",
            instead=f"insert the missing rows of {to} first, or let the upgrade make them (create=True); write what is"
            "\nalike as it stands there; or accept the loss: lossy=True.",
        )
    if not group.forward_deterministic:
        return Problem(
            code="CF115",
            what=f"{sync.table}: backward(forward(row)) differs from the row in {found}.",
            why="forward is not deterministic: only backward tells whether the sides agree, so it must undo forward.",
            instead="change backward so that it undoes forward.",
        )
    return Problem(
        code="CF108",
        what=f"{sync.table}: backward(forward(row)) differs from the row in {found}.",
        why="what the old release wrote is kept until contract, and then lost in these rows.",
        instead="change the lens so that it keeps the difference, or accept the loss: Lens(..., lossy=True).",
    )


def _raises(sync: Sync, group: Group, message: str) -> Problem:
    return Problem(
        code="CF107",
        what=f"{sync.table}: the lens over {', '.join(group.columns)} fails on the present rows: {message}",
        why="every write of such a row would fail.",
        instead="make forward and backward total over the column's values.",
    )


# --- the values that may come
# -------------------------------------------------------------------------------------------


def check_domain(syncs: Sequence[Sync]) -> list[Problem]:
    """Problems that values the columns' types allow would have with their lenses. Opens no connection.

    ``CF107`` where an image raises, is NULL for a NOT NULL column, is too long, or is out of the integer
    type's range. Columns of types
    without generated values, and what is looked up, are left to :func:`check_rows`.
    """
    problems = []
    for sync in syncs:
        for group in sync.groups:
            if group.lookups:  # the rows of another table tell
                continue
            sides: tuple[Side, Side] = ("new", "old")
            for target in sides:
                direction = _Direction(group=group, target=target)
                if problem := _first_misfit(sync, direction):
                    problems.append(problem)
    return problems


def _first_misfit(sync: Sync, direction: _Direction) -> Problem | None:
    for row in _rows(sync, direction):
        for name, image in direction.images.items():
            column = sync.columns[name]
            try:
                value = expressions.evaluate(image, row)
            except (TypeError, ValueError, ArithmeticError) as error:
                reason = f"raises {type(error).__name__}: {error}"
                instead = f"make {direction.name} total: case(..., else_=...)."
            else:
                unfit = misfit(value, column)
                if unfit is None:
                    continue
                reason, instead = unfit, _way_out(column, direction)
            sources = ", ".join(f"{source} = {_short(row[source])}" for source in direction.sources) or "any row"
            return Problem(
                code="CF107",
                what=f"{sync.table}: for {sources}, {direction.name} gives {name}: {reason}.",
                why=f"the {direction.release} release may write that at any time, and its statement would fail.",
                instead=instead,
            )
    return None


def misfit(value: Any, column: SyncColumn) -> str | None:
    """Why the column cannot hold the value, None if it can (or is of a type not known here)."""
    type_ = column.type
    if value is None:
        return None if column.nullable else "NULL, and the column is NOT NULL"
    if isinstance(value, str) and isinstance(type_, sa.types.Enum):
        return None if value in type_.enums else f"{_short(value)}, which is not a value of its enum"
    if isinstance(value, str) and isinstance(type_, sa.types.String) and type_.length and len(value) > type_.length:
        return f"{len(value)} characters, and the column holds {type_.length}"
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(type_, sa.types.Integer):
        low, high = integer_range(type_)
        if not low <= value <= high:
            return f"{value}, and the column holds {low} to {high}"
    if isinstance(value, decimal.Decimal) and isinstance(type_, sa.types.Numeric) and type_.precision:
        fits = value.copy_abs() < decimal.Decimal(10) ** (type_.precision - (type_.scale or 0))
        return None if fits else f"{value}, and the column holds {type_.precision} digits, {type_.scale or 0} decimals"
    return None


def _way_out(column: SyncColumn, direction: _Direction) -> str:
    type_ = column.type
    if isinstance(type_, sa.types.String) and type_.length:
        cut = f"cut it: substr(..., 1, {type_.length})"
        return f"make {column.name} wider, or {cut}." if direction.target == "new" else f"{cut}."
    if isinstance(type_, sa.types.Integer):
        return "clamp it: case((value > limit, limit), else_=value)."
    if direction.target == "new":
        return f"make forward total (coalesce, case(..., else_=...)), or make {column.name} nullable."
    return "make backward total: coalesce(..., ''), case(..., else_=...), recode(..., default=...)."


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text) - 2} characters)"


def _rows(sync: Sync, direction: _Direction) -> Iterator[dict[str, Any]]:
    """Rows over the values of the sources' types: each value of each column, and pairs of the extremes."""
    targets = dict.fromkeys(direction.images)
    values = {name: domain(sync.columns[name]) for name in direction.sources}
    if not all(values.values()):
        return
    base = {name: found[0] for name, found in values.items()}
    yield {**targets, **base}
    for name, found in values.items():
        for value in found[1:]:
            yield {**targets, **base, name: value}
    for left, right in itertools.combinations(values, 2):
        for one, two in itertools.product(values[left][-4:], values[right][-4:]):
            yield {**targets, **base, left: one, right: two}
    yield {**targets, **{name: found[-1] for name, found in values.items()}}


def domain(column: SyncColumn) -> list[Any]:
    """Values that the column may hold: an ordinary one first, the extremes last.

    Empty if the type is not known here.
    """
    type_ = column.type
    nothing = [None] if column.nullable else []
    if isinstance(type_, sa.types.Enum):
        return [*type_.enums, *nothing]
    if isinstance(type_, sa.types.String):
        if not _holds_text(type_):
            return []
        length = type_.length or 1000
        texts = ["a b", "", " ", "a", "A", " a", "a ", "a b c", "é", "\U0001f600", "it's", "%", "\\", "007", "-1", "1x"]
        fitting = [text for text in texts if len(text) <= length]
        half = length // 2
        return [
            *fitting,
            *nothing,
            ("x" * half + " " + "x" * length)[:length],
            "9" * length,
            " " * length,
            "x" * length,
        ]
    if isinstance(type_, sa.types.Boolean):
        return [True, False, *nothing]
    if isinstance(type_, sa.types.Integer):
        return [1, 0, 2, *nothing, *(value for value in (-1,) if integer_range(type_)[0] < 0), *integer_range(type_)]
    if isinstance(type_, sa.types.Numeric):
        precision, scale = type_.precision or 15, type_.scale or 0
        # Written as digits: arithmetic would round to the 28 digits of the default context.
        largest, least = (decimal.Decimal((sign, (9,) * precision, -scale)) for sign in (0, 1))
        return [decimal.Decimal(1), decimal.Decimal(0), *nothing, decimal.Decimal(1).scaleb(-scale), least, largest]
    if isinstance(type_, sa.types.DateTime):
        naive = [
            (2020, 2, 29, 12, 30, 15, 250000),
            (1969, 12, 31, 23, 59, 59, 999999),
            (1970, 1, 1),
            (2038, 1, 19, 3, 14, 8),
        ]
        return [*(dt.datetime(*parts) for parts in naive), *nothing]  # type: ignore[arg-type]  # noqa: DTZ001
    if isinstance(type_, sa.types.JSON):
        # A str stands for the document as it is written.
        return [{"k": "v"}, {}, {"k": 1, "other": [1]}, [], '"text"', *nothing]
    return []
