"""The runner in a process of its own, which tells each statement before it sends it, so that it can be stopped or
killed at any of them.

`RunnerProcess` is the end that a rehearsal holds; ``python -m contraflow.rehearsal.runner_process`` is the other one.
They speak JSON, a line a message, over the process's standard input and output. The child tells statements without
waiting, so that watching it does not lengthen its locks; it waits only where it was asked to. Statements that change
nothing are neither told nor counted: a kill before one leaves what a kill before the last one that counts left. A
child whose parent is gone ends at its next statement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import sqlalchemy as sa

from contraflow.alembic.discovery import behind, upgrade_of
from contraflow.alembic.environment import Environment
from contraflow.alembic.running import ATTRIBUTE, Guide
from contraflow.dialects.base import Statement
from contraflow.engine.connect import own_url, refused, unreachable
from contraflow.engine.report import Options, Progress, State
from contraflow.engine.runner import Runner
from contraflow.operations.planning import Upgrade
from contraflow.problems import ContraflowError, Interrupted, Problem, ProblemError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["STAMP", "Report", "RunnerProcess", "Source", "Verb"]

Verb = Literal["expand", "migrate", "verify", "contract", "rollback"]

STAMP = "alembic stamp"
"""What is told, as if it were a statement, before ``alembic_version`` is moved."""

_HARMLESS = frozenset({"SELECT", "SHOW", "SET", "RESET", "PRAGMA", "WITH", "EXPLAIN", "DESCRIBE", "DESC"})
"""First words of statements that the engine sends to look, or to prepare a session, only."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the upgrade is declared: in a migration environment, or by a function of a module.

    :ivar config: its alembic.ini or pyproject.toml, with its ``section`` and Alembic's -x ``arguments``; the upgrade
        is the one that waits on the way to ``target``. ``alembic_version`` moves as with ``contraflow migrate``.
    :ivar upgrade: instead of a configuration, ``module:function``; the function returns the `Upgrade`.
    :ivar options: None for what the configuration says.
    :ivar folder: where the process works, and from where modules can be imported; None for the present one.
    """

    config: str | None = None
    section: str = "alembic"
    arguments: tuple[str, ...] = ()
    target: str = "head"
    upgrade: str | None = None
    options: Options | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if (self.config is None) == (self.upgrade is None):
            raise ValueError("either config or upgrade must be given")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One message of the process.

    :ivar kind: ``statement``: it is about to send one, and waits for `RunnerProcess.go` if ``waits``; ``progress``;
        ``ended``: the verb is done, or met ``problems``; ``crashed``: an exception that is no problem, its traceback in
        ``text``; ``died``: the process is gone.
    :ivar number: how many statements it has told of in this verb, counted from 1; BEGIN and COMMIT count.
    :ivar text: the statement.
    """

    kind: Literal["statement", "progress", "ended", "crashed", "died"]
    number: int = 0
    text: str = ""
    waits: bool = False
    problems: tuple[Problem, ...] = ()
    progress: Progress | None = None


# -- the parent's end ------------------------------------------------------------------------------------------------


class RunnerProcess:
    """A runner in a process of its own; a context manager that kills it. For one thread at a time.

    Starting it takes as long as importing SQLAlchemy and Alembic. It serves one verb after the other.

    :param python: the interpreter to run; it needs Contraflow.
    """

    def __init__(self, source: Source, *, python: str = sys.executable) -> None:
        self._source = source
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._number = 0
        self._process = subprocess.Popen(
            [python, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=source.folder,
            start_new_session=True,  # Ctrl-C is for the rehearsal, which ends its processes itself
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def begin(
        self,
        verb: Verb,
        url: sa.URL,
        *,
        stop_at: Collection[int] = (),
        force: str | None = None,
        room: int | None = None,
    ) -> None:
        """Let it carry out ``verb`` on the database at ``url``. What becomes of it is told by `reports`.

        :param stop_at: the numbers of the statements before which it waits for `go`.
        :param force: the reason for a contract or rollback although nodes are alive.
        :param room: on SQLite, how many pages the file may grow until it is full ("database or disk is full").
        """
        self._number = 0
        self._say(
            {
                "verb": verb,
                "url": url.render_as_string(hide_password=False),
                "source": dataclasses.asdict(self._source),
                "stop_at": sorted(stop_at),
                "force": force,
                "room": room,
            }
        )

    def reports(self) -> Iterator[Report]:
        """What it tells, up to and with the end of the verb or of the process. Iterate again after `go`."""
        while True:
            report = self._listen()
            yield report
            if report.waits or report.kind in ("ended", "crashed", "died"):
                return

    def go(self, *, step: float = 0.0) -> None:
        """Let it send the statement it waits with, its clock set ahead (or back) by ``step`` seconds first."""
        self._say({"step": step})

    def kill(self) -> int:
        """SIGKILL it; the number of the last statement it told of. What it sent may still be at work in the server."""
        self._process.kill()
        self._process.wait()
        while self._listen().kind != "died":
            pass
        return self._number

    def close(self) -> None:
        """Kill it, if it still lives, and free what belongs to it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _say(self, message: Mapping[str, Any]) -> None:
        # A process that has died in between is told of by the next report.
        with contextlib.suppress(BrokenPipeError):
            stdin = cast("IO[bytes]", self._process.stdin)
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()

    def _listen(self) -> Report:
        line = cast("IO[bytes]", self._process.stdout).readline()
        if not line.endswith(b"\n"):  # a kill may cut a message short
            self._process.wait()
            self._errors.seek(0)
            return Report(kind="died", number=self._number, text=self._errors.read()[-4000:].decode(errors="replace"))
        message = json.loads(line)
        self._number = message.get("number", self._number)
        progress = message.pop("progress", None)
        problems = tuple(Problem(**problem) for problem in message.pop("problems", ()))
        return Report(**message, problems=problems, progress=Progress(**progress) if progress else None)


# -- the child's end -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Child:
    """What carries out verbs, and tells of them."""

    commands: IO[bytes]
    told: IO[bytes]
    number: int = 0
    stop_at: frozenset[int] = frozenset()
    ahead: float = 0.0

    def serve(self) -> None:
        """Carry out what is asked for, until there is nobody to ask."""
        while line := self.commands.readline():
            command = json.loads(line)
            self.number, self.stop_at = 0, frozenset(command["stop_at"])
            try:
                self._carry_out(command)
            except ProblemError as error:
                self._tell(kind="ended", problems=[problem.as_dict() for problem in error.problems])
            except sa.exc.DBAPIError as error:
                # In env.py, or while Alembic moves its version: outside of what the engine translates.
                gone = error.connection_invalidated
                told = unreachable(sa.make_url(command["url"]), error) if gone else refused(error)
                self._tell(kind="ended", problems=[problem.as_dict() for problem in told.problems])
            except Exception:  # noqa: BLE001 - whatever it is, the parent must know
                self._tell(kind="crashed", text=traceback.format_exc())
            else:
                self._tell(kind="ended")

    def before_statement(self, statement: Statement) -> None:
        """Tell of a statement, and wait if that was asked for."""
        if _first_word(statement.sql) in _HARMLESS:
            return
        self.number += 1
        waits = self.number in self.stop_at
        self._tell(kind="statement", number=self.number, text=statement.sql, waits=waits)
        if waits:
            answer = self.commands.readline()
            if not answer:
                raise Interrupted("the rehearsal that this runner belongs to is gone")
            self.ahead += json.loads(answer)["step"]

    def clock(self) -> float:
        """This process's idea of the time, which may have been set."""
        return time.monotonic() + self.ahead

    def _tell(self, **message: Any) -> None:
        message.setdefault("number", self.number)
        self.told.write(json.dumps(message).encode() + b"\n")
        self.told.flush()

    def _progress(self, progress: Progress) -> None:
        self._tell(kind="progress", progress=dataclasses.asdict(progress))

    def _carry_out(self, command: Mapping[str, Any]) -> None:
        given = command["source"]
        options = Options(**given["options"]) if given["options"] is not None else None
        source = Source(**{**given, "arguments": tuple(given["arguments"]), "options": options})
        url, verb, room = sa.make_url(command["url"]), command["verb"], command["room"]
        if source.upgrade is not None:
            engine = _with_room(sa.create_engine(own_url(url)), room)
            with self._runner(engine, _imported(source.upgrade), options or Options()) as runner:
                _run(runner, verb, command["force"])
            return
        environment = Environment(
            source.config,
            section=source.section,
            url=url.render_as_string(hide_password=False),
            arguments=source.arguments,
        )
        chosen = options or environment.settings.options
        database = environment.database()
        _with_room(database.engine, room)
        with Runner(database.engine, options=chosen) as reader:
            past = reader.status()
        if verb == "rollback" and past.new is not None:
            moved = [name for name in past.revisions if not behind(environment.directory, database.heads, name)]
            if moved:
                guide = Guide(open=self._runner, force=command["force"])
                environment.downgrade(past.old or "base", **{ATTRIBUTE: guide})
                return
        declared = None
        if verb == "expand":
            waiting = environment.waiting(database.heads, source.target)
            declared = upgrade_of(environment.directory, waiting, past)
        elif verb == "migrate":
            declared = upgrade_of(environment.directory, [], past)  # what only Python computes is declared there
        with self._runner(database.engine, declared, chosen) as runner:
            _run(runner, verb, command["force"])
            now = runner.status()
        if now.new is not None and now.state in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
            self.before_statement(Statement(sql=STAMP))
            if behind(environment.directory, environment.database().heads, now.new):
                environment.stamp(now.new)

    def _runner(self, engine: sa.Engine, upgrade: Upgrade | None, options: Options) -> Runner:
        return Runner(
            engine,
            upgrade,
            options=options,
            clock=self.clock,
            progress=self._progress,
            before_statement=self.before_statement,
        )


def _first_word(sql: str) -> str:
    return sql.split(None, 1)[0].upper() if sql.strip() else ""


def _run(runner: Runner, verb: Verb, force: str | None) -> None:
    if verb == "contract":
        runner.contract(force=force)
    elif verb == "rollback":
        runner.rollback(force=force)
    else:
        getattr(runner, verb)()


def _imported(name: str) -> Upgrade:
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    found = getattr(importlib.import_module(module), function)()
    if not isinstance(found, Upgrade):
        raise TypeError(f"{name} returned {found!r}, not an Upgrade")
    return found


def _with_room(engine: sa.Engine, room: int | None) -> sa.Engine:
    """The engine, whose connections find the disk full once the file has grown by ``room`` pages."""
    if room is None:
        return engine

    def limit(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA page_count")
        row = cursor.fetchone()
        cursor.execute(f"PRAGMA max_page_count = {row[0] + room if row else room}")
        cursor.close()

    sa.event.listen(engine, "connect", limit)
    return engine


def main() -> None:
    """Serve verbs over standard input and output; what else would be printed goes to standard error."""
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb") as commands, os.fdopen(os.dup(1), "wb") as told:
        os.dup2(2, 1)
        # The runner's heartbeat and a statement may be told of at once, but only by the runner's own thread: the
        # heartbeat has a connection of its own, which nobody watches.
        with contextlib.suppress(BrokenPipeError, ContraflowError):
            _Child(commands=commands, told=told).serve()


if __name__ == "__main__":
    main()
