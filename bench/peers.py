"""The same change of the same table by other tools and by Contraflow, two writers beside it.

The change: ``visits`` from INTEGER to BIGINT, under its name, which rewrites every row. Contenders: one plain ``ALTER
TABLE``; pt-online-schema-change (Debian's package ``percona-toolkit``) and pg_repack (``postgresql-15-repack``), where
they are installed and for the servers that they know; Contraflow. pg_repack changes no type: it rebuilds the same table
as it is, which is the same copying of rows. What cannot be run is said in its row, with the reason.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from bench.harness import Plan, Session, Spread, database, started
from bench.report import Table, grouped
from bench.scenes import create_table, fill
from bench.writers import failures, observe
from contraflow import Declared, Runner, Upgrade, WidenColumn
from contraflow.problems import ProblemError
from contraflow.rehearsal.servers import Server

__all__ = ["measure"]

PAUSE = 0.002
SETTLE = 0.5
"""Seconds that the writers run before the change and after it."""
PERCONA = "pt-online-schema-change"
REPACK = Path("/usr/lib/postgresql/15/bin/pg_repack")
"""Where Debian's package puts it: on no path, since it belongs to one version of the server."""


class NotPossible(Exception):
    """The contender cannot make this change here; the text says why."""


@dataclass(kw_only=True)
class _Contender:
    """One way of making the change, and what was measured of it."""

    name: str
    change: Callable[[sa.URL], None]
    rebuilds_only: bool = False
    """Whether it writes the table's rows anew, and leaves the type."""
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    reason: str = ""

    def run(self, server: Server, rows: int) -> None:
        """Make the change once, beside two writers."""
        if self.reason:
            return
        with (
            _filled(server, rows) as url,
            observe(url, "users", "full_name", rows=rows, writers=2, pause=PAUSE) as seen,
        ):
            time.sleep(SETTLE)
            began = time.monotonic()
            try:
                self.change(url)
            except NotPossible as error:
                self.reason = str(error)
            ended = time.monotonic()
            time.sleep(SETTLE)
            if not self.reason and not self.rebuilds_only:
                _check_changed(url)
        self.seconds.append(ended - began)
        self.rates.append(rows / (ended - began))
        self.worst.append(seen.worst(began, ended))
        self.late.append(seen.percentile(began, ended, 0.99))
        self.errors += seen.errors

    def cells(self) -> tuple[object, ...]:
        """Its row."""
        if self.reason:
            return (self.name, *["-"] * 4, f"not run: {self.reason}")
        forms = [(self.seconds, ".1f"), (self.rates, ".0f"), (self.worst, ".0f"), (self.late, ".1f")]
        name = f"{self.name}, only rebuilding the table" if self.rebuilds_only else self.name
        return (name, *(Spread(values=tuple(values), form=form) for values, form in forms), failures(self.errors))


def measure(kind: str, plan: Plan) -> list[Table]:
    """Measure one server."""
    tables = []
    with started(kind, plan.say) as server:
        for rows in plan.rows:
            contenders = [
                _Contender(name="one ALTER TABLE", change=_alter),
                _Contender(name=_percona_version(), change=_percona),
                _Contender(name=_repack_version(), change=_repack, rebuilds_only=True),
                _Contender(name="Contraflow", change=_contraflow),
            ]
            for repetition in range(plan.repetitions):
                for contender in contenders:
                    plan.say(f"{contender.name}, {rows} rows, {repetition + 1} of {plan.repetitions}")
                    contender.run(server, rows)
            table = Table(
                title=f"INTEGER to BIGINT beside two writers, {grouped(rows)} rows",
                server=f"{kind} {server.version}",
                columns=("by", "seconds", "rows/s", "worst stall, ms", "p99, ms", "failed statements"),
            )
            for contender in contenders:
                table.add(*contender.cells())
            tables.append(table)
    return tables


@contextmanager
def _filled(server: Server, rows: int) -> Iterator[sa.URL]:
    with database(server) as url:
        with closing(Session(url)) as session:
            create_table(session.connection, "users")
            fill(session.connection, "users", rows)
        yield url


def _check_changed(url: sa.URL) -> None:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    columns = {column["name"]: column for column in sa.inspect(engine).get_columns("users")}
    if not isinstance(columns["visits"]["type"], sa.BigInteger) or columns["visits"]["nullable"]:
        raise RuntimeError(f"the change was not made: {columns['visits']}")


def _alter(url: sa.URL) -> None:
    texts = {
        "postgresql": "ALTER TABLE users ALTER COLUMN visits TYPE BIGINT",
        "mysql": "ALTER TABLE users MODIFY COLUMN visits BIGINT NOT NULL",
    }
    texts["mariadb"] = texts["mysql"]
    text = texts.get(url.get_backend_name())
    if text is None:
        raise NotPossible("SQLite has no such statement")
    with closing(Session(url)) as session:
        session.run(text)


def _percona_version() -> str:
    if shutil.which(PERCONA) is None:
        return PERCONA
    answer = subprocess.run([PERCONA, "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def _percona(url: sa.URL) -> None:
    if url.get_backend_name() not in ("mysql", "mariadb"):
        raise NotPossible("it is for MySQL and MariaDB")
    if shutil.which(PERCONA) is None:
        raise NotPossible("it is not installed")
    address = f"h={url.host},P={url.port},u={url.username},D={url.database},t=users"
    answer = subprocess.run(
        [
            PERCONA,
            "--execute",
            "--alter=MODIFY COLUMN visits BIGINT NOT NULL",
            "--recursion-method=none",
            "--max-load=Threads_running=1000",  # the writers are meant to go on
            "--critical-load=Threads_running=2000",
            address,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        lines = [line for line in (answer.stderr + answer.stdout).splitlines() if line.strip()]
        raise NotPossible(f"it ended with {answer.returncode}: {lines[-1] if lines else 'no word'}")


def _repack_version() -> str:
    if not REPACK.exists():
        return REPACK.name
    return subprocess.run([REPACK, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _repack(url: sa.URL) -> None:
    if url.get_backend_name() != "postgresql":
        raise NotPossible("it is for PostgreSQL")
    with closing(Session(url)) as session:
        known = session.connection.exec_driver_sql("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_repack'")
        if known.first() is None or not REPACK.exists():
            raise NotPossible("it is not installed for this server")
        session.run("CREATE EXTENSION pg_repack")
    answer = subprocess.run(
        [REPACK, f"--dbname={url.database}", f"--host={url.host}", f"--port={url.port}", "--table=users"],
        env={"PGUSER": url.username or "", "PGPASSWORD": url.password or ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise NotPossible(f"it ended with {answer.returncode}: {(answer.stderr or 'no word').splitlines()[-1]}")


def _contraflow(url: sa.URL) -> None:
    operation = WidenColumn(table="users", column="visits", type=sa.BigInteger(), replans=True)
    upgrade = Upgrade(old="1", new="2", changes=(Declared(revision="2", operations=(operation,)),))
    with Runner(url, upgrade) as runner:
        try:
            runner.run("contract")
        except ProblemError as error:
            raise NotPossible(str(error).splitlines()[0]) from error
