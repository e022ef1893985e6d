"""What the declarations and the schema alone tell to be wrong with the changes of one table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from contraflow import expressions
from contraflow.lens import Group
from contraflow.operations.base import default_text
from contraflow.operations.enums import label_problems
from contraflow.operations.gathering import TablePlan
from contraflow.operations.held import check_injective, check_left_out, not_injective
from contraflow.operations.keys import key_problems
from contraflow.operations.nullability import nullability_problems
from contraflow.operations.syncing import MARKER
from contraflow.operations.widening import widening_problems
from contraflow.problems import Problem
from contraflow.syncs import Sync, SyncColumn

__all__ = ["held_columns", "table_problems"]


def table_problems(found: TablePlan, sync: Sync | None) -> list[Problem]:
    """Everything that is wrong with the changes of a table that both releases have."""
    written = {name for group in sync.groups for name in group.backward} if sync else set()
    retired = () if found.key is None or not found.key.retires else found.table.primary_key.columns.keys()
    dropped = {name: found.original[name] for name in found.dropped if name not in retired}
    problems = [
        *held_columns(found, sync),
        *_new_column_problems(found),
        *widening_problems(found, sync.columns if sync else ()),
        *label_problems(found),
        *key_problems(found),
        *nullability_problems(found, sync),
        *check_left_out(found.name[1], found.holders, dropped, written),
        *_numbered_problems(found.name[1], dropped),
    ]
    if MARKER in found.original:
        problems.append(
            Problem(
                code="CF112",
                what=f"table {found.name[1]} has a column {MARKER} already.",
                why="Contraflow keeps there which rows were synced; it may be left from another upgrade.",
                instead="contraflow status; drop the column if no upgrade is open.",
            )
        )
    if sync:
        if sync.opaque is not None:
            problems.extend(_generated(sync, sync.opaque.old))
        for group in sync.groups:
            problems.extend(_group_problems(found, sync, group))
    return problems


def _numbered_problems(table: str, dropped: Mapping[str, sa.Column[Any]]) -> Iterator[Problem]:
    """MySQL's and MariaDB's: a column with AUTO_INCREMENT must be in a key, as long as it stands (error 1075)."""
    for name, column in dropped.items():
        if column.autoincrement is True and default_text(column) is None and column.identity is None:
            yield Problem(
                code="CF110",
                what=f"{table}.{name} is numbered by the server (AUTO_INCREMENT).",
                why="no other column could be, while it is there, and it cannot do without its key before it goes.",
                instead="take AUTO_INCREMENT from it (ALTER TABLE ... MODIFY) in a revision before this one.",
            )


def held_columns(found: TablePlan, sync: Sync | None) -> list[Problem]:
    """Columns that go while a key, constraint or index still needs them."""
    table = found.name[1]
    # One problem a key. Of these, CF109 tells: to let the key go in this upgrade would not be enough.
    computed = {
        (name, holder.title)
        for group in (sync.groups if sync else ())
        for name, _, holder in not_injective(found.holders, group, found.original, found.columns)
        if holder.unique or holder.constraint is not None
    }
    left = [
        holder
        for holder in found.holders
        if (holder.index is None or holder.index not in found.released)
        and (holder.constraint is None or holder.constraint not in found.unconstrained)
        and not (holder.kind == "primary key" and found.key is not None and found.key.retires)
    ]
    problems = [
        Problem(
            code="CF111",
            what=f"{table}.{name} cannot be dropped: {holder.title} holds it.",
            why="dropping the column would silently drop that too, or fail after the new release relies on it.",
            instead=holder.way_out(table),
        )
        for name in found.dropped
        for holder in left
        if holder.holds(name) and (name, holder.title) not in computed
    ]
    for index in found.build:
        if gone := [name for name in index.columns if name not in found.columns]:
            problems.append(
                Problem(
                    code="CF111",
                    what=f"{table}.{gone[0]} cannot be dropped: {index.name}, which this upgrade builds, stands on it.",
                    why="the new release would not have the index.",
                    instead=f'add DropIndex(table="{table}", name="{index.name}") to the later change,'
                    " and build one over the new columns.",
                )
            )
    for made in found.constrain:
        if gone := [name for name in made.columns if name not in found.columns]:
            problems.append(
                Problem(
                    code="CF111",
                    what=f"{table}.{gone[0]} cannot be dropped: {made.name}, which this upgrade makes, stands on it.",
                    why="the new release would not have the constraint.",
                    instead="drop it in the later change, and make one over the new columns.",
                )
            )
    return problems


def _new_column_problems(found: TablePlan) -> list[Problem]:
    problems = []
    for column in found.added:
        title = f"{found.name[1]}.{column.name}"
        if isinstance(column.type, sa.types.NullType):
            problems.append(
                Problem(
                    code="CF116",
                    what=f"{title} is of a type that SQLAlchemy does not know.",
                    why="a new column of that type could not be declared, and its values not be compared.",
                    instead="install the package that teaches SQLAlchemy the type (and import it in the revision),"
                    "\nor give the new column a type of its own: ChangeType(..., new=sa.Column(..., TYPE)).",
                )
            )
        # PostgreSQL's: the sync's own variables of the type could not be NULL either (error 23502).
        if getattr(column.type, "not_null", False):
            domain = getattr(column.type, "name", "") or "of its type"
            problems.append(
                Problem(
                    code="CF116",
                    what=f"{title} is of the domain {domain}, which is NOT NULL.",
                    why="until contract a new column must be able to hold NULL.",
                    instead="give the new column the domain's own type: ChangeType(..., new=sa.Column(..., TYPE)),"
                    "\nnullable=False where it is to be NOT NULL.",
                )
            )
        if re.search(r"\bON UPDATE\b", default_text(column) or "", re.IGNORECASE):
            problems.append(
                Problem(
                    code="CF110",
                    what=f"{title} is set by the server on every update (ON UPDATE).",
                    why="every update of either release would count as a write to it.",
                    instead="let the application set it: ALTER the column without ON UPDATE first, in a revision before"
                    "\nthis one.",
                )
            )
        problems.extend(_generated_problems(found, column, title))
        if column.primary_key or column.unique or column.index or column.foreign_keys:
            problems.append(
                Problem(
                    code="CF111",
                    what=f"{title} is declared with a key, a unique constraint, an index or a foreign key.",
                    why="a column operation makes plain columns only; building the rest would block writers.",
                    instead="declare the column without it, and add CreateIndex(...), AddUnique(...) or"
                    "\nAddForeignKey(...) to the change.",
                )
            )
    return problems


def _generated(sync: Sync, names: Sequence[str]) -> Iterator[Problem]:
    for name in names:
        if sync.columns[name].identity:
            yield Problem(
                code="CF110",
                what=f"{sync.table}.{name} is generated by the server.",
                why="the sync could not write it.",
                instead="leave it out of the lens; or let its default draw from a sequence, in an upgrade before,\n"
                "in place of the identity.",
            )


def _generated_problems(found: TablePlan, column: sa.Column[Any], title: str) -> Iterator[Problem]:
    if column.identity is not None:
        yield Problem(
            code="CF110",
            what=f"{title} is numbered by the server.",
            why="the server would write every row anew while writers wait.",
            instead="let it be the table's primary key: AddSurrogateKey(...); or declare a plain column that the"
            "\napplication fills.",
        )
    if column.computed is None:
        return
    if column.computed.persisted:
        yield Problem(
            code="CF110",
            what=f"{title} is computed by the server, and stored.",
            why="the server would write every row anew while writers wait.",
            instead="let it be computed when it is read: sa.Computed(..., persisted=False);"
            '\nor declare a plain column: AddColumn(..., value=lambda row: ..., reads=[...], keep="track").',
        )
    if not column.nullable:
        yield Problem(
            code="CF116",
            what=f"{title} is computed by the server, and NOT NULL.",
            why="until contract no new column is.",
            instead="leave out nullable=False.",
        )
    text = str(column.computed.sqltext)
    for name in found.dropped:
        if re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE):
            yield Problem(
                code="CF111",
                what=f"{found.name[1]}.{name} cannot be dropped: {title} is computed from it.",
                why="contract would fail, or drop that too.",
                instead="compute it from the columns that stay.",
            )


def _group_problems(found: TablePlan, sync: Sync, group: Group) -> list[Problem]:
    table = found.name[1]
    problems = list(_generated(sync, (*group.forward, *group.backward)))
    problems.extend(check_injective(table, found.holders, group, found.original, found.columns))
    if group.forward_deterministic is False and group.backward_deterministic is False:
        problems.append(
            Problem(
                code="CF115",
                what=f"both directions of the lens over {table}.({', '.join(group.columns)}) are non-deterministic.",
                why="nothing could tell whether the two sides agree.",
                instead="make one direction deterministic.",
            )
        )
    if group.omitted is None and (reason := _undecidable(sync, group)):
        problems.append(
            Problem(
                code="CF106",
                what=f"an INSERT into {table} that gives none of {', '.join(group.new or group.old)} is undecidable:"
                f" {reason}.",
                why="the values do not tell which release sent it, and the two would store different things.",
                instead='say which release is meant: omitted="old" or omitted="new".',
            )
        )
    return problems


def _undecidable(sync: Sync, group: Group) -> str | None:
    """Why ``omitted`` must be declared; None if it need not."""
    columns = sync.columns
    nothing = dict.fromkeys(group.columns)
    # An old NOT NULL column is never NULL when the row is stored; of the new ones, those whose default is
    # their image do not matter.
    required = any(not columns[name].nullable for name in group.old) or any(
        not columns[name].nullable
        and (columns[name].default is None or _image_is_default(group, columns[name], nothing))
        for name in group.forward
    )
    if not required and not _agree_both(group, nothing):
        return "with all of them NULL the two sides do not agree"
    if not required and (meant := [name for name in group.forward if columns[name].default is not None]):
        other = f"the old one's NULL in {', '.join(group.old)}"
        return f"the new release's default of {', '.join(meant)} may have been meant, or {other}"
    defaulted = [name for name in group.old if columns[name].default_constant]
    may_be_null = all(columns[name].nullable for name in group.new)
    if defaulted and may_be_null and group.new:
        row = {**nothing, **{name: columns[name].default_value for name in defaulted}}
        if any(value is not None for value in _images(group.forward, row)):
            # Also where backward gives the default for NULL: the new release would read what it has not written.
            other = f"the new one's NULL in {', '.join(group.new)}"
            return f"the old release's default of {', '.join(defaulted)} may have been meant, or {other}"
    if defaulted and not group.new and group.backward:
        row = {**nothing, **{name: columns[name].default_value for name in defaulted}}
        if not (group.backward_deterministic and _agrees(group.backward, row)):
            return f"the old release's default of {', '.join(defaulted)} may have been meant, or the computed value"
    return None


def _images(images: Mapping[str, Any], row: Mapping[str, Any]) -> list[Any]:
    values = []
    for image in images.values():
        try:
            values.append(expressions.evaluate(image, row))
        except (TypeError, ValueError, ArithmeticError):
            values.append(NotImplemented)
    return values


def _image_is_default(group: Group, column: SyncColumn, row: Mapping[str, Any]) -> bool:
    image = _images({column.name: group.forward[column.name]}, row)[0]
    return column.default_constant and bool(image == column.default_value)


def _agrees(images: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(
        value == row[name] and (value is None) == (row[name] is None)
        for name, value in zip(images, _images(images, row), strict=True)
    )


def _agree_both(group: Group, row: Mapping[str, Any]) -> bool:
    forward, backward = _agrees(group.forward, row), _agrees(group.backward, row)
    if not group.forward_deterministic:
        forward = backward
    if not group.backward_deterministic:
        backward = forward
    return forward and backward
