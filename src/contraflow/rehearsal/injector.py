"""Carries an upgrade through its phases in a process of the runner's own, and strikes it with faults on the way."""

from __future__ import annotations

import contextlib
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from contraflow.problems import ContraflowError, Problem, ProblemError
from contraflow.rehearsal.faults import KINDS, VERBS, Fault, Phase
from contraflow.rehearsal.proxy import FaultProxy, Harm, When
from contraflow.rehearsal.reach import flavour, port_of, unencrypted
from contraflow.rehearsal.record import FaultRecord, Finding, Try
from contraflow.rehearsal.runner_process import Report, RunnerProcess, Source, Verb
from contraflow.rehearsal.strikes import Stage, Striking

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Injector", "RunnerBroken"]

_AT_ONCE = frozenset({"worker-cut", "long-reader", "idle-in-transaction", "server-killed", "node-killed"})
"""Strikes that the runner waits for where they strike it. The others may wait for locks of its."""


_DISK_FULL: Mapping[str, str] = {
    "postgresql": "DO $$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device (injected)'"
    " USING ERRCODE = 'disk_full'; END$$",
    "cockroachdb": "SELECT crdb_internal.force_error('53100', 'no space left on device (injected)')",
    "mysql": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021, MESSAGE_TEXT = 'Disk full (injected)'",
    "mariadb": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021, MESSAGE_TEXT = 'Disk full (injected)'",
}
"""A statement that fails with the server's own code for a full disk."""


class RunnerBroken(ContraflowError):
    """The runner's process ended without a problem to tell, and no fault had ended it."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """How one start of the runner ended; neither ``done`` nor with ``problems`` if a fault has killed it."""

    words: str
    done: bool = False
    problems: tuple[Problem, ...] = ()


class Injector:
    """Strikes ``faults`` on ``stage``; a context manager that takes back what still lasts and ends its processes.

    For one thread.

    :param source: where the upgrade is declared.
    :param seed: decides what the faults leave open, such as the instant inside of a statement.
    :param python: the interpreter that runs the runner.
    :param sleep: waits that many seconds.
    """

    def __init__(
        self,
        faults: Iterable[Fault],
        stage: Stage,
        *,
        source: Source,
        seed: int = 0,
        python: str = sys.executable,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._left = list(faults)
        self._stage = stage
        self._source = source
        self._seed = seed
        self._python = python
        self._sleep = sleep
        self._process: RunnerProcess | None = None
        self._starts = 0
        self._striking: list[Striking] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take back what still lasts, and end the runner's process."""
        for striking in self._striking:
            striking.stop()
        self._striking.clear()
        self._end_process()

    # -- phases ---

    def carry_out(self, verb: Verb) -> None:
        """Carry out ``verb`` in the runner's process, strike what is planned for it, and start it again until it is
        done. Every fault of the phase is over when this returns.

        :raises ProblemError: what ended the runner, if none of the faults explains it.
        :raises RunnerBroken: if it ended without a problem.
        """
        taken = sorted(self._take(verb), key=lambda found: found.statement or 0)
        # A file that is full takes a start of its own: it may end the runner anywhere.
        self._until_done(verb, sorted(taken, key=lambda found: not self._fills_a_file(found)))
        self._wait_for(self._striking)

    def pass_time(self, phase: Phase, seconds: float) -> None:
        """Let ``seconds`` of a phase without a runner pass, and strike what is planned for it. It takes longer if the
        last fault does, or where the new release is taken back.
        """
        began = self._stage.now()
        for fault in sorted(self._take(phase), key=lambda found: found.share or 0.0):
            self._sleep(max(0.0, (fault.share or 0.0) * seconds - (self._stage.now() - began)))
            if fault.kind == "release-taken-back":
                at = self._stage.now()
                self._note(fault, self._stage.take_back(), at=at, until=self._stage.now())
                began += self._stage.now() - at
            else:
                self._strike(fault)
        self._sleep(max(0.0, seconds - (self._stage.now() - began)))
        self._wait_for(self._striking)

    def _take(self, phase: str) -> list[Fault]:
        taken = [fault for fault in self._left if fault.phase == phase]
        self._left = [fault for fault in self._left if fault.phase != phase]
        return taken

    def _until_done(self, verb: Verb, faults: Sequence[Fault]) -> None:
        """Start the runner until ``verb`` is done and every one of ``faults`` has struck."""
        while True:
            outcome, struck = self._start(verb, faults)
            faults = faults[len(struck) :]
            self._explain(struck, outcome.problems)
            if outcome.done and not faults:
                return
            if not outcome.done:
                self._wait_for([one for one in self._striking if KINDS[one.fault.kind].explains])

    def _explain(self, struck: Iterable[Fault], problems: Iterable[Problem]) -> None:
        """Raise what ended the runner, unless faults of this start, or those that still strike, explain it."""
        explained = self._explained(struck)
        ProblemError.raise_any(problem for problem in problems if problem.code not in explained)

    def _explained(self, faults: Iterable[Fault]) -> frozenset[str]:
        """The codes of the problems that these faults, or those that strike at the moment, explain."""
        at_work = [*faults, *(striking.fault for striking in self._striking)]
        return frozenset[str]().union(*(KINDS[fault.kind].explains for fault in at_work))

    # -- one start of the runner ---

    def _start(self, verb: Verb, faults: Sequence[Fault]) -> tuple[_Outcome, Sequence[Fault]]:
        """Start it, and strike it with ``faults`` in their order; how it ended, and which of them struck it."""
        began = self._stage.now()
        full = faults[0] if faults and self._fills_a_file(faults[0]) else None
        due = list(faults[:1] if full is not None else faults)
        with contextlib.ExitStack() as stack:
            # What one node of a cluster began, the next one goes on with.
            url = self._stage.urls[self._starts % len(self._stage.urls)]
            self._starts += 1
            run = _Start(verb=verb, due=list(due), process=self._runner(), url=url, stack=stack)
            run.explained = self._explained(due)
            if full is None and any(fault.kind in ("runner-cut", "disk-full") for fault in due):
                run.proxy = stack.enter_context(FaultProxy(str(url.host), port_of(url)))
                run.url = unencrypted(url).set(host="127.0.0.1", port=run.proxy.port)
            if any(fault.kind == "second-runner" for fault in due):
                run.second = stack.enter_context(RunnerProcess(self._source, python=self._python))
                stack.callback(run.wait_for_second)
            outcome = self._full(run, full) if full is not None else self._follow(run)
        self._stage.tried(Try(verb=verb, at=began, seconds=self._stage.now() - began, outcome=outcome.words))
        return outcome, due[: len(due) - len(run.due)]

    def _follow(self, run: _Start) -> _Outcome:
        """Let the runner go from fault to fault, to its end."""
        run.process.begin(run.verb, run.url, stop_at={fault.statement or 0 for fault in run.due})
        while True:
            report = self._listen(run.process)
            over = report.kind == "ended"
            if over and report.problems:
                return _ended(report)
            run.step = 0.0
            while run.due and (over or (run.due[0].statement or 0) <= report.number):
                if self._strike_runner(run, run.due.pop(0), report):
                    return _Outcome(words=f"killed at statement {report.number}")
            if over:
                return _Outcome(words="done", done=True)
            run.process.go(step=run.step)
            if run.dying is not None:
                # Inside of the statement, or where that takes less than the thread takes to come here, after it.
                self._sleep(run.dying)
                last = run.process.kill()
                self._end_process()
                return _Outcome(words=f"killed at statement {last}")

    def _listen(self, process: RunnerProcess) -> Report:
        """The next report that the runner waits after."""
        for report in process.reports():
            if report.progress is not None:
                self._stage.progress(report.progress)
        if report.kind in ("crashed", "died"):
            self._end_process()
            raise RunnerBroken(report.text or "the runner's process has died")
        return report

    def _full(self, run: _Start, fault: Fault) -> _Outcome:
        """Let the runner find its disk full. Its process is not used again: its connections keep the limit."""
        at = self._stage.now()
        run.process.begin(run.verb, run.url, room=fault.statement)
        report = self._listen(run.process)
        self._end_process()
        run.due.clear()
        self._note(fault, _words(report) if report.problems else "it needed no more room", at=at)
        return _ended(report) if report.problems else _Outcome(words="done", done=True)

    def _strike_runner(self, run: _Start, fault: Fault, report: Report) -> bool:
        """Strike where the runner waits, or at its end. True if that was the end of its process."""
        place = _place(report)
        if fault.kind == "runner-killed":
            if fault.inside and report.waits:
                run.dying = random.Random(f"{self._seed}/{fault}").uniform(0.0, 0.004)  # noqa: S311 - repeatable
                self._note(fault, f"inside of {place}")
                return False
            run.process.kill()
            self._end_process()
            self._note(fault, f"before {place}")
            return True
        if fault.kind == "rolled-back":
            at = self._stage.now()
            run.process.kill()
            self._end_process()
            run.wait_for_second()  # two verbs at once would be another fault
            self._until_done("rollback", [])
            for verb in VERBS[: VERBS.index(run.verb)]:
                self._until_done(verb, [])  # type: ignore[arg-type] # VERBS are verbs
            self._note(fault, f"before {place}", at=at, until=self._stage.now())
            return True
        if fault.kind == "runner-cut":
            self._cut(run, fault, report)
        elif fault.kind == "disk-full":
            self._refuse(run, fault, report)
        elif fault.kind == "clock-step":
            run.step += fault.seconds
            self._note(fault, f"by {fault.seconds:+g} s, before {place}")
        elif fault.kind == "second-runner":
            run.waiting_for = threading.Thread(target=self._second, args=(run, fault, place), daemon=True)
            run.waiting_for.start()
        else:
            striking = self._strike(fault)
            if fault.kind in _AT_ONCE and not fault.inside:
                striking.wait_until_begun()
        return False

    def _cut(self, run: _Start, fault: Fault, report: Report) -> None:
        if run.proxy is None or not report.waits:
            self._note(fault, "not struck: the runner had no connection any more")
        elif fault.inside:
            run.proxy.harm(".", Harm.CUT, when=When.ANSWERED)
            self._note(fault, f"the answer is lost to {_place(report)}")
        else:
            run.proxy.cut()
            self._note(fault, f"before {_place(report)}")

    def _refuse(self, run: _Start, fault: Fault, report: Report) -> None:
        """Let the server itself refuse the next statement, with its own error for a full disk."""
        place = _place(report)
        if run.proxy is None or not report.waits:
            self._note(fault, f"not struck: {place}")
            return
        # As it is sent, up to the first value; the heartbeat sends others beside it.
        words = re.split(r"[%:$\n]", report.text)[0][:60]
        fired = run.stack.enter_context(
            run.proxy.harming(
                re.escape(words), Harm.REPLACE, instead=_DISK_FULL[flavour(self._stage.server, run.url)], times=1
            )
        )
        run.stack.callback(
            lambda: self._note(fault, f"{'in place of' if fired() else 'not struck: not sent,'} {place}")
        )

    def _fills_a_file(self, fault: Fault) -> bool:
        return fault.kind == "disk-full" and self._stage.url.get_backend_name() == "sqlite"

    def _second(self, run: _Start, fault: Fault, place: str) -> None:
        """Run a second runner beside the first: one of them must be told, or find everything done."""
        if run.second is None:
            return
        at = self._stage.now()
        run.second.begin(run.verb, self._stage.url)
        *_, report = run.second.reports()
        codes = {problem.code for problem in report.problems}
        if report.kind != "ended" or codes - run.explained:
            what = f"a second runner, started with {place}, ended with {_words(report)}."
            self._stage.found(Finding(kind="structure", what=what))
        self._note(fault, f"with {place}: {_words(report)}", at=at, until=self._stage.now())

    def _runner(self) -> RunnerProcess:
        if self._process is None:
            self._process = RunnerProcess(self._source, python=self._python)
        return self._process

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _strike(self, fault: Fault) -> Striking:
        striking = Striking(fault, self._stage, f"{self._seed}/{fault}")
        self._striking.append(striking)
        return striking

    def _wait_for(self, striking: Iterable[Striking]) -> None:
        for one in list(striking):
            one.join()
            self._striking.remove(one)

    def _note(self, fault: Fault, detail: str, *, at: float | None = None, until: float | None = None) -> None:
        when = self._stage.now() if at is None else at
        self._stage.struck(FaultRecord(kind=fault.kind, title=fault.title, at=when, until=until, detail=detail))


@dataclass(kw_only=True)
class _Start:
    """One start of the runner."""

    verb: Verb
    due: list[Fault]
    process: RunnerProcess
    url: sa.URL
    stack: contextlib.ExitStack
    """Closed at its end."""
    proxy: FaultProxy | None = None
    second: RunnerProcess | None = None
    waiting_for: threading.Thread | None = None
    explained: frozenset[str] = frozenset()
    """What a second runner may be told: that there is one already, and what the faults of this start do to it."""
    step: float = 0.0
    """By how much its clock is set before it goes on."""
    dying: float | None = None
    """In how many seconds it is killed once it goes on."""

    def wait_for_second(self) -> None:
        """Return when the second runner has ended, if one was started."""
        if self.waiting_for is not None:
            self.waiting_for.join()


def _place(report: Report) -> str:
    if not report.waits:
        return "nothing more: the verb was done"
    text = " ".join(report.text.split())
    return f"statement {report.number}: {text[:80]}{'...' if len(text) > 80 else ''}"


def _words(report: Report) -> str:
    if report.kind != "ended":
        return f"{report.kind}: {report.text}"
    return ", ".join(f"{problem.code} ({problem.what})" for problem in report.problems) or "done"


def _ended(report: Report) -> _Outcome:
    codes = ", ".join(dict.fromkeys(problem.code for problem in report.problems))
    return _Outcome(words=f"ended by {codes} at statement {report.number}", problems=report.problems)
