"""One rehearsal: the upgrade of an Alembic project, live on a scratch server, under the load of both releases."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa

from contraflow.engine import report
from contraflow.engine.runner import Runner
from contraflow.engine.schema import old_shape
from contraflow.operations.planning import plan, tables_of
from contraflow.problems import ContraflowError, ProblemError
from contraflow.rehearsal import faults as kinds
from contraflow.rehearsal import recorded, servers
from contraflow.rehearsal.checking import check, tell_keys
from contraflow.rehearsal.clients import Client
from contraflow.rehearsal.control import Control, differences
from contraflow.rehearsal.desk import Desk
from contraflow.rehearsal.faults import Fault
from contraflow.rehearsal.history import History
from contraflow.rehearsal.injector import Injector
from contraflow.rehearsal.models import Models, models
from contraflow.rehearsal.nodes import Node, Workload
from contraflow.rehearsal.oracle import Stage
from contraflow.rehearsal.project import Project
from contraflow.rehearsal.reach import Way, find
from contraflow.rehearsal.record import Backfilled, FaultRecord, Finding, Lock, Phase, Plain, Record, Try, Verdict
from contraflow.rehearsal.recorded import Replay, Without
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.runner_process import Verb
from contraflow.rehearsal.script import run_script
from contraflow.rehearsal.shapes import columns_of

__all__ = ["Meanwhile", "Rehearsal"]

Progress = Callable[[str], None]
Meanwhile = Callable[[str, sa.Engine], None]
"""Called at the beginning of each phase, with its name and an engine for the database under rehearsal."""


_RELEASES: tuple[Side, Side] = ("old", "new")
_TOO_LATE = ("rolled-back", "verify")
_HOT_ROWS = 2
"""How many rows of each table every client writes."""


def _silent(_line: str) -> None:
    """Drop a line of progress."""


def _nothing(_phase: str, _engine: sa.Engine) -> None:
    """Do nothing meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """How an upgrade is rehearsed on one server. `run` does it.

    :ivar config: the alembic.ini or pyproject.toml of the project; None: found as Alembic finds it.
    :ivar section: Alembic's section of it.
    :ivar arguments: Alembic's ``-x``, passed on to env.py.
    :ivar revisions: ``OLD:NEW``, or only NEW, or empty: from before the last unbroken chain of Changes to the head.
    :ivar on: a kind of server that `contraflow.rehearsal.servers.start` knows; or ``cockroachdb``, with ``url``.
    :ivar url: a server that runs anyway, whose account may create databases, instead of ``on``. What is made there is
        dropped at the end.
    :ivar seconds: how long the load lasts, besides the time that starting and upgrading takes.
    :ivar workers: how many clients send requests at a time, and how many connections each release has.
    :ivar rows: how many rows each table has at least when the upgrade begins.
    :ivar seed: makes the clients' choices repeatable (not their interleaving).
    :ivar faults: what strikes meanwhile; see `contraflow.rehearsal.faults.plan` and ``parse``.
    :ivar data: a file of SQL statements, run in the old release's schema before anything else: rows of one's own.
    :ivar old_workload: how the old release's transactions are made and carried out.
    :ivar new_workload: likewise. Both or neither have a ``call`` or recordings; with one, nobody can foretell a row:
        then a call that raises is a finding, or a recorded statement that fails and does not fail without the upgrade;
        and at each check a row whose two sides do not agree. With recordings no rows are generated.
    :ivar sql_rate: recorded transactions a second of each session; None: as fast as they are answered.
    :ivar instead: carries out each verb instead of Contraflow, to compare other ways of upgrading; no fault strikes it.
    :ivar command: what to type to have the same again, for the record.
    """

    config: str | Path | None = None
    section: str = "alembic"
    arguments: tuple[str, ...] = ()
    revisions: str = ""
    on: str = "sqlite"
    url: str | None = None
    seconds: float = 20.0
    workers: int = 4
    rows: int = 200
    seed: int = 0
    faults: tuple[Fault, ...] = ()
    data: str | Path | None = None
    old_workload: Workload = field(default_factory=Workload)
    new_workload: Workload = field(default_factory=Workload)
    sql_rate: float | None = None
    instead: Callable[[Verb, sa.URL], None] | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.rows < 0 or self.seconds <= 0:
            raise ValueError("a rehearsal needs a worker, seconds above 0 and rows of 0 or more")
        if self.sql_rate is not None and self.sql_rate <= 0:
            raise ValueError("a rate of recorded transactions is above 0")
        if self.old_workload.own != self.new_workload.own:
            raise ValueError("a rehearsal needs the workload of both releases, or of neither")

    def run(self, *, progress: Progress = _silent, meanwhile: Meanwhile = _nothing) -> Record:
        """Rehearse the upgrade, and judge it.

        Nothing is left behind, also after an exception or Ctrl-C: no process, no file, no database. ``progress`` gets a
        line of text at each stage. ``meanwhile`` may do harm, to see whether it is noticed.

        :raises ProblemError: before anything is rehearsed: what `Project` raises, CF201, CF203, CF204, CF206 or CF207
            if the server cannot be used, and what the project's own revisions run into. What goes wrong later is in
            the record.
        """
        project = Project(self.config, section=self.section, arguments=self.arguments, revisions=self.revisions)
        with ExitStack() as stack:
            server = stack.enter_context(find(self.on, self.url, progress))
            urls: list[sa.URL] = []
            for _ in range(3):
                urls.append(server.create_database())
                stack.callback(server.drop_database, urls[-1])
            progress(f"creating the schemas of {project.old} and {project.new} on {server.kind} {server.version}")
            project.prepare(urls[0], project.old)
            if self.data is not None:
                progress(f"loading {self.data}")
                run_script(urls[0], Path(self.data).read_text(encoding="utf-8"))
            project.prepare(urls[1], project.old)
            project.prepare(urls[2], project.new)
            replays = recorded.replays(
                {"old": self.old_workload, "new": self.new_workload},
                project=project,
                server=server,
                data=self.data,
                rate=self.sql_rate,
                stack=stack,
            )
            run = _Run(
                options=self,
                project=project,
                server=server,
                url=urls[0],
                control=Control({"old": urls[1], "new": urls[2]}),
                replays=replays,
                progress=progress,
                meanwhile=meanwhile,
            )
            stack.callback(run.close)
            return run.run()


class _Run:
    """A rehearsal while it runs: the stage on which its faults strike."""

    def __init__(
        self,
        *,
        options: Rehearsal,
        project: Project,
        server: servers.Server,
        url: sa.URL,
        control: Control,
        replays: Mapping[Side, tuple[Replay, Without]],
        progress: Progress,
        meanwhile: Meanwhile,
    ) -> None:
        self.options = options
        self.project = project
        self.server = server
        hurt = any(kinds.KINDS[fault.kind].needs == "network" for fault in options.faults)
        self._way = Way(server, url, proxy=hurt)
        self.url, self.urls, self.proxies = self._way.url, self._way.urls, self._way.proxies
        self.control = control
        self.started = dt.datetime.now(dt.timezone.utc)
        self.history = History(self.now)
        self.phases: list[Phase] = []
        self.backfilled: list[Backfilled] = []
        self.locks: list[Lock] = []
        self.tries: list[Try] = []
        self.faults: list[FaultRecord] = []
        self.notes: list[str] = []
        self._began = time.monotonic()
        self._tell = progress
        self._meanwhile = meanwhile
        self._engine = sa.create_engine(self.url, poolclass=sa.pool.NullPool)
        self._idle = threading.Event()
        self._started: list[Node] = []
        self._versions: dict[str, str] = {}
        self._broken: Exception | None = None
        self.tables = sorted(tables_of(project.upgrade), key=str)
        made = self._models()
        self.notes += made.notes
        self._unjudged = made.unjudged
        self._opaque = any(table.opaque for table in made.tables.values())
        # With an opaque lens verify comes when the old release is gone: there is nothing to roll back to.
        faults = [each for each in options.faults if not (self._opaque and (each.kind, each.phase) == _TOO_LATE)]
        self._injector = Injector(faults, self, source=project.source, seed=options.seed, sleep=self._sleep)
        self.desk = Desk(
            tables=made.tables,
            pairs=made.pairs,
            relations=made.relations,
            history=self.history,
            seed=options.seed,
            clients=options.workers,
            control=control.fails,
            calls=options.old_workload.own,
            replays=replays,
            crowd=2 * -(-options.rows // options.workers) + 20,
        )
        self.clients = [Client(number, self.desk) for number in range(options.workers)]

    def now(self) -> float:
        """Seconds since the rehearsal began."""
        return time.monotonic() - self._began

    # -- what the faults tell ----------------------------------------------------------------------------------------

    def struck(self, fault: FaultRecord) -> None:
        """A fault is over."""
        self.faults.append(fault)

    def tried(self, one: Try) -> None:
        """A start of the runner is over."""
        self.tries.append(one)

    def found(self, finding: Finding) -> None:
        """Something is wrong that no fault excuses."""
        self.history.add(finding)

    def progress(self, progress: report.Progress) -> None:
        """What the runner tells."""
        if progress.total is not None:
            table = progress.title.removeprefix("backfill ")
            self.backfilled.append(Backfilled(at=self.now(), table=table, done=progress.done, total=progress.total))
        elif progress.message == "waiting for a lock":
            waited = self.project.options.lock_timeout * 1000
            self.locks.append(Lock(at=self.now(), statement=progress.title, ms=waited, granted=False))

    # -- the script --------------------------------------------------------------------------------------------------

    def run(self) -> Record:
        """Everything from the first row to the record."""
        refused: ContraflowError | None = None
        try:
            self._begin()
            self._upgrade()
        except ContraflowError as error:
            refused = error
        self._stop_clients()
        return self._judge(refused)

    def _begin(self) -> None:
        self.desk.nodes["old"] = self._node("old")
        with self._phase("loading rows"):
            self._adopt()
            if not self.options.old_workload.recordings:
                self._load()
        for name, table in self.desk.tables.items():
            if (
                not self.desk.replays
                and self.options.rows
                and table.knows("old")
                and not any(client.items[name] for client in self.clients)
            ):
                self.notes.append(f"{table.shape('old').title} has no row: it refuses what is generated for it")
        for name, table in self.desk.tables.items():
            if table.knows("old") and not self.desk.calls:
                self.desk.hot += self.clients[0].give_hot(name, _HOT_ROWS)
        for client in self.clients:
            client.start()

    def _upgrade(self) -> None:
        share = self.options.seconds / 6
        self._serve("old", "old release alone", share)
        self.project.lead(self.url)
        self._roll_forward()
        self._serve("both", "both releases", 4 * share)
        self._check_rows("before contract")
        self._end("old")
        if self._opaque:
            # What the old release wrote last is still to be computed, and before that nothing is whole.
            self._verb("migrate")
            self._verb("verify")
        self._verb("contract")
        self._move(Stage.NEW)
        self._serve("new", "new release alone", share)
        self._stop_clients()
        self._check_rows("at the end")
        for what in differences(self._engine, self.control.engine("new")):
            self.history.find("structure", what)

    def _roll_forward(self) -> None:
        """From the old release alone to both."""
        self._move(Stage.WINDOW)
        self._verb("expand")
        self._verb("migrate")
        if not self._opaque:
            self._verb("verify")
        with self._phase("new release starts"):
            self.project.follow(self.url)
            self._move(Stage.BOTH)
            self._start("new")
        self._check_rows("once migrated")

    def take_back(self) -> str:
        """End the new release, roll the upgrade back while the old one works, look at everything, and begin anew."""
        self._check_rows("before the new release is taken back")
        self._end("new")
        try:
            self._verb("rollback")
        except ProblemError as error:
            if {problem.code for problem in error.problems} != {"CF015"}:
                raise
            # Rightly: the new release has written what the old one could not read. Nothing is changed.
            self.notes.append(f"the new release cannot be taken back once it has written: {_first_line(error)}")
            self._start("new")
            return "refused, so the new release went on"
        self._move(Stage.OLD)
        with self._phase("the old release alone again"):
            self._sleep(self.options.seconds / 20)
        self._check_rows("after the rollback")
        for what in differences(self._engine, self.control.engine("old")):
            self.history.find("structure", f"after the rollback, {what}")
        self._roll_forward()
        return "rolled back, and upgraded again"

    def _serve(self, phase: kinds.Phase, name: str, seconds: float) -> None:
        with self._phase(name):
            self._injector.pass_time(phase, seconds)

    def _sleep(self, seconds: float) -> None:
        until = self.now() + seconds
        # A client that ends by itself is a fault of the rehearsal: no need to wait for the rest.
        while self.now() < until and all(client.error is None for client in self.clients):
            self._idle.wait(min(0.2, max(0.0, until - self.now())))

    def _verb(self, verb: Verb) -> None:
        with self._phase(verb):
            if self.options.instead is None:
                self._injector.carry_out(verb)
            else:
                self.options.instead(verb, self.url)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._tell(f"{name} ({self.history.requests} requests so far)")
        began = self.now()
        try:
            self._meanwhile(name, self._engine)
            yield
        finally:
            self.phases.append(Phase(name=name, began=began, ended=self.now()))

    # -- releases ----------------------------------------------------------------------------------------------------

    def _node(self, release: Side) -> Node:
        options = self.options
        try:
            node = Node(
                release=release,
                url=self._way.workers,
                tables=columns_of(table.shape(release) for table in self.desk.tables.values() if table.knows(release)),
                workers=options.workers,
                workload=options.old_workload if release == "old" else options.new_workload,
                upgrade=self.project.arguments if self._opaque and release == "new" and not self.desk.calls else None,
            )
        except ProblemError as error:
            self._broken = error
            raise
        self._started.append(node)
        ours = _versions(self.url)
        self._versions.update(
            {f"{name} of the {release} release": told for name, told in node.versions.items() if told != ours.get(name)}
        )
        return node

    def _start(self, release: Side) -> None:
        node = self._node(release)
        with self._standstill():
            self.desk.nodes[release] = node
            self.desk.ending = False

    def _end(self, release: Side) -> None:
        with self._standstill():
            tell_keys(self.desk, self.clients)
            node = self.desk.nodes.pop(release)
            self.desk.ending = True
        node.stop()

    def _move(self, stage: Stage) -> None:
        """Tell everybody which releases write from now on, and what that makes of every row."""
        with self._standstill():
            for client in self.clients:
                client.move(stage)
            for hot in self.desk.hot if stage is Stage.OLD else ():
                hot.rolled_back()
            self.desk.stage = stage
            self.desk.ending = False

    @contextmanager
    def _standstill(self) -> Iterator[None]:
        self.desk.close()
        try:
            yield
        finally:
            self.desk.open()

    def _adopt(self) -> None:
        """Rows that the project's own revisions have made."""
        node = self.desk.nodes["old"]
        for name, table in self.desk.tables.items():
            if table.knows("old"):
                answer = node.ask(0, {"statements": [("all", table.shape("old").title)]})
                shape = table.shape("old")
                names = {*shape.key, *(name for columns in shape.unique for name in columns)}
                rows = answer.results[0] if answer.ok else ()
                self.desk.reserve(row[column] for row in rows for column in names)
                pair = self.desk.companions.get(name)
                seen = Counter(tuple(row[column] for column in shape.key) for row in rows)
                alike = sum(times for values, times in seen.items() if times > 1 or None in values)
                if shape.keyless and alike:
                    told = f"{alike} rows that were there are not judged: their {shape.key[0]} does not tell them apart"
                    self.notes.append(f"{shape.title}: {told}")
                for number, row in enumerate(rows):
                    identity = tuple(row[column] for column in shape.key)
                    if shape.keyless and (None in identity or seen[identity] > 1):
                        self.clients[0].abandoned[name].append(dict(zip(shape.key, identity, strict=True)))
                        continue  # the workload's own rows can be told apart, these cannot
                    # Rows that belong together are one client's, whichever these are.
                    related = name in self.desk.related
                    owner, main = self.clients[0 if related else number % len(self.clients)], None
                    if pair is not None:
                        key = pair.main_key({column: row[column] for column in shape.key})
                        found = ((client, client.find(pair.main, key)) for client in self.clients)
                        owner, main = next((each for each in found if each[1] is not None), (owner, None))
                    owner.adopt(name, row, main)

    def _load(self) -> None:
        """The rows that are there before the upgrade, made by the old release."""
        threads = [
            threading.Thread(target=self._load_by, args=(client,), name=f"load-{client.number}")
            for client in self.clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _load_by(self, client: Client) -> None:
        share = -(-self.options.rows // len(self.clients))
        try:
            client.load(share)
        except BaseException as error:  # noqa: BLE001 - the rehearsal reports it
            client.error = error

    def _stop_clients(self) -> None:
        self.desk.open()
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.join()

    # -- what is known -----------------------------------------------------------------------------------------------

    def _models(self) -> Models:
        upgrade = self.project.upgrade
        with Runner(self.url) as runner, self._engine.connect() as connection:
            phases = plan(upgrade, old_shape(connection, runner.adapter, tables_of(upgrade)))
        opaque = self.options.new_workload.python is None
        return models(upgrade, phases, self.control.shapes["old"], self.control.shapes["new"], opaque=opaque)

    def _check_rows(self, moment: str) -> None:
        """Hold every row, as each release that serves reads it, against what is known."""
        with self._phase(f"checking every row {moment}"), self._standstill():
            check(self.desk, self.clients)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _judge(self, refused: ContraflowError | None) -> Record:
        errors = [error for error in (self._broken, *(client.error for client in self.clients)) if error is not None]
        findings = self.history.findings
        verdict: Verdict = "passed"
        told = "the two sides of every row agree" if self.desk.calls else "every value is what was written or its image"
        reason = f"{self.history.requests} requests, none failed; {told}"
        if self._unjudged and not self.desk.calls:
            reason += f". NOT MODELLED, and so not judged: {', '.join(self._unjudged)}; see the notes"
        if errors:
            verdict, reason = "error", f"the rehearsal broke: {_first_line(errors[0])}"
        elif refused is not None:
            verdict, reason = "failed", f"the upgrade was refused: {_first_line(refused)}"
        elif not self.desk.calls and not self._touched():
            verdict = "error"
            reason = "no table that the upgrade changes was written (see the notes): give both releases' own workload"
        if findings and not errors:
            more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
            verdict, reason = "failed", f"{findings[0].kind}: {findings[0].what}{more}"
        options: dict[str, Plain] = {
            "seconds": self.options.seconds,
            "workers": self.options.workers,
            "rows": self.options.rows,
            "faults": " ".join(map(str, self.options.faults)) or "none",
        }
        options.update({f"note {number}": note for number, note in enumerate(self.notes, 1)})
        return Record(
            started=self.started,
            seconds=self.now(),
            seed=self.options.seed,
            command=self.options.command,
            server=self.server.kind,
            server_version=self.server.version,
            versions={**_versions(self.url), **self._versions},
            old=self.project.old,
            new=self.project.new,
            options=options,
            phases=tuple(self.phases),
            buckets=self.history.buckets,
            stalls=tuple(replace(stall, phase=self._at(stall.at)) for stall in self.history.stalls),
            faults=tuple(self.faults),
            progress=tuple(self.backfilled),
            locks=tuple(self.locks),
            tries=tuple(self.tries),
            findings=findings,
            counts=self.history.counts,
            verdict=verdict,
            reason=reason,
        )

    def _touched(self) -> bool:
        """Whether the workload has written a table that the upgrade changes."""
        changed = set(self.tables)
        shapes = (table.shape(each) for table in self.desk.tables.values() for each in _RELEASES if table.knows(each))
        return any({shape.name, shape.physical} & changed for shape in shapes)

    def _at(self, moment: float) -> str:
        """The phase that was under way."""
        return next((phase.name for phase in self.phases if phase.began <= moment <= phase.ended), "")

    def close(self) -> None:
        """End every process that was started."""
        self._injector.close()
        for node in self._started:
            node.stop()
        self._stop_clients()
        self._way.close()
        self._engine.dispose()


def _first_line(error: BaseException) -> str:
    if isinstance(error, ProblemError):
        return f"{error.problems[0].code}: {error.problems[0].what}"
    if isinstance(error, ContraflowError):
        return str(error).strip().splitlines()[-1]
    return f"{type(error).__name__}: {error}"


def _versions(url: sa.URL) -> dict[str, str]:
    found = {"Python": platform.python_version()}
    driver = url.get_driver_name()
    for name in ("contraflow", "SQLAlchemy", "alembic", {"pysqlite": ""}.get(driver, driver)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            found[name] = importlib.metadata.version(name)
    return found
