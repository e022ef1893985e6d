"""What happens when Alembic reaches a Change: the whole set is found, and run once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from alembic import op
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from contraflow.alembic import offline
from contraflow.alembic.change import Change, change_of
from contraflow.alembic.discovery import (
    absolute,
    behind,
    is_open,
    resumed,
    revision_of,
    sets,
    to_downgrade,
    to_upgrade,
)
from contraflow.alembic.place import refuse_another_place
from contraflow.alembic.settings import Settings, Through, read_settings
from contraflow.engine.report import Options, Progress, State
from contraflow.engine.runner import Runner
from contraflow.operations.planning import Upgrade
from contraflow.problems import Interrupted, Problem, ProblemError

__all__ = ["ATTRIBUTE", "ChangeError", "ChangeInterrupted", "Guide", "downgrade", "upgrade"]

ATTRIBUTE = "contraflow"
"""The key of ``alembic.config.Config.attributes`` under which a caller may leave a :class:`Guide`."""

# Below "alembic", so that the [logger_alembic] section of a generated alembic.ini shows it, and fileConfig() does
# not disable it.
_log = logging.getLogger("alembic.contraflow")


class ChangeError(ProblemError, CommandError):
    """A :class:`~contraflow.problems.ProblemError` that Alembic's command line reports without a traceback."""


def _plain_runner(engine: sa.Engine, upgrade: Upgrade | None, options: Options) -> Runner:
    return Runner(engine, upgrade, options=options, progress=_logged)


class ChangeInterrupted(Interrupted, CommandError):
    """An :class:`~contraflow.problems.Interrupted` that Alembic's command line reports without a traceback."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a caller of Alembic's commands wants of the runner that a Change starts."""

    open: Callable[[sa.Engine, Upgrade | None, Options], AbstractContextManager[Runner]] = _plain_runner
    """Makes the runner, with the caller's own progress and way to stop it."""
    through: Through | None = None
    """None: what the configuration says."""
    force: str | None = None
    """The reason to roll back although nodes of the new release are alive."""
    compared: bool = False
    """Whether env.py's connection is known to find the tables that a new one of its engine finds."""


@dataclass(kw_only=True)
class _Run:
    """What one run of Alembic did so far."""

    done: set[Change] = field(default_factory=set)


# One MigrationContext is one run against one database; env.py of the multidb template makes several.
_runs: WeakKeyDictionary[MigrationContext, _Run] = WeakKeyDictionary()


def upgrade(change: Change, arguments: Mapping[str, Any]) -> None:
    """Carry out the set of ``change`` in the run that is under way, unless it was already.

    Raises :class:`ChangeError`.
    """
    _once(change, arguments, _upgrade)


def downgrade(change: Change, arguments: Mapping[str, Any]) -> None:
    """Roll back the set of ``change`` in the run that is under way, unless it was already.

    Raises :class:`ChangeError`.
    """
    _once(change, arguments, _downgrade)


def _once(
    change: Change, arguments: Mapping[str, Any], carry_out: Callable[[MigrationContext, Change], set[Change]]
) -> None:
    with _reported():
        _refuse_several(arguments)
        context = op.get_context()
        run = _runs.setdefault(context, _Run())
        if change not in run.done:
            run.done |= carry_out(context, change)


def _upgrade(context: MigrationContext, change: Change) -> set[Change]:
    directory, settings, guide = _surroundings(context)
    through = guide.through or settings.through
    heads = context.get_current_heads()
    scripts = to_upgrade(directory, heads, _destination(context, directory, change, down=False) or "base")
    revision = revision_of(directory.walk_revisions(), change).revision
    if context.as_sql:
        one = _own_set(revision, sets(scripts, apart=through == "contract"))
        offline.upgrade(context, one, settings, through)
        return _changes(directory, _revisions(one))
    with _own_connections(context, guide) as engine:
        # Asked anew, now that the transaction is over that may have seen an older state only.
        _refuse_overtaken(directory, context.get_current_heads(), revision)
        with Runner(engine, options=settings.options) as runner:
            past = runner.status()
        candidates = resumed(directory, scripts, past)
        if revision not in {script.revision for script in candidates}:
            return _changes(directory, past.revisions)
        one = _own_set(revision, sets(candidates, apart=through == "contract"))
        with guide.open(engine, one, settings.options) as runner:
            runner.run(through=through)
    return _changes(directory, _revisions(one))


def _downgrade(context: MigrationContext, change: Change) -> set[Change]:
    directory, settings, guide = _surroundings(context)
    heads = context.get_current_heads()
    scripts = to_downgrade(directory, heads, _destination(context, directory, change, down=True))
    revision = revision_of(scripts, change).revision
    if context.as_sql:
        one = _own_set(revision, sets(reversed(scripts)))
        offline.downgrade(context, one, settings)
        return _changes(directory, _revisions(one))
    with _own_connections(context, guide) as engine, guide.open(engine, None, settings.options) as runner:
        past = runner.status()
        if revision not in past.revisions or past.state is State.CONTRACTED:
            raise _too_late(revision, contracted=revision in past.revisions)
        if is_open(past):
            known = {script.revision for script in directory.walk_revisions()}
            leaving = {script.revision for script in scripts}
            if staying := [name for name in past.revisions if name in known and name not in leaving]:
                raise _together(staying, past.upgrade or "", past.old)
            runner.rollback(force=guide.force)
    return _changes(directory, past.revisions)


def _own_set(revision: str, found: Iterable[Upgrade]) -> Upgrade:
    """The set that a Change's revision belongs to: each Change among the revisions belongs to one."""
    return next(one for one in found if revision in _revisions(one))


def _revisions(one: Upgrade) -> list[str]:
    return [change.revision for change in one.changes]


def _changes(directory: ScriptDirectory, revisions: Collection[str]) -> set[Change]:
    """The Changes of these revisions."""
    known = (script for script in directory.walk_revisions() if script.revision in revisions)
    return {change for script in known if (change := change_of(script)) is not None}


def _refuse_several(arguments: Mapping[str, Any]) -> None:
    """``CF302`` in an ``env.py`` that runs each revision for several databases, as Alembic's multidb template does."""
    if "engine_name" not in arguments:
        return
    raise ProblemError(
        Problem(
            code="CF302",
            what=f"env.py runs the revisions for several databases; this is {arguments['engine_name']}.",
            why="a Change is one upgrade of one database, and would be carried out in each of them.",
            instead="give the database a migration environment of its own: a section with its script_location and URL,"
            "\nthen alembic -n SECTION upgrade head.",
        )
    )


def _refuse_overtaken(directory: ScriptDirectory, heads: Sequence[str], revision: str) -> None:
    """``CF001`` if the Change that Alembic has come to waits no more: it was read before the lock is had."""
    if behind(directory, heads, revision):
        return
    raise ProblemError(
        Problem(
            code="CF001",
            what=f"another run of Alembic has carried out {revision} since this one began.",
            why="this one would move alembic_version from where it no longer stands.",
            instead="run the same command again; contraflow upgrade keeps others out from its start.",
        )
    )


# -- the run that is under way -------------------------------------------------------------------------------


def _surroundings(context: MigrationContext) -> tuple[ScriptDirectory, Settings, Guide]:
    config, directory = context.config, context.script
    if config is None or directory is None or "destination_rev" not in context.opts:
        raise _not_a_command()
    environment = context.environment_context
    arguments = environment.get_x_argument(as_dictionary=True) if environment is not None else {}
    guide = config.attributes.get(ATTRIBUTE)
    return directory, read_settings(config, arguments), guide or Guide()


def _destination(context: MigrationContext, directory: ScriptDirectory, change: Change, *, down: bool) -> Any:
    destination = context.opts["destination_rev"]
    # A script without a connection starts where it says it starts, so counting is exact.
    return destination if context.as_sql else absolute(directory, destination, change, down=down)


def _logged(progress: Progress) -> None:
    if progress.finished or progress.message:
        _log.info("%s: %s%s", progress.phase, progress.title, f" ({progress.message})" if progress.message else "")


@contextmanager
def _own_connections(context: MigrationContext, guide: Guide) -> Iterator[Any]:
    """The engine to connect with, while env.py's own transaction is out of the way: what it did so far is
    committed.
    """
    connection = context.connection
    if connection is None:
        raise _not_a_command()
    # Neither is public. The first: env.py (or its caller) had begun a transaction before Alembic was configured.
    # The second: env.py runs migrations without context.begin_transaction(), so that Alembic has no transaction it
    # could commit.
    external = getattr(context, "_in_external_transaction", False)
    unowned = connection.in_transaction() and getattr(context, "_transaction", None) is None
    if external or unowned:
        raise ProblemError(
            Problem(
                code="CF306",
                what="the connection that env.py gave to Alembic is inside a transaction that Alembic may not commit.",
                why="a Change works in many short transactions, on connections of its own,"
                " which would wait for this one.",
                instead="in env.py, commit what was begun before context.configure(),\n"
                "and write: with context.begin_transaction(): context.run_migrations()",
            )
        )
    if not guide.compared:
        refuse_another_place(connection)
    with context.autocommit_block():
        yield connection.engine


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except ChangeError:
        raise
    except ProblemError as error:
        raise ChangeError(*error.problems) from error
    except Interrupted as error:
        raise ChangeInterrupted(str(error)) from error


# -- problems ------------------------------------------------------------------------------------------------


def _not_a_command() -> ProblemError:
    return ProblemError(
        Problem(
            code="CF302",
            what="a Change was run by something else than Alembic's upgrade or downgrade.",
            why="it must know the revisions the run will reach, to plan their Changes as one.",
            instead="run alembic upgrade, contraflow upgrade, or alembic.command.upgrade(config, target).",
        )
    )


def _too_late(revision: str, *, contracted: bool) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF303",
            what=f"revision {revision} cannot be downgraded: "
            + ("its upgrade is contracted." if contracted else "the journal has no open upgrade with it."),
            why="the old columns are gone, and with them what only they held.",
            instead="write a new revision with a Change that goes the other way, or restore a backup.",
        )
    )


def _together(staying: list[str], upgrade_id: str, old: str | None) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF302",
            what=f"the downgrade would leave {', '.join(staying)} of upgrade {upgrade_id} in place.",
            why="the Changes of one upgrade were expanded together, and are rolled back together.",
            instead=f"go back to where it started: alembic downgrade {old or 'base'}",
        )
    )
