"""``alembic upgrade --sql``: the statements of a set as text, from a recorded server."""

from __future__ import annotations

from alembic.runtime.migration import MigrationContext

from contraflow import dialects
from contraflow.alembic import record
from contraflow.alembic.settings import Settings, Through
from contraflow.engine.plans import plan_report
from contraflow.engine.report import PlanReport
from contraflow.operations.planning import Upgrade, plan, tables_of
from contraflow.problems import Problem, ProblemError

__all__ = ["downgrade", "upgrade"]

_NOTE = """\
-- Contraflow {upgrade}: {phases}, for {product} {version}.
-- Run by hand, no journal is written: {rest}
"""


def upgrade(context: MigrationContext, one: Upgrade, settings: Settings, through: Through) -> None:
    """Write the statements of expand, migrate and verify (and contract, if it goes ``through`` that) to Alembic's
    output.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF304`` if no server was recorded, or another one.
    """
    report = _report(context, one, settings)
    phases = ["expand", "migrate", "verify", *(["contract"] if through == "contract" else [])]
    rest = (
        "nothing else is left to do."
        if through == "contract"
        else "replace the nodes next, then run contract"
        " (contraflow plan --sql --phase contract writes it, before this is run)."
    )
    _write(context, report, phases, rest)


def downgrade(context: MigrationContext, one: Upgrade, settings: Settings) -> None:
    """Write the statements of rollback to Alembic's output. Raises as :func:`upgrade`."""
    report = _report(context, one, settings)
    _write(context, report, ["rollback"], "it must not be contracted.")


def _report(context: MigrationContext, one: Upgrade, settings: Settings) -> PlanReport:
    if settings.profile is None:
        raise _no_profile("none is configured")
    recorded = record.read(settings.profile)
    known = _families(recorded.profile.product)
    if context.dialect.name not in known:
        raise _no_profile(f"{settings.profile.name} is of {recorded.profile.product}, not of {context.dialect.name}")
    wanted = tables_of(one)
    phases = plan(one, {name: table for name, table in recorded.tables.items() if name in wanted})
    return plan_report(
        dialects.for_profile(recorded.profile),
        None,
        one.id,
        phases,
        timeout=settings.options.lock_timeout,
        reached=frozenset(),
    )


def _families(product: str) -> tuple[str, ...]:
    """SQLAlchemy's names for a product: MariaDB may stand behind mysql://, CockroachDB behind postgresql://."""
    return {"mariadb": ("mariadb", "mysql"), "cockroachdb": ("cockroachdb", "postgresql")}.get(product, (product,))


def _write(context: MigrationContext, report: PlanReport, phases: list[str], rest: str) -> None:
    impl = context.impl
    version = ".".join(map(str, report.version))
    note = _NOTE.format(
        upgrade=report.upgrade, phases=", ".join(phases), product=report.product, version=version, rest=rest
    )
    # Each block has a transaction of its own, where the server has them for DDL.
    with context.autocommit_block():
        impl.static_output(note.rstrip())
        for phase in phases:
            title = None
            for planned in report.phases[phase]:
                if planned.title != title:
                    title = planned.title
                    impl.static_output(f"-- {phase}: {title}")
                impl.static_output(f"{planned.statement.sql.rstrip().rstrip(';')};")


def _no_profile(reason: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF304",
            what=f"SQL for a Change needs a recorded server profile: {reason}.",
            why="what is sent depends on the server's version and settings, and on the tables as they are.",
            instead="connected to the server: contraflow plan --record production.json\n"
            "and in the configuration: [contraflow] profile = production.json",
        )
    )
