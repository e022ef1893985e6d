"""What keeps tables from being created, dropped or renamed: the server, or foreign keys of other tables."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.base import Adapter
from contraflow.engine.schema import full_name
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import AddColumns, Hold, MakeTable, Phases

__all__ = ["check_tables", "made_by"]


def check_tables(connection: sa.Connection, adapter: Adapter, phases: Phases) -> Iterator[Problem]:
    """The problems that can be known before any table is made.

    ``CF101`` for a foreign key of a new table that refers to nothing, ``CF111`` for one that refers to a table which
    goes, and what the server itself cannot do.
    """
    inspector = sa.inspect(connection)
    yield from _virtual(adapter, phases)
    for item in phases.installed:
        if item.renamed and not adapter.writable_views:
            yield Problem(
                code="CF205",
                what=f"{full_name(item.schema, item.table)} cannot be renamed live on {adapter.profile.product}.",
                why="its views cannot be written to, so that one of the releases would not find its table.",
                instead="keep the name: a model may have another one, its __tablename__ says which table it means.",
            )
        if item.created or item.removed or item.renamed:
            yield from adapter.table_problems(connection, item)
        if item.removed:
            yield from _references(inspector, item, phases)
    made: set[tuple[str | None, str]] = set()
    for definition in made_by(phases):
        made.add((definition.schema, definition.name))
        yield from _targets(inspector, definition, made)


def made_by(phases: Phases) -> list[sa.Table]:
    """The tables that expand creates, each after those that it refers to."""
    steps = [step for block in phases.expand if isinstance(block, Hold) for step in block.steps]
    return [step.definition for step in steps if isinstance(step, MakeTable)]


def _virtual(adapter: Adapter, phases: Phases) -> Iterator[Problem]:
    steps = [step for block in phases.expand if isinstance(block, Hold) for step in block.steps]
    added = [(step, op.column) for step in steps if isinstance(step, AddColumns) for op in step.columns]
    for step, column in added if not adapter.has_virtual_columns else ():
        if column.computed is not None:
            yield Problem(
                code="CF205",
                what=f"{step.table}.{column.name} cannot be computed by this server when it is read.",
                why="before PostgreSQL 18 it would be stored, and every row written anew while writers wait.",
                instead='declare a plain column: AddColumn(..., value=lambda row: ..., reads=[...], keep="track").',
            )


def _references(inspector: sa.Inspector, item: Installed, phases: Phases) -> Iterator[Problem]:
    gone = {(other.schema, other.table) for other in phases.installed if other.removed}
    released = {
        (other.schema, other.table, key.name, key.columns) for other in phases.installed for key in other.released
    }
    for (schema, table), keys in inspector.get_multi_foreign_keys(schema=item.schema).items():
        if (schema, table) in gone:
            continue
        for key in keys:
            if key["referred_table"] != item.table or key["referred_schema"] not in (item.schema, None):
                continue
            if (schema, table, key["name"], tuple(key["constrained_columns"])) in released:
                continue
            name = f"the foreign key {key['name']} of {table}" if key["name"] else f"a foreign key of {table}"
            yield Problem(
                code="CF111",
                what=f"the table {full_name(item.schema, item.table)} cannot be dropped: {name} refers to it.",
                why="contract would fail, or leave rows that refer to nothing.",
                instead=f"drop the foreign key (DropForeignKey), or {table}, in this upgrade too.",
            )


def _targets(inspector: sa.Inspector, definition: sa.Table, made: set[tuple[str | None, str]]) -> Iterator[Problem]:
    for key in definition.foreign_key_constraints:
        target = key.referred_table
        if (target.schema, target.name) in made:
            continue
        title = full_name(target.schema, target.name)
        if not inspector.has_table(target.name, schema=target.schema):
            missing = title
        else:
            there = {column["name"] for column in inspector.get_columns(target.name, schema=target.schema)}
            names = [column.name for column in target.columns if column.name not in there]
            if not names:
                continue
            missing = f"{title}.{names[0]}"
        yield Problem(
            code="CF101",
            what=f"{definition.name} refers to {missing}, which does not exist.",
            instead="check the foreign key's target, or create that table first.",
        )
