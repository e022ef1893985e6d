"""What keeps indexes and unique constraints from being built or dropped: the server, or foreign keys on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from contraflow.constraints import ForeignKey
from contraflow.dialects.base import Adapter
from contraflow.engine.schema import UNREAD, added_types, full_name
from contraflow.installed import Index, Installed
from contraflow.operations.held import index_of
from contraflow.problems import Problem
from contraflow.steps import AddColumns, Hold, MakeTable, Phases

__all__ = ["check_indexes"]


def check_indexes(connection: sa.Connection, adapter: Adapter, phases: Phases) -> Iterator[Problem]:
    """The problems that can be known before anything is built or dropped.

    ``CF205`` for what the server cannot do, ``CF111`` for each foreign key, of any table of the same schema, that needs
    a dropped index.
    """
    yield from _of_new_tables(connection, adapter, phases)
    yield from _of_new_computed(adapter, phases)
    yield from _methods(adapter, phases.installed)
    added = added_types(phases)
    inspector = sa.inspect(connection)
    for item in phases.installed:
        if item.key:
            yield from adapter.key_problems(connection, item)
    for item in phases.installed:
        if item.built or item.replaced:
            columns = inspector.get_columns(item.table, schema=item.schema)
            types = {column["name"]: column["type"] for column in columns}
            new = added.get((item.schema, item.table), {})
            yield from _not_plain(adapter, item)
            yield from adapter.index_problems(connection, item, {**types, **new})
    yield from _references(inspector, phases.installed, own=adapter.foreign_keys_need_indexes)


def _of_new_tables(connection: sa.Connection, adapter: Adapter, phases: Phases) -> Iterator[Problem]:
    """Indexes that are made with their tables: what the server cannot do, it may do otherwise without a word."""
    for block in phases.expand:
        for step in block.steps if isinstance(block, Hold) else ():
            if isinstance(step, MakeTable):
                built = tuple(index_of(index) for index in step.definition.indexes)
                item = Installed(table=step.table, schema=step.schema, built=built)
                types = {column.name: column.type for column in step.definition.columns}
                yield from _not_plain(adapter, item)
                yield from adapter.index_problems(connection, item, types)


def _methods(adapter: Adapter, installed: Sequence[Installed]) -> Iterator[Problem]:
    for item in installed:
        for index in item.built:
            if (index.using or index.storage) and not adapter.index_methods:
                yield Problem(
                    code="CF205",
                    what=f"{index.title} of {item.table} has a method or storage parameters of its own.",
                    why="only PostgreSQL's indexes have these.",
                    instead="leave out using= and storage= there.",
                )


def _not_plain(adapter: Adapter, item: Installed) -> Iterator[Problem]:
    """What neither MySQL nor MariaDB does beside writers (MySQL 9.7: error 1846; MariaDB 10.11: no such syntax)."""
    for index in item.built if adapter.plain_indexes_only else ():
        if index.is_plain:
            continue
        said = next((part for part in index.key if part not in index.columns), None)
        meant = f"CASE WHEN {index.where} THEN {index.key[0]} END" if index.where else str(said)
        yield Problem(
            code="CF205",
            what=f"{index.title} of {item.table} cannot be built: it stands on"
            f" {'a part of the rows' if index.where else 'an expression'}.",
            why="MySQL and MariaDB have no partial indexes. One over an expression MySQL builds while writers wait;"
            " MariaDB has none.",
            instead="let a column have the value, and index that: both are done beside writers.\n"
            f'AddColumn(table="{item.table}", column=sa.Column("...", ..., sa.Computed("{meant}", persisted=False))),\n'
            f'CreateIndex(table="{item.table}", name="{index.name}", columns=["..."], unique={index.unique})',
        )


def _of_new_computed(adapter: Adapter, phases: Phases) -> Iterator[Problem]:
    """Indexes over new computed columns, which contract then could not show."""
    if adapter.shows_indexed_columns:
        return
    computed = {
        (step.schema, step.table, op.column.name)
        for block in phases.expand
        if isinstance(block, Hold)
        for step in block.steps
        if isinstance(step, AddColumns)
        for op in step.columns
        if op.column.computed is not None
    }
    for item in phases.installed:
        for index in item.built:
            for name in index.columns:
                if (item.schema, item.table, name) in computed:
                    yield Problem(
                        code="CF205",
                        what=f"{index.title} cannot stand on {item.table}.{name} in the upgrade that adds it.",
                        why="the column is computed, and hidden until contract; this server shows an indexed one"
                        " only by copying the table (error 1845).",
                        instead="build the index in the next upgrade.",
                    )


def _references(inspector: sa.Inspector, installed: Sequence[Installed], *, own: bool) -> Iterator[Problem]:
    """Foreign keys on dropped indexes. ``own``: the server wants an index under their own columns too."""
    released = {
        (item.schema, item.table, gone.name, gone.columns)
        for item in installed
        for gone in item.released
        if isinstance(gone, ForeignKey)
    }
    for item in installed:
        gone = item.replaced
        if item.key and item.key.old:
            gone = (*gone, Index(name=None, columns=item.key.old, unique=True, primary=True))
        if not gone:
            continue
        left = _left(inspector, item)
        keys = inspector.get_multi_foreign_keys(schema=item.schema)
        for (_, table), found in keys.items():
            for key in found:
                if (item.schema, table, key["name"], tuple(key["constrained_columns"])) in released:
                    continue
                refers = key["referred_table"] == item.table and key["referred_schema"] in (item.schema, None)
                if refers and (index := _needed(gone, left, key["referred_columns"], unique=True)):
                    yield _problem(item, index, table, key["name"])
                own_key = own and table == item.table
                if own_key and (index := _needed(gone, left, key["constrained_columns"], unique=False)):
                    yield _problem(item, index, table, key["name"])


def _left(inspector: sa.Inspector, item: Installed) -> list[Index]:
    """The indexes and keys that stand after contract."""
    primary = tuple(inspector.get_pk_constraint(item.table, schema=item.schema)["constrained_columns"])
    found = [*item.built]
    if item.key is None:
        found.append(Index(name=None, columns=primary, unique=True, primary=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=UNREAD)
        entries = inspector.get_indexes(item.table, schema=item.schema)
        constraints = inspector.get_unique_constraints(item.table, schema=item.schema)
    for entry in entries:
        columns = tuple(name for name in entry["column_names"] if name is not None)
        only = [name for name in entry.get("dialect_options", {}) if name.endswith("_where")]
        if only or "expressions" in entry or not columns:
            continue  # no foreign key can stand on it
        found.append(Index(name=entry["name"], columns=columns, unique=bool(entry["unique"])))
    for constraint in constraints:
        columns = tuple(constraint["column_names"])
        found.append(Index(name=constraint["name"], columns=columns, unique=True, constraint=True))
    replaced = {(index.name, index.columns) for index in item.replaced}
    return [index for index in found if (index.name, index.columns) not in replaced]


def _needed(replaced: Iterable[Index], left: Iterable[Index], columns: Sequence[str], *, unique: bool) -> Index | None:
    """The dropped index without which nothing would serve a foreign key on ``columns``."""

    def serves(index: Index) -> bool:
        if not index.is_plain or not index.columns:
            return False
        if unique:
            return index.unique and set(index.columns) == set(columns)
        return set(index.columns[: len(columns)]) == set(columns)

    return None if any(map(serves, left)) else next(filter(serves, replaced), None)


def _problem(item: Installed, index: Index, table: str, name: str | None) -> Problem:
    key = f"the foreign key {name} of {table}" if name else f"a foreign key of {table}"
    return Problem(
        code="CF111",
        what=f"{index.title} of {full_name(item.schema, item.table)} cannot be dropped: {key} stands on it.",
        why="contract would fail, or leave a foreign key that no statement can check.",
        instead="drop the foreign key in an earlier revision, or keep the columns and their index.",
    )
