"""``alembic upgrade --sql``: the statements of a set as text, from a recorded server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from alembic.runtime.migration import MigrationContext

from contraflow import dialects
from contraflow.alembic import record
from contraflow.alembic.offline_journal import OfflineJournal
from contraflow.alembic.settings import Settings, Through
from contraflow.dialects.base import Adapter, Found
from contraflow.engine.checks import check_names
from contraflow.engine.journal import Tables
from contraflow.engine.plans import programs, statements
from contraflow.engine.report import State
from contraflow.engine.widening import takes_wider_types
from contraflow.installed import Index
from contraflow.operations.planning import Upgrade, plan, tables_of
from contraflow.problems import Problem, ProblemError
from contraflow.steps import (
    AllowNull,
    Backfill,
    Block,
    BuildConstraint,
    BuildIndex,
    FillNulls,
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
    ProblemError.raise_any(check_names(adapter, phases))
    blocks = (*phases.expand, *phases.migrate, *phases.verify)
    _check(blocks, adapter, recorded.found)
    journal = OfflineJournal(adapter, context.dialect, Tables(settings.options.schema), one)
    sql = programs(adapter, lambda table, schema: recorded.found.get((schema, table)), phases)
    script = _Script(adapter=adapter, found=recorded.found, timeout=settings.options.lock_timeout)
    script.write(
        context,
        f"{one.id}: expand, migrate and verify",
        [
            *journal.begin(phases.installed, sql),
            *phases.expand,
            *journal.reach("expand", State.EXPANDED, following="migrate"),
            *phases.migrate,
            *journal.reach("migrate", State.MIGRATED),
            *phases.verify,
        ],
    )


def downgrade(context: MigrationContext, one: Upgrade, settings: Settings) -> None:
    """Write the statements of rollback to Alembic's output. Raises as :func:`upgrade`."""
    recorded, adapter = _recorded(context, settings)
    wanted = tables_of(one)
    tables = {name: table for name, table in recorded.tables.items() if name in wanted}
    phases = plan(one, tables, write=adapter.condition)
    _check(phases.rollback, adapter, {})
    journal = OfflineJournal(adapter, context.dialect, Tables(settings.options.schema), one)
    script = _Script(adapter=adapter, found={}, timeout=settings.options.lock_timeout)
    script.write(context, f"{one.id}: rollback", [*phases.rollback, *journal.reach("rollback", State.ROLLED_BACK)])


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


def _check(blocks: Sequence[Block], adapter: Adapter, found: record.FoundTables) -> None:
    """Raise ``CF304`` for a block that is more than SQL."""
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


@dataclass(frozen=True, kw_only=True)
class _Script:
    """What is written for one upgrade."""

    adapter: Adapter
    found: record.FoundTables
    timeout: float

    def write(self, context: MigrationContext, title: str, parts: Sequence[Block | str]) -> None:
        """Blocks, and statements for the journal between them."""
        profile = self.adapter.profile
        output = context.impl.static_output
        # Each block has a transaction of its own, where the server has them for DDL.
        with context.autocommit_block():
            version = ".".join(map(str, profile.version))
            output(f"-- Contraflow {title}, for {profile.product} {version}.")
            for statement in _SESSION.get(profile.product, ()):
                output(f"{statement};")
            for part in parts:
                if isinstance(part, str):
                    output(_delimited(part, profile.product))
                    continue
                output(f"-- {part.title}")
                for text in _texts(self.adapter, part, self.found.get((part.schema, part.table)), self.timeout):
                    output(_delimited(text, profile.product))


def _texts(adapter: Adapter, block: Block, found: Found | None, timeout: float) -> Iterator[str]:
    if isinstance(block, Online) and isinstance(block.step, Backfill):
        # By key ranges a backfill needs a program; without a key it takes as many rows as it is told.
        whole = Backfill(sync=replace(block.step.sync, key=(), key_types=()))
        fill = adapter.backfill(whole, found).fill
        yield re.sub(r"(?<!\\):limit\b", _EVERY_ROW, fill).replace("\\:", ":")
        return
    if isinstance(block, Online) and isinstance(block.step, FillNulls):
        step = block.step
        if isinstance(step.violated, Index):
            raise _not_possible(f"rows that are alike under {step.violated.name} are mended in ranges of the key")
        yield adapter.mend(replace(step, mend=replace(step.mend, key=()))).fill.replace("\\:", ":")
        return
    # An index may stand on columns that expand adds: what was recorded says nothing of them.
    after_expand = isinstance(
        block.step if isinstance(block, Online) else block.steps[0],
        (AllowNull, BuildConstraint, BuildIndex, MakeConstraints),
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
