"""The same upgrade in different ways, each rehearsed: what fails, what is lost, how long somebody waits.

The rehearsal is the one that ``contraflow rehearse`` does: generated rows and requests of both releases, and the same
judgement of every value. Only what carries out expand, migrate and contract differs; see `bench.ways`.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from bench import ways
from bench.harness import Plan, product_of
from bench.report import Table
from contraflow.faults import Fault, classify
from contraflow.problems import ContraflowError
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from tests.alembic.project import Project

__all__ = ["measure"]

SCENES = {
    "rename": """
change = Change(RenameColumn(table="users", old="full_name", new="display_name"))
upgrade, downgrade = change.upgrade, change.downgrade
""",
    "split": """
change = Change(TransformColumns(
    table="users",
    columns=[sa.Column(name, sa.String(200), nullable=False) for name in ("first_name", "last_name")],
    lens=Lens(
        old=["full_name"], new=["first_name", "last_name"],
        forward=lambda row: {"first_name": before(row.full_name, " "), "last_name": after(row.full_name, " ")},
        backward=lambda row: {"full_name": substr(trim(concat(row.first_name, " ", row.last_name)), 1, 200)},
        lossy=True,
    ),
))
upgrade, downgrade = change.upgrade, change.downgrade
""",
}
_IMPORTS = "from contraflow.expressions import substr\n"
_USERS = """
def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("full_name", sa.String(200), nullable=False),
        sa.Column("age", sa.Integer()),
    )


def downgrade():
    op.drop_table("users")
"""
_CELL = 140
_LOCK_TIMEOUT = "500ms"
"""What pgroll waits for a lock by default before it steps back and tries again."""


def measure(kind: str, plan: Plan) -> list[Table]:
    """Rehearse every way that there is on this server; none on SQLite, where nobody rolls nodes."""
    product = product_of(kind)
    rows = min(*plan.rows, 2000)
    seconds = min(24.0, max(plan.rows) / 400)
    tables = []
    for scene, body in SCENES.items():
        chosen = [way for way, products in ways.WAYS.items() if product in products]
        if not chosen:
            continue
        table = Table(
            title=f"{scene}: {rows} rows, {seconds:g} s of load, 4 workers of each release",
            columns=(
                "way",
                "requests",
                "failed",
                "lost or wrong",
                "worst wait, ms",
                "its own time, s",
                "ended",
                "what came first",
            ),
        )
        for way in [*chosen, "Contraflow"]:
            plan.say(f"{scene} by {way} on {kind}")
            record = _rehearse(kind, way, scene, body, rows, seconds)
            table.server = f"{record.server} {record.server_version}"
            table.add(*_row(way, record))
        tables.append(table)
    return tables


def _rehearse(kind: str, way: str, scene: str, body: str, rows: int, seconds: float) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):  # Alembic tells of each file that it makes
            project = Project(Path(folder) / "service", "sqlite://")
        project.revision("old", None, _USERS)
        project.revision("new", "old", _IMPORTS + body)
        instead = None if way == "Contraflow" else _by(ways.statements(way, product_of(kind), scene), way)
        return Rehearsal(config=project.ini, on=kind, rows=rows, seconds=seconds, seed=1, instead=instead).run()


def _by(script: ways.Script, way: str) -> Callable[[str, sa.URL], None]:
    def carry_out(verb: str, url: sa.URL) -> None:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        try:
            if way == "plain":
                # As Alembic runs a revision: in one transaction, where the server has such for DDL.
                with engine.begin() as connection:
                    for statement in script.get(verb, ()):
                        connection.exec_driver_sql(statement)
                return
            for statement in script.get(verb, ()):
                while _run(engine, statement.removeprefix(ways.BACKFILL), way) and statement.startswith(ways.BACKFILL):
                    pass
            if way == "pgroll" and verb == "verify":
                # From here on new sessions are the new release's: those of the old one stay connected.
                _run(engine, f'ALTER DATABASE "{url.database}" SET search_path = {ways.PGROLL_SCHEMA}', way)
            if way == "pgroll" and verb == "contract":
                _run(engine, f'ALTER DATABASE "{url.database}" RESET search_path', way)
        except sa.exc.DBAPIError as error:
            raise ContraflowError(f"the upgrade failed: {error.orig}") from error

    return carry_out


def _run(engine: sa.Engine, statement: str, way: str) -> int:
    """Run one statement in a transaction of its own; pgroll's again as long as it finds a lock taken."""
    while True:
        try:
            with engine.begin() as connection:
                if way == "pgroll":
                    connection.exec_driver_sql("SET LOCAL search_path = public")
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                return connection.exec_driver_sql(statement).rowcount
        except sa.exc.DBAPIError as error:
            if way != "pgroll" or classify(error) is not Fault.LOCK_TIMEOUT:
                raise
            time.sleep(0.05)


def _row(way: str, record: Record) -> tuple[str, ...]:
    kinds = {
        name.removeprefix("findings: "): number
        for name, number in record.counts.items()
        if name.startswith("findings: ")
    }
    wrong = sum(number for kind, number in kinds.items() if kind not in {"failed", "structure"})
    began = next(phase.began for phase in record.phases if phase.name == "old release alone")
    worst = max(bucket.worst_ms for bucket in record.buckets if bucket.at >= began)
    verbs = ("expand", "migrate", "verify", "contract")
    own = sum(phase.ended - phase.began for phase in record.phases if phase.name in verbs)
    last = record.phases[-1].name
    return (
        way,
        f"{record.counts['requests']:,}",
        f"{kinds.get('failed', 0):,}",
        f"{wrong:,}",
        f"{worst:.0f}",
        f"{own:.1f}",
        "whole" if last == "checking every row at the end" else f"stuck in {last}",
        _first(record),
    )


def _first(record: Record) -> str:
    """The first thing that went wrong, without the driver's own words around it."""
    if not record.findings:
        return record.reason if record.verdict != "passed" else ""
    finding = record.findings[0]
    text = " ".join(f"{finding.kind}: {finding.what}".replace("|", "/").split())
    return text if len(text) <= _CELL else f"{text[:_CELL]}…"
