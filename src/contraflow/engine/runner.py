"""The runner: the verbs of an upgrade, each idempotent, resumable after a kill between any two statements,
and alone at work.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from contraflow.dialects.base import Adapter, Found, LockTimeout, Profile, Statement
from contraflow.engine import nodes as registry
from contraflow.engine.backfill import Target, fill
from contraflow.engine.checks import check_dependents, check_routines
from contraflow.engine.connect import Database, locked, refused, unreachable
from contraflow.engine.examination import contrary_triggers, find_notices, find_problems, in_the_way
from contraflow.engine.expansion import begin, grow, install, planned
from contraflow.engine.filling import carry_out
from contraflow.engine.journal import Entry, Journal, Tables, after
from contraflow.engine.lag import Replicas
from contraflow.engine.lease import PATIENCE, Lease
from contraflow.engine.matching import (
    contracted,
    grown,
    impossible,
    last,
    match,
    nothing_open,
    rolled_back,
)
from contraflow.engine.opaque import compute, needs_python, opaque_syncs
from contraflow.engine.plans import plan_report
from contraflow.engine.proving import prove, prove_old
from contraflow.engine.report import Node, Options, PlanReport, Progress, State, Status
from contraflow.engine.schema import full_name
from contraflow.engine.status import first_status, read_status
from contraflow.engine.widening import check_misfits, takes_wider_types
from contraflow.engine.work import Work
from contraflow.lens import Side
from contraflow.operations.planning import Upgrade, plan_builds, plan_end
from contraflow.problems import Interrupted, Problem, ProblemError
from contraflow.steps import Block, ExtendEnums, Hold, Phases, SetComments
from contraflow.syncs import Sync

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from 3.11 on

__all__ = ["Runner"]

VERBS = ("expand", "migrate", "verify", "contract")


class Runner:
    """Carries one upgrade through its phases on one live database.

    ``url`` is the database; of an :class:`sqlalchemy.Engine` the way of connecting is used, never its pool.
    ``upgrade`` is what the revisions declare; without it, everything that follows expand works from the
    journal alone. ``clock`` (seconds, monotonic) and ``sleep`` are the runner's own; ``progress`` is called
    from its thread. ``should_stop`` is asked between statements and batches: if true, the verb raises
    :class:`~contraflow.problems.Interrupted`, as it does on Ctrl-C, and the same verb resumes the work later.
    ``before_statement`` sees every statement before it is sent. ``lag`` tells how many seconds replication is behind;
    without it the replicas of ``options`` are asked. While it is more than ``options.max_lag``, data phases pause.
    ``lease`` is the lock, where the caller holds it already (:meth:`alone`).

    Every verb raises :class:`~contraflow.problems.ProblemError`, before anything is changed where that can be
    known: ``CF001`` another runner is at work, ``CF003`` the journal is newer, ``CF004`` the verb is not
    possible from the present state, ``CF005`` another upgrade is open, ``CF006`` a lock could not be had,
    ``CF009`` the server refused a statement, ``CF201`` the server cannot be reached.
    """

    def __init__(
        self,
        url: str | sa.URL | sa.Engine,
        upgrade: Upgrade | None = None,
        *,
        options: Options | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        progress: Callable[[Progress], None] = lambda _progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        before_statement: Callable[[Statement], None] | None = None,
        lag: Callable[[], float] | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.options = options or Options()
        self._declared = upgrade
        self._database = Database(url)
        self._clock = clock
        self._sleep = sleep
        self._progress = progress
        self._should_stop = should_stop
        self._before_statement = before_statement
        self._tables = Tables(self.options.schema)
        self._replicas = Replicas(self.options.replicas)
        self._lag = lag or self._replicas.lag
        self._lease = lease

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what the runner holds on to. It can be used again."""
        self._replicas.close()
        self._database.close()

    @property
    def adapter(self) -> Adapter:
        """The adapter for the live server."""
        return self._database.adapter

    @property
    def profile(self) -> Profile:
        """What the live server says of itself."""
        return self.adapter.profile

    # -- before anything is changed ---

    def check(self) -> list[Problem]:
        """Everything that can be known to be wrong before the first change: the declarations, the schema, the
        server, the rows. Once expanded: what works against the sync (``CF205``), and what would keep contract from
        dropping or renaming (``CF111``, ``CF122``).
        """
        upgrade = self._need_upgrade("check")
        with self._reading() as connection:
            try:
                entry = self._current(connection)
                if entry is not None and entry.state is not State.ROLLED_BACK and not grown(entry, upgrade):
                    return in_the_way(connection, self.adapter, entry) if entry.open else []
                installed = entry.installed if entry and entry.open else ()
                phases = planned(connection, self.adapter, upgrade, installed)
            except ProblemError as error:
                return list(error.problems)
            return find_problems(connection, self.adapter, upgrade, phases, installed)

    def notices(self) -> list[Problem]:
        """What refuses nothing, and should be known before the first change: what the server itself imposes on
        statements of the two releases until contract (``CF501`` to ``CF508``), and what would be in contract's way
        if it stayed (``CF111``, ``CF122``). None once the upgrade is contracted.
        """
        upgrade = self._need_upgrade("notices")
        with self._reading() as connection:
            entry = self._current(connection)
            if entry is not None and entry.state is State.CONTRACTED:
                return []
            standing = (
                entry.installed if entry and entry.open else planned(connection, self.adapter, upgrade, ()).installed
            )
            return find_notices(connection, self.adapter, standing)

    def plan(self) -> PlanReport:
        """Every statement of every phase for the connected server, in order.

        Of the phase that is due, only what is still to do. Without a declared upgrade: contract and rollback
        of the open one.
        """
        with self._reading() as connection:
            entry = self._current(connection)
            is_open = entry is not None and entry.open
            reached = {"expand"}
            if entry is not None and is_open:
                reached.add("rollback")
                if entry.state is not State.PENDING:
                    reached |= {"migrate", "verify", "contract"}
            if self._declared is not None:
                name = self._declared.id
                phases = planned(connection, self.adapter, self._declared, entry.installed if entry and is_open else ())
            elif entry is not None and is_open:
                name = entry.id
                contract, rollback = plan_end(entry.installed)
                phases = Phases(
                    expand=(),
                    migrate=plan_builds(entry.installed),
                    verify=(),
                    contract=contract,
                    rollback=rollback,
                    installed=entry.installed,
                )
            else:
                raise nothing_open("plan")
            return plan_report(
                self.adapter,
                connection,
                name,
                phases,
                timeout=self.options.lock_timeout,
                reached=frozenset(reached),
            )

    # -- the verbs ---

    def expand(self) -> None:
        """Add the new shape and the sync. The old release is not affected; the new one must wait for
        :meth:`migrate`.

        Raises every problem that :meth:`check` finds; ``CF002`` if a revision changed since it was expanded,
        ``CF007`` if revisions were added after the new release may have written.
        """
        upgrade = self._need_upgrade("expand")
        with self._work("expand") as work:
            entry = work.entry
            if entry is not None and _past(entry):
                return
            if entry is None or entry.state is State.ROLLED_BACK:
                begin(work, upgrade)
            elif entry.pending == "rollback":
                raise impossible("expand", entry)
            elif grown(entry, upgrade):
                grow(work, entry, upgrade)
            elif after("expand", entry.state) is None:
                return  # migrated or further: what expand leads to stands
            install(work, upgrade)
            work.reach(State.EXPANDED)

    def migrate(self) -> None:
        """Fill the rows from before the sync, and build the new release's indexes. Afterwards the new release
        may write; ``alembic_version`` moves.

        Raises ``CF014`` with rows that are alike where a unique index is to stand, ``CF205`` for a trigger that was
        made since :meth:`expand` and changes what the sync has read.
        """
        with self._work("migrate") as work:
            entry = work.entry
            if entry is None:
                raise impossible("migrate", None)
            if _past(entry):
                return
            state = self._next("migrate", entry)
            opaque = self._opaque(work, entry)
            ProblemError.raise_any(contrary_triggers(work.connection, self.adapter, entry))
            work.start(pending="migrate")
            compute(work, opaque)
            for data in entry.programs.get("backfill", ()):
                fill(work, entry, Target.from_dict(data))
            for block in plan_builds(entry.installed):
                work.run(block)
            work.reach(state)

    def verify(self, *, show: int = 3) -> None:
        """Look for rows that disagree or hold a NULL where the new schema forbids it, beside the writers.

        Raises ``CF012``, ``CF013`` and ``CF014`` with counts and at most ``show`` rows of each kind, ``CF008`` if
        the sync is not installed as the journal says, ``CF205`` as :meth:`migrate` does.
        """
        with self._work("verify") as work:
            entry = work.entry
            if entry is None:
                raise impossible("verify", None)
            if _past(entry):
                return
            state = self._next("verify", entry)
            ProblemError.raise_any(contrary_triggers(work.connection, self.adapter, entry))
            work.start()
            prove(work, entry, show=show)
            work.reach(state)

    def contract(self, *, force: str | None = None) -> None:
        """Remove the sync and the old shape, for good.

        Verifies once more, and refuses (``CF401``) while a node lives that may run the old release, unless
        ``force`` gives a reason; the journal keeps it. Refuses (``CF111``) while something else reads a column or
        table that it would drop or rename, and (``CF122``), unless ``force`` gives a reason, while the text of a
        routine names one.
        """
        with self._work("contract") as work:
            entry = work.entry
            if entry is None:
                raise impossible("contract", None)
            if entry.state is State.CONTRACTED:
                return
            state = self._next("contract", entry)
            whole = entry.pending != "contract"
            if whole:
                self._gate(work, entry, force)
                prove(work, entry, show=3)
                ProblemError.raise_any(
                    [
                        *check_dependents(work.connection, self.adapter, entry.installed),
                        *self.adapter.standstill_problems(work.connection, entry.installed),
                    ]
                )
                self._weigh(work, check_routines(work.connection, self.adapter, entry.installed), force)
                # What only the new release bears, and what somebody dropped. It may fail, and can be taken back.
                for block in (*plan_builds(entry.installed), *plan_builds(entry.installed, late=True)):
                    try:
                        carry_out(work, entry, block)
                    except sa.exc.DBAPIError as error:
                        if not error.connection_invalidated:
                            prove(work, entry, show=3)  # tells what came in between
                        raise
                # From here on there is no way back: what is dropped is gone.
                work.start(pending="contract")
            for block in plan_end(entry.installed)[0]:
                found = work.find(block)
                try:
                    carry_out(work, entry, block)
                except (ProblemError, sa.exc.DBAPIError) as error:
                    if whole and _left_as_it_was(work, block, found, error):
                        work.save(pending=None)  # no lock, nothing dropped: rollback stays possible
                        if isinstance(error, sa.exc.IntegrityError):
                            prove(work, entry, show=3)
                    raise
                whole = whole and not _is_final(block)
            work.reach(state)

    def rollback(self, *, force: str | None = None) -> None:
        """Remove the sync and the new shape: back to the old schema, exactly. Nothing the old side holds is
        lost.

        Refuses (``CF401``) while a node lives that may run the new release, unless ``force`` gives a reason.
        Raises ``CF303`` once the upgrade is contracted, ``CF004`` while a contract is half done, ``CF015`` for rows
        that only the wider type of a column holds.
        """
        with self._work("rollback") as work:
            entry = work.entry
            if entry is None or entry.state is State.ROLLED_BACK:
                return
            if entry.state is State.CONTRACTED:
                raise contracted(entry)
            state = self._next("rollback", entry)
            if entry.pending != "rollback":
                self._gate(work, entry, force)
                ProblemError.raise_any(
                    [
                        *check_misfits(work.connection, self.adapter, entry.installed),
                        *self.adapter.standstill_problems(work.connection, entry.installed),
                    ]
                )
                prove_old(work, entry)
                work.start(pending="rollback")
            for block in plan_end(entry.installed)[1]:
                if takes_wider_types(block):
                    # Once more: from here on such values are refused, where they would be lost.
                    ProblemError.raise_any(check_misfits(work.connection, self.adapter, entry.installed))
                carry_out(work, entry, block)
            work.reach(state)

    def upgrade(self) -> None:
        """Expand, migrate and verify, from wherever the upgrade stands. Then roll the nodes, then contract."""
        self.run("verify")

    def run(self, through: Literal["expand", "migrate", "verify", "contract"] = "contract") -> None:
        """All phases up to and with ``through``, from wherever the upgrade stands."""
        for verb in VERBS[: VERBS.index(through) + 1]:
            getattr(self, verb)()

    def repair(self, table: str, side: Side, *, schema: str | None = None) -> int:
        """Mend drift: where the two sides disagree, ``side`` is right, and the other one is written anew.
        Returns the rows written.

        Only rows that disagree are written, in key ranges, beside the writers.
        """
        with self._work("repair") as work:
            entry = work.entry
            if entry is None or entry.state not in (State.MIGRATED, State.VERIFIED) or entry.pending == "contract":
                raise impossible("repair", entry)
            name = full_name(schema, table)
            targets = [
                Target.from_dict(data)
                for data in entry.programs["repair"]
                if data["table"] == name and data["side"] == side
            ]
            if not targets:
                raise _no_such_table(name, entry)
            return sum(fill(work, entry, target) for target in targets)

    @contextlib.contextmanager
    def alone(self, verb: str) -> Iterator[Lease]:
        """Hold the lock while the block runs, for what is done beside the verbs: no other runner begins anything.

        Yields it, for the runners of this process that are to work meanwhile. Makes the journal's tables.
        """
        with contextlib.ExitStack() as stack:
            with self._translated():  # not what the block raises, which need not be about this database
                connection = stack.enter_context(self._database.connect(self._hook))
                lease = self._lock(connection)
                stack.enter_context(lease.held(connection, verb))
            yield lease

    # -- telling ---

    def status(self) -> Status:
        """Where the upgrade stands, and what comes next. Changes nothing, and waits for nobody."""
        with self._reading() as connection:
            if not self._tables.exist(connection):
                return first_status(self._declared)
            entry = self._current(connection)
            now = self.adapter.server_time(connection)
            holder = Lease(self._database, self._tables, duration=self.options.lease).holder(connection)
            return read_status(
                connection,
                self._journal(""),
                entry,
                declared=self._declared,
                nodes=self._read_nodes(connection, entry, now),
                runner=str(holder) if holder else None,
            )

    def nodes(self) -> list[Node]:
        """The nodes of the application that announced themselves, the newest heartbeat first."""
        with self._reading() as connection:
            if not self._tables.exist(connection):
                return []
            now = self.adapter.server_time(connection)
            return self._read_nodes(connection, self._current(connection), now)

    def forget_node(self, node: str) -> None:
        """Remove a node that is known to be gone. Raises ``CF402`` if no node has that id."""
        with self._reading() as connection:
            if not self._tables.exist(connection):
                raise registry.no_such_node(node)
            registry.forget(connection, self._tables, node)

    # -- how ---

    def _need_upgrade(self, verb: str) -> Upgrade:
        if self._declared is None:
            raise nothing_open(verb)
        return self._declared

    def _journal(self, runner: str) -> Journal:
        return Journal(tables=self._tables, runner=runner)

    def _entry(self, connection: sa.Connection) -> Entry | None:
        """The upgrade a verb is about: the declared one's entry, or without one the open or last one. None if
        it has none.
        """
        entries = self._journal("").entries(connection)
        if self._declared is None:
            return last(entries)
        return match(entries, self._declared) or rolled_back(entries, self._declared)

    def _current(self, connection: sa.Connection) -> Entry | None:
        if not self._tables.exist(connection):
            return None
        return self._entry(connection)

    def _read_nodes(self, connection: sa.Connection, entry: Entry | None, now: float) -> list[Node]:
        return registry.read_nodes(connection, self._tables, entry, now=now, ttl=self.options.node_ttl)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._translated(), self._database.connect(self._hook) as connection:
            yield connection

    def _hook(self, sql: str) -> None:
        if self._before_statement is not None:
            self._before_statement(Statement(sql=sql))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the driver as problems, Ctrl-C as Interrupted."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise unreachable(self._database.url, error) from error
            if self.adapter.is_lock_timeout(error):
                raise locked(self.options.lock_patience) from error
            raise refused(error) from error
        except LockTimeout as error:
            raise locked(self.options.lock_patience) from error
        except KeyboardInterrupt as error:
            raise Interrupted("stopped by Ctrl-C; the same command goes on where it stands") from error

    @contextlib.contextmanager
    def _work(self, verb: str) -> Iterator[Work]:
        """The lock, the journal and the upgrade's entry, while a verb runs."""
        with self._translated(), self._database.connect(self._hook) as connection:
            lease = self._lock(connection)
            with lease.held(connection, verb):
                work = Work(
                    verb=verb,
                    adapter=self.adapter,
                    connection=connection,
                    journal=self._journal(lease.owner),
                    lease=lease,
                    options=self.options,
                    clock=self._clock,
                    sleep=self._sleep,
                    progress=self._progress,
                    should_stop=self._should_stop,
                    lag=self._lag,
                )
                work.offset = self.adapter.server_time(connection) - self._clock()
                work.entry = self._entry(connection)
                yield work

    def _lock(self, connection: sa.Connection) -> Lease:
        """The lock, not held yet unless the caller holds it. Makes the journal's tables where they are missing."""
        if self._lease is not None:
            return self._lease
        options = self.options
        if not self._tables.exist(connection):
            # Where one lock guards all tables (SQLite), find out now and not behind the driver's own timeouts.
            with self.adapter.transaction(connection, min(PATIENCE, options.lock_patience)):
                pass
            self._tables.create(connection)
        return Lease(self._database, self._tables, duration=options.lease, patience=options.lock_patience)

    def _next(self, verb: str, entry: Entry) -> State:
        state = after(verb, entry.state)
        if state is None or entry.pending in {"contract", "rollback"} - {verb}:
            raise impossible(verb, entry)
        return state

    @property
    def needs_declaration(self) -> bool:
        """Whether :meth:`migrate` of the open upgrade needs it declared: it has an opaque lens."""
        with self._reading() as connection:
            entry = self._current(connection)
            return entry is not None and entry.open and any(item.opaque for item in entry.installed)

    def _opaque(self, work: Work, entry: Entry) -> list[Sync]:
        """What is to be computed in Python. Raises ``CF004`` if that is needed and the upgrade is not declared."""
        tables = [full_name(item.schema, item.table) for item in entry.installed if item.opaque]
        if not tables:
            return []
        declared = self._declared
        if declared is None or [one.id for one in entry.revisions] != [change.revision for change in declared.changes]:
            raise needs_python(entry.id, tables)
        return opaque_syncs(planned(work.connection, self.adapter, declared, entry.installed))

    def _gate(self, work: Work, entry: Entry, force: str | None) -> None:
        problem = registry.gate(self._read_nodes(work.connection, entry, work.now()), verb=work.verb, upgrade=entry.id)
        self._weigh(work, [] if problem is None else [problem], force)

    def _weigh(self, work: Work, problems: Sequence[Problem], force: str | None) -> None:
        """Raise the problems, unless there is a reason to go on, which the journal keeps."""
        if force is None:
            ProblemError.raise_any(problems)
        for problem in problems:
            work.record("forced", work.verb, detail=f"{force}\n{problem.what}")


def _past(entry: Entry) -> bool:
    """Whether contract has begun: the phases before it are done for good."""
    return entry.state is State.CONTRACTED or entry.pending == "contract"


def _is_final(block: Block) -> bool:
    """Whether a block of contract leaves something that rollback does not take back."""
    return isinstance(block, Hold) or isinstance(block.step, (ExtendEnums, SetComments))


def _left_as_it_was(work: Work, block: Block, before: Found, error: ProblemError | sa.exc.DBAPIError) -> bool:
    """Whether a block that failed did nothing to the table, as far as can be seen now."""
    if isinstance(error, sa.exc.DBAPIError):
        known = not error.connection_invalidated
    else:
        known = all(problem.code in ("CF006", "CF014") for problem in error.problems)
    return known and replace(work.find(block), names=before.names) == before


def _no_such_table(name: str, entry: Entry) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF101",
            what=f"the upgrade {entry.id} has no sync on a table {name}.",
            instead=f"its tables are: {', '.join(data['name'] for data in entry.programs.get('probe', ()))}.",
        )
    )
