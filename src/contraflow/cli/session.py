"""What a command works on: the environment, the database, the upgrade, and a runner that can be stopped."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import FrameType

import sqlalchemy as sa

from contraflow.alembic.discovery import behind, is_open, upgrade_of
from contraflow.alembic.environment import Database, Environment
from contraflow.alembic.running import ATTRIBUTE, Guide
from contraflow.alembic.settings import Through
from contraflow.cli.output import Output
from contraflow.engine.connect import own_url, refuse_missing_file
from contraflow.engine.lease import Lease
from contraflow.engine.report import Options, State, Status
from contraflow.engine.runner import Runner
from contraflow.operations.planning import Upgrade
from contraflow.problems import Problem, ProblemError

__all__ = ["Common", "Session", "ended_by_sigterm", "without_reflection_warnings"]

URL_VARIABLE = "CONTRAFLOW_URL"
"""The environment variable that stands for ``--url``."""


@dataclass(kw_only=True)
class Common:
    """The options that every command takes, before or after its name."""

    config: str | None = None
    name: str = "alembic"
    url: str | None = None
    arguments: tuple[str, ...] = ()
    revision: str | None = None
    as_json: bool = False
    replicas: tuple[str, ...] = ()
    max_lag: float | None = None


@dataclass(kw_only=True)
class Session:
    """One command at work. Everything is found out when it is first needed."""

    common: Common
    output: Output
    begins: bool = False
    """Whether the command may begin an upgrade: then an SQLite file that is not there is made, as Alembic does."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lease: Lease | None = None
    """The lock, while the command holds it for all that it does."""

    # -- where ------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str | None:
        """The URL that was given."""
        return self.common.url or os.environ.get(URL_VARIABLE) or None

    @cached_property
    def environment(self) -> Environment:
        """The migration environment. Raises ``CF301`` if there is none."""
        with _told_apart():
            return Environment(
                self.common.config,
                section=self.common.name,
                url=self.url,
                arguments=self.common.arguments,
            )

    @cached_property
    def has_environment(self) -> bool:
        """Whether there is a migration environment. If not, a URL must be given: raises ``CF301`` otherwise."""
        try:
            _ = self.environment
        except ProblemError as error:
            missing = [problem.code for problem in error.problems] == ["CF301"]
            if missing and self.url is not None and self.common.config is None:
                return False
            raise
        return True

    @property
    def options(self) -> Options:
        """The engine's options: the configuration's, if there is one."""
        return self._watching(self.environment.settings.options if self.has_environment else Options())

    def _watching(self, options: Options) -> Options:
        """The options, with the replicas that the command line names."""
        common = self.common
        return replace(
            options,
            replicas=common.replicas or options.replicas,
            max_lag=options.max_lag if common.max_lag is None else common.max_lag,
        )

    @cached_property
    def database(self) -> Database:
        """What env.py connects to, and its revisions."""
        with _looking():
            return self.environment.database(standing=not self.begins)

    @property
    def connectable(self) -> sa.Engine | str:
        """What to give to a runner."""
        if self.has_environment:
            return self.database.engine
        # Without an environment the URL is there: see has_environment. Nothing begins an upgrade with it.
        url = str(self.url)
        refuse_missing_file(own_url(url))
        return url

    # -- what -------------------------------------------------------------------------------------------------------

    @property
    def target(self) -> str:
        """The revision to go to: NEW of ``--revision OLD:NEW``, or ``head``."""
        return (self.common.revision or "head").rpartition(":")[2] or "head"

    @cached_property
    def past(self) -> Status:
        """What the journal alone tells."""
        with Runner(self.connectable, options=self.options) as runner:
            return runner.status()

    @cached_property
    def through(self) -> Through:
        """How far an upgrade goes, by the configuration."""
        return self.environment.settings.through

    @cached_property
    def open_upgrade(self) -> Upgrade | None:
        """The open upgrade, as its revisions declare it; None if none is open, or its revisions are not here."""
        if not is_open(self.past):
            return None
        with _told_apart():
            return upgrade_of(self.environment.directory, [], self.past)

    @cached_property
    def upgrade(self) -> Upgrade | None:
        """The upgrade to work on: the one that waits, else the open one; None if there is neither.

        Raises :class:`~contraflow.problems.ProblemError`: ``CF302`` if the revisions that wait are not one upgrade,
        ``CF305`` if it is not the one that ``--revision`` names.
        """
        directory = self.environment.directory
        with _told_apart():
            waiting = self.environment.waiting(self.database.heads, self.target)
            one = upgrade_of(directory, waiting, self.past, apart=self.through == "contract")
        old = (self.common.revision or "").rpartition(":")[0]
        if old and one is not None and self.environment.revision(old) != one.old:
            raise ProblemError(
                Problem(
                    code="CF305",
                    what=f"the upgrade that waits starts at {one.old or 'base'}, not at {old}.",
                    instead=f"leave --revision away, or write --revision {one.id}.",
                )
            )
        return one

    def need_upgrade(self) -> Upgrade:
        """The upgrade to work on, which must be there and whose starting revision must be reached.

        Raises :class:`~contraflow.problems.ProblemError`: ``CF004`` if there is none, ``CF305`` if plain revisions
        come first.
        """
        if self.upgrade is None:
            raise ProblemError(
                Problem(
                    code="CF004",
                    what=f"there is no Change between the database's revision and {self.target}.",
                    instead="declare one in a revision (change = Change(...)), or name the target: --revision OLD:NEW.",
                )
            )
        old = self.upgrade.old
        if old is not None and behind(self.environment.directory, self.database.heads, old):
            raise ProblemError(
                Problem(
                    code="CF305",
                    what=f"the database is at {', '.join(self.database.heads) or 'base'};"
                    f" upgrade {self.upgrade.id} starts at {old}.",
                    why="the plain revisions before the first Change make the schema that it starts from.",
                    instead=f"run them first: alembic upgrade {old}\nor let contraflow upgrade run everything.",
                )
            )
        return self.upgrade

    def look_again(self) -> None:
        """Forget what was found out about the database, which the command has changed."""
        for name in ("database", "past", "open_upgrade", "upgrade"):
            self.__dict__.pop(name, None)

    # -- doing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def runner(self, upgrade: Upgrade | None = None) -> Iterator[Runner]:
        """A runner that shows its progress, and that Ctrl-C stops between two statements."""
        with self._open(self.connectable, upgrade, self.options) as runner:
            yield runner

    @contextmanager
    def migrating(self) -> Iterator[Runner]:
        """A runner for the open upgrade's data phases. It knows the declaration only where it must: what is Python code
        (an opaque lens) is not in the journal.
        """
        with self.runner() as runner:
            needed = runner.needs_declaration
        with self.runner(self.open_upgrade if needed and self.has_environment else None) as runner:
            yield runner

    def guide(self, *, through: Through | None = None, force: str | None = None) -> Guide:
        """The same, for the runner that a Change starts inside of Alembic."""
        return Guide(open=self._open, through=through, force=force, compared=self.environment.compared)

    @contextmanager
    def _open(self, engine: sa.Engine | str, upgrade: Upgrade | None, options: Options) -> Iterator[Runner]:
        options = self._watching(options)
        with (
            self._stoppable() as should_stop,
            self.output.progress() as progress,
            Runner(
                engine, upgrade, options=options, progress=progress, should_stop=should_stop, lease=self._lease
            ) as runner,
        ):
            yield runner

    @contextmanager
    def _stoppable(self) -> Iterator[Callable[[], bool]]:
        """The first Ctrl-C asks the runner to stop where it is safe; the second breaks off (and the journal resumes
        that too).
        """

        def ask(_number: int, _frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()
            self.output.note("stopping after the present statement; Ctrl-C again breaks it off")

        # A container's supervisor sends SIGTERM.
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self._stop.is_set
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def is_behind(self, revision: str) -> bool:
        """Whether ``alembic_version`` has not reached a revision yet."""
        return behind(self.environment.directory, self.database.heads, revision)

    def run_upgrade(self, through: Through | None) -> None:
        """``alembic upgrade``, and what is left to do of an upgrade whose revisions it has nothing to run for."""
        with self._alone("upgrade"):
            self._upgrade(through)

    @contextmanager
    def _alone(self, verb: str) -> Iterator[None]:
        """Hold the lock from the start. A Change asks for it only once Alembic has made its own table and has run the
        plain revisions before it; two that do so at once collide (Alembic has no lock of its own).
        """
        with _told_apart():
            changes = self.environment.has_changes()
        if not changes:
            yield
            return
        with Runner(self.connectable, options=self.options) as runner, runner.alone(verb) as self._lease:
            try:
                yield
            finally:
                self._lease = None

    def _upgrade(self, through: Through | None) -> None:
        with _told_apart():
            self.environment.upgrade(self.target, **{ATTRIBUTE: self.guide(through=through)})
        through = through or self.through
        if is_open(self.past) and not (self.past.state is State.VERIFIED and through == "verify"):
            with self.migrating() as runner:
                if self.past.state is not State.VERIFIED:
                    runner.migrate()
                    runner.verify()
                if through == "contract":
                    runner.contract()
            self.stamp()

    def run_rollback(self, force: str | None) -> None:
        """Roll the last upgrade back, by way of ``alembic downgrade`` where ``alembic_version`` has moved already."""
        past = self.past
        if not self.has_environment:
            if past.state in (State.MIGRATED, State.VERIFIED):
                raise ProblemError(
                    Problem(
                        code="CF301",
                        what=f"upgrade {past.upgrade} moved alembic_version, and no configuration moves it back.",
                        instead="name the configuration: contraflow -c alembic.ini rollback",
                    )
                )
        elif past.new is not None and past.revisions and not self.is_behind(past.revisions[0]):
            with _told_apart():
                self.environment.downgrade(past.old or "base", **{ATTRIBUTE: self.guide(force=force)})
            return
        with self.runner() as runner:
            runner.rollback(force=force)

    def stamp(self) -> None:
        """Let ``alembic_version`` reach the upgrade's new revision, once every row is filled."""
        if not self.has_environment:
            self.output.note("alembic_version stays where it is: no configuration says how to move it")
            return
        with Runner(self.connectable, options=self.options) as runner:
            now = runner.status()
        if now.new is None or now.state not in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
            return
        with _looking():
            if behind(self.environment.directory, self.environment.database().heads, now.new):
                self.environment.stamp(now.new)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what it started and made is cleared away."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_REFLECTION = (
    "Did not recognize type",
    "Skipped unsupported reflection",
    "Could not instantiate type",
    r"Omitting \w+ key for",
    "Unknown schema content",
    "Can't validate argument 'dialect_options'",  # a check that is NOT VALID, in SQLAlchemy 2.1.9
)
"""How SQLAlchemy's warnings begin where it reads a table and leaves something out. What of it matters to an upgrade is
a problem or asked of the server itself: a new column of an unknown type (CF116), what else reads a column (CF111)."""


@contextmanager
def without_reflection_warnings() -> Iterator[None]:
    """Keep from the user what SQLAlchemy warns of whenever a table is read."""
    with warnings.catch_warnings():
        for beginning in _REFLECTION:
            warnings.filterwarnings("ignore", message=beginning, category=sa.exc.SAWarning)
        yield


@contextmanager
def _told_apart() -> Iterator[None]:
    """What a user's env.py and revisions print goes to stderr: stdout belongs to the command's answer."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def _looking() -> Iterator[None]:
    """The same, where env.py runs only to be looked at: what Alembic logs of each run would hide what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with _told_apart():
            yield
    finally:
        logging.disable(before)
