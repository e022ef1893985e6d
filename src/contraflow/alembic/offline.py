"""``alembic upgrade --sql``: the statements of a set as text, from a recorded server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from alembic.runtime.migration import MigrationContext

from contraflow import dialects
from contraflow.alembic import record
from contraflow.alembic.settings import Settings, Through
from contraflow.dialects.base import Adapter, Found
from contraflow.engine.checks import check_names
from contraflow.engine.plans import statements
from contraflow.engine.widening import takes_wider_types
from contraflow.operations.planning import Upgrade, plan, tables_of
from contraflow.problems import Problem, ProblemError
from contraflow.steps import (
    Backfill,
    Block,
    BuildConstraint,
    BuildIndex,
    Hold,
    MakeConstraints,
    Online,
    RelaxNotNull,
    RestoreNotNull,
    WidenColumns,
)

__all__ = ["downgrade", "upgrade"]

# What an adapter's prepare() does to the engine's own sessions, as far as the statements' meaning hangs on it.
_SESSION = {
    "postgresql": ("SET standard_conforming_strings = on",),
    "cockroachdb": (),
    "sqlite": (),
    "mysql": (
        "SET NAMES utf8mb4",
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
        "SET SESSION time_zone = '+00:00'",
    ),
}
_SESSION["mariadb"] = _SESSION["mysql"]

_RELAXING = (RelaxNotNull, RestoreNotNull, WidenColumns)
_EVERY_ROW = str(2**63 - 1)


def upgrade(context: MigrationContext, one: Upgrade, settings: Settings, through: Through) -> None:
    """Write the statements of expand, migrate and verify to Alembic's output.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF304`` if no server was recorded, or another one, or
    if it should go ``through`` contract, whose statements depend on what expand leaves.
    """
    if through == "contract":
        raise _not_possible("contract's statements depend on the tables as expand leaves them")
    recorded, adapter = _recorded(context, settings)
    wanted = tables_of(one)
    tables = {name: table for name, table in recorded.tables.items() if name in wanted}
    phases = plan(one, tables, write=adapter.condition)
    ProblemError.raise_any(check_names(adapter, phases.installed))
    _write(
        context,
        f"{one.id}: expand, migrate and verify",
        adapter,
        (*phases.expand, *phases.migrate, *phases.verify),
        recorded.found,
        settings.options.lock_timeout,
    )


def downgrade(context: MigrationContext, one: Upgrade, settings: Settings) -> None:
    """Write the statements of rollback to Alembic's output. Raises as :func:`upgrade`."""
    recorded, adapter = _recorded(context, settings)
    wanted = tables_of(one)
    tables = {name: table for name, table in recorded.tables.items() if name in wanted}
    phases = plan(one, tables, write=adapter.condition)
    _write(context, f"{one.id}: rollback", adapter, phases.rollback, {}, settings.options.lock_timeout)


def _recorded(context: MigrationContext, settings: Settings) -> tuple[record.Recorded, Adapter]:
    if settings.profile is None:
        raise _not_possible("no server was recorded")
    recorded = record.read(settings.profile)
    product = recorded.profile.product
    # MariaDB may stand behind mysql://, CockroachDB behind postgresql://.
    known = {"mariadb": ("mariadb", "mysql"), "cockroachdb": ("cockroachdb", "postgresql")}.get(product, (product,))
    if context.dialect.name not in known:
        raise _not_possible(f"{settings.profile.name} is of {product}, the URL of {context.dialect.name}")
    return recorded, dialects.for_profile(recorded.profile)


def _write(
    context: MigrationContext,
    title: str,
    adapter: Adapter,
    blocks: Sequence[Block],
    found: record.FoundTables,
    timeout: float,
) -> None:
    for block in blocks:
        if isinstance(block, Online) and isinstance(block.step, Backfill) and block.step.sync.opaque is not None:
            raise _not_possible(f"the opaque lens of {block.table} is Python code, which no SQL can stand for")
        relaxing = isinstance(block, Hold) and any(isinstance(step, _RELAXING) for step in block.steps)
        if relaxing and adapter.sync_after_store:
            raise _not_possible(f"on {adapter.profile.product}, {block.table} is changed in its stored text")
        step = block.step if isinstance(block, Online) else None
        if isinstance(step, WidenColumns) and adapter.fill_shadows(step, found.get((block.schema, block.table))):
            raise _not_possible(f"the swap of wider columns depends on how {block.table} looks by then")
        if takes_wider_types(block):
            raise _not_possible(f"a rollback has to look whether the rows of {block.table} fit the old type")
    product = adapter.profile.product
    output = context.impl.static_output
    # Each block has a transaction of its own, where the server has them for DDL.
    with context.autocommit_block():
        version = ".".join(map(str, adapter.profile.version))
        output(f"-- Contraflow {title}, for {product} {version}.\n-- No journal is written: see docs/alembic.md.")
        for statement in _SESSION.get(product, ()):
            output(f"{statement};")
        for block in blocks:
            output(f"-- {block.title}")
            for text in _texts(adapter, block, found.get((block.schema, block.table)), timeout):
                output(_delimited(text, product))


def _texts(adapter: Adapter, block: Block, found: Found | None, timeout: float) -> Iterator[str]:
    if isinstance(block, Online) and isinstance(block.step, Backfill):
        # By key ranges a backfill needs a program; without a key it takes as many rows as it is told.
        whole = Backfill(sync=replace(block.step.sync, key=(), key_types=()))
        fill = adapter.backfill(whole, found).fill
        yield re.sub(r"(?<!\\):limit\b", _EVERY_ROW, fill).replace("\\:", ":")
        return
    # An index may stand on columns that expand adds: what was recorded says nothing of them.
    after_expand = isinstance(
        block.step if isinstance(block, Online) else block.steps[0], (BuildConstraint, BuildIndex, MakeConstraints)
    )
    yield from (statement.sql for statement in statements(adapter, block, None if after_expand else found, timeout))


def _delimited(text: str, product: str) -> str:
    """One statement, ended so that the server's own command line client sends it whole."""
    text = text.rstrip().rstrip(";")
    if product in ("mysql", "mariadb") and ";" in text:
        return f"DELIMITER //\n{text}//\nDELIMITER ;"
    return f"{text};"


def _not_possible(reason: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF304",
            what=f"no SQL can be written for a Change: {reason}.",
            why="what is sent depends on the server's version and settings, and on the tables as they are.",
            instead="connected to the server: contraflow plan --record production.json\n"
            "and in the configuration: [contraflow] profile = production.json",
        )
    )
