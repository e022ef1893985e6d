"""The sync that a table's lenses come to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from contraflow import expressions
from contraflow.lens import Group, combine
from contraflow.opaque import Opaque
from contraflow.operations.base import constant_default, default_text
from contraflow.operations.gathering import TablePlan, stem
from contraflow.problems import Problem, ProblemError
from contraflow.syncs import Sync, SyncColumn

__all__ = ["MARKER", "sync_of"]

MARKER = "cf_marker"
"""The name of the marker column of a synced table."""


def sync_of(found: TablePlan) -> Sync | None:
    """The sync of the table's two shapes; None if there is nothing to keep in agreement.

    Raises :class:`~contraflow.problems.ProblemError`: ``CF104``, ``CF105`` or ``CF116`` for lenses that do not go
    together.
    """
    if found.opaque:
        return _opaque_sync(found)
    if not found.lenses:
        return None
    groups = combine(
        found.lenses,
        old_types={name: column.type for name, column in found.original.items()},
        new_types={name: column.type for name, column in found.columns.items()},
    )
    groups = tuple(group for group in groups if group.forward or group.backward)
    if not groups:
        return None
    columns: dict[str, SyncColumn] = {}
    for group in groups:
        for name in group.columns:
            column = found.original.get(name)
            columns[name] = _sync_column(column if column is not None else found.columns[name])
    _check_ends(found, groups, columns)
    return _make_sync(found, columns, groups=groups)


def _opaque_sync(found: TablePlan) -> Sync:
    lens, *others = found.opaque
    other = "another name" if found.renamed else "another lens"
    if others or found.renamed or found.lenses or any(name not in found.columns for name in lens.new):
        raise ProblemError(
            Problem(
                code="CF116",
                what=f"{found.name[1]} has an opaque lens and {other} in one upgrade.",
                why="the new release's nodes write both shapes by the one declaration, and know the table by one name.",
                instead="put them into two upgrades: contract the first before the second.",
            )
        )
    if lost := [name for name in lens.old if name not in found.original]:
        raise ProblemError(
            Problem(
                code="CF116",
                what=f"the opaque lens of {found.name[1]} reads {', '.join(lost)}, which the old release has not.",
                why="a column between two changes of one upgrade is never stored.",
                instead="let it read the old release's own columns.",
            )
        )
    columns = {
        name: _sync_column(found.original[name] if name in found.original else found.columns[name])
        for name in (*lens.old, *lens.new)
    }
    return _make_sync(found, columns, opaque=lens)


def _make_sync(
    found: TablePlan,
    columns: Mapping[str, SyncColumn],
    *,
    groups: tuple[Group, ...] = (),
    opaque: Opaque | None = None,
) -> Sync:
    schema, table = found.name
    key = tuple(found.table.primary_key.columns)
    return Sync(
        table=table,
        schema=schema,
        key=tuple(column.name for column in key),
        key_types=tuple(column.type for column in key),
        columns=columns,
        groups=groups,
        opaque=opaque,
        marker=MARKER,
        name=stem(found.name),
    )


def _check_ends(found: TablePlan, groups: tuple[Group, ...], columns: Mapping[str, SyncColumn]) -> None:
    """A composed image may read end columns only."""
    for group in groups:
        for name, image in (*group.forward.items(), *group.backward.items()):
            if lost := expressions.references(image) - set(columns):
                raise ProblemError(
                    Problem(
                        code="CF116",
                        what=f"{found.name[1]}.{name} is computed from {', '.join(sorted(lost))},"
                        " which exists in neither release.",
                        why="a column between two changes of one upgrade is never stored, so it has no present value.",
                        instead="write one Lens from the first change's old columns to the last change's new ones.",
                    )
                )


_NULL = re.compile(r"NULL(::.*)?", re.IGNORECASE | re.DOTALL)
"""A default that says what is so without it, as SQLite and PostgreSQL keep it where it was written."""


def _sync_column(column: sa.Column[Any]) -> SyncColumn:
    text = default_text(column)
    if text is not None and _NULL.fullmatch(text.strip("() ")):
        text = None
    constant, value = constant_default(column)
    return SyncColumn(
        name=column.name,
        type=column.type,
        nullable=bool(column.nullable),
        default=text,
        default_constant=constant,
        default_value=value,
        identity=column.identity is not None or column.computed is not None,
    )
