"""The Alembic project that is rehearsed: its two releases, and the databases it makes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import sqlalchemy as sa

from contraflow.alembic.discovery import sets, to_upgrade
from contraflow.alembic.environment import Environment
from contraflow.alembic.running import ATTRIBUTE, Guide
from contraflow.engine.report import Options
from contraflow.operations.planning import Upgrade
from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.runner_process import Source

__all__ = ["Project"]


class Project:
    """An Alembic project, and the upgrade of it that is rehearsed.

    :ivar old: the old release's revision.
    :ivar new: the new release's.
    :ivar upgrade: the Changes between the two.
    :param revisions: ``OLD:NEW``, or only NEW, or empty: from before the last unbroken chain of Changes to the head.
    :raises ProblemError: CF301, CF302 or CF307 if there is no such project or upgrade; CF004 if there is no Change to
        rehearse; CF305 if the old release would have no tables.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | None = None,
        *,
        section: str = "alembic",
        arguments: Sequence[str] = (),
        revisions: str = "",
    ) -> None:
        self._config = config
        self._section = section
        self._arguments = tuple(arguments)
        with _aside():
            environment = Environment(config, section=section, arguments=arguments)
            old, _, target = revisions.rpartition(":")
            new = environment.revision(target or "head")
            if old:
                first = environment.revision(old)
            else:
                every = sets(to_upgrade(environment.directory, (), new or "base"), apart=True)
                if not every:
                    raise _nothing(target or "head")
                first = every[-1].old
            found = sets(to_upgrade(environment.directory, (first,) if first else (), new or "base"))
        if not found or new is None:
            raise _nothing(target or "head")
        if first is None:
            raise ProblemError(
                Problem(
                    code="CF305",
                    what=f"the upgrade to {new} starts at an empty database.",
                    why="the old release has no tables that could be in use.",
                    instead="name two revisions: contraflow rehearse OLD:NEW.",
                )
            )
        self.old: str = first
        self.new: str = new
        self.upgrade: Upgrade = found[0]
        self.options: Options = environment.settings.options

    @property
    def arguments(self) -> dict[str, object]:
        """What another process is given to have the same project."""
        revisions = f"{self.old}:{self.new}"
        config = self.source.config
        return {"config": config, "section": self._section, "arguments": self._arguments, "revisions": revisions}

    @property
    def source(self) -> Source:
        """Where the runner's process finds the upgrade."""
        given = self._config or os.environ.get("ALEMBIC_CONFIG")
        found = given or next((name for name in ("alembic.ini", "pyproject.toml") if os.path.exists(name)), None)
        return Source(
            config=os.fspath(found) if found is not None else None,
            section=self._section,
            arguments=self._arguments,
            target=self.upgrade.new,
        )

    def prepare(self, url: sa.URL, revision: str) -> None:
        """Bring an empty database to a revision, as a fresh installation does: each upgrade contracted at once.

        :raises ProblemError: what the project's own revisions run into.
        """
        with _aside():
            self._environment(url).upgrade(revision, **{ATTRIBUTE: Guide(through="contract")})

    def follow(self, url: sa.URL) -> None:
        """What ``alembic upgrade`` does once the upgrade is migrated: its revision is stamped, later ones run."""
        with _aside():
            environment = self._environment(url)
            environment.stamp(self.upgrade.new)
            if self.upgrade.new != self.new:
                environment.upgrade(self.new)

    def lead(self, url: sa.URL) -> None:
        """The plain revisions between the old release and the first Change of the upgrade."""
        if self.upgrade.old not in (None, self.old):
            with _aside():
                self._environment(url).upgrade(str(self.upgrade.old))

    def _environment(self, url: sa.URL) -> Environment:
        text = url.render_as_string(hide_password=False)
        environment = Environment(self._config, section=self._section, url=text, arguments=self._arguments)
        environment.database()  # raises CF301 if env.py goes elsewhere: nothing but a scratch database may be touched
        return environment


def _nothing(target: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF004",
            what=f"there is no Change to rehearse up to {target}.",
            instead="declare one in a revision (change = Change(...)), or name two revisions: "
            "contraflow rehearse OLD:NEW.",
        )
    )


@contextmanager
def _aside() -> Iterator[None]:
    """What env.py and revisions print goes to stderr, and what Alembic logs nowhere: they run many times here."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)
