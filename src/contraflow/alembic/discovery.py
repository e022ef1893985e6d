"""From a script directory to upgrades: which Changes a run of Alembic has to carry out, and as which sets.

Reads revisions only; nothing here opens a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError

from contraflow.alembic.change import Change, change_of, declared
from contraflow.engine.report import State, Status
from contraflow.operations.planning import Upgrade
from contraflow.problems import Problem, ProblemError

__all__ = [
    "absolute",
    "behind",
    "is_open",
    "resumed",
    "revision_of",
    "sets",
    "to_downgrade",
    "to_upgrade",
    "upgrade_of",
]


def to_upgrade(directory: ScriptDirectory, heads: Sequence[str], destination: str | Sequence[str]) -> list[Script]:
    """The revisions that ``alembic upgrade destination`` runs from ``heads``, in the order it runs them.

    Raises ``alembic.util.CommandError`` if Alembic would, :class:`~contraflow.problems.ProblemError` with ``CF302`` if
    ``heads`` are none of its revisions.
    """
    # The same walk as alembic.command.upgrade's; implicit_base lets it enter branches that were not begun yet.
    target = destination if isinstance(destination, str) else tuple(destination)
    with _known():
        return list(directory.iterate_revisions(target, tuple(heads), implicit_base=True))[::-1]


def to_downgrade(directory: ScriptDirectory, heads: Sequence[str], destination: str | None) -> list[Script]:
    """The revisions that ``alembic downgrade destination`` runs from ``heads``, the newest first. Raises as
    :func:`to_upgrade`.
    """
    with _known():
        return list(directory.iterate_revisions(tuple(heads), destination, select_for_downgrade=True))


def behind(directory: ScriptDirectory, heads: Sequence[str], revision: str) -> bool:
    """Whether a database at ``heads`` still has to reach ``revision``. A revision that is no more counts as
    reached. Raises as :func:`to_upgrade`.
    """
    known = {script.revision for script in directory.walk_revisions()}
    if revision not in known:
        return False
    # An empty tuple would mean "heads" to Alembic.
    applied = directory.iterate_revisions(tuple(heads), "base") if heads else iter(())
    with _known():
        return revision not in {script.revision for script in applied}


@contextmanager
def _known() -> Iterator[None]:
    """``CF302`` for revisions of the database that are not among the files: Alembic walks from them without a look."""
    try:
        yield
    except RevisionError as error:
        raise ProblemError(
            Problem(
                code="CF302",
                what=f"Alembic says: {str(error).rstrip('.')}.",
                why="the database is at a revision that is not among these files, perhaps those of an older release.",
                instead="run it where the newest revisions are; contraflow --url URL status needs none.",
            )
        ) from error


def sets(scripts: Iterable[Script], *, apart: bool = False) -> tuple[Upgrade, ...]:
    """The Changes among ``scripts`` (oldest first), as the sets that are expanded and contracted together.

    A set is an unbroken chain of revisions. Without ``apart`` there can be one set only, because the next one must
    wait until it is contracted: raises :class:`~contraflow.problems.ProblemError` with ``CF302`` otherwise. With
    ``apart`` (every set is contracted at once) each chain is a set of its own.
    """
    by_revision = {script.revision: script for script in scripts}
    chains: list[list[Script]] = []
    for script in by_revision.values():
        if change_of(script) is None:
            continue
        if isinstance(script.down_revision, tuple):
            raise _merge_point(script)
        chain = next((chain for chain in chains if chain[-1].revision == script.down_revision), None)
        if chain is None:
            chains.append([script])
        else:
            chain.append(script)
    if len(chains) > 1 and not apart:
        raise _several(chains, by_revision)
    return tuple(
        Upgrade(
            old=chain[0].down_revision if isinstance(chain[0].down_revision, str) else None,
            new=chain[-1].revision,
            changes=tuple(change for script in chain if (change := declared(script)) is not None),
        )
        for chain in chains
    )


def resumed(directory: ScriptDirectory, scripts: Sequence[Script], past: Status) -> list[Script]:
    """The revisions among which sets are to be found, when ``scripts`` are still to run and the journal tells
    ``past``.

    The stamps of one upgrade may have been cut short. If it is open, its revisions that were stamped are put back,
    so that it is resumed as a whole. If it is contracted, those that were not stamped are left out: their work is
    done.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF305`` if it was rolled back and only a part of its
    revisions was taken back.
    """
    waiting = {script.revision for script in scripts}
    if past.state is State.CONTRACTED:
        return [script for script in scripts if script.revision not in past.revisions]
    known = {script.revision: script for script in directory.walk_revisions()}
    stamped = [known[name] for name in past.revisions if name in known and name not in waiting]
    if past.state is State.ROLLED_BACK:
        if stamped and waiting & set(past.revisions):
            raise _half_taken_back(stamped, past)
        return list(scripts)
    if is_open(past) and past.new in waiting:
        return [*stamped, *scripts]
    return list(scripts)


def upgrade_of(
    directory: ScriptDirectory, scripts: Sequence[Script], past: Status, *, apart: bool = False
) -> Upgrade | None:
    """The upgrade to work on, when ``scripts`` are still to run: the first that waits, else the open one; None if
    there is neither.

    Raises :class:`~contraflow.problems.ProblemError` as `sets` and `resumed` do.
    """
    found = sets(resumed(directory, scripts, past), apart=apart)
    if not found and is_open(past):
        known = {script.revision: script for script in directory.walk_revisions()}
        found = sets(known[name] for name in past.revisions if name in known)
    return found[0] if found else None


def is_open(past: Status) -> bool:
    """Whether something of an upgrade may stand in the database: it was begun, and neither contracted nor rolled
    back.
    """
    return past.state not in (None, State.CONTRACTED, State.ROLLED_BACK)


def _half_taken_back(stamped: Sequence[Script], past: Status) -> ProblemError:
    names = ", ".join(script.revision for script in stamped)
    return ProblemError(
        Problem(
            code="CF305",
            what=f"upgrade {past.upgrade} was rolled back, but the database still counts as having {names}.",
            why="its tables are in the shape of before.",
            instead=f"finish going back first: alembic downgrade {past.old or 'base'}",
        )
    )


def revision_of(scripts: Iterable[Script], change: Change) -> Script:
    """The revision that exposes ``change``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF302`` if there is none, because the Change is called
    by a function.
    """
    for script in scripts:
        if change_of(script) is change:
            return script
    raise ProblemError(
        Problem(
            code="CF302",
            what="a Change was called by a function, not by Alembic.",
            why="it could not be planned together with the other Changes of its upgrade.",
            instead="write at the end of its revision: upgrade, downgrade = change.upgrade, change.downgrade\n"
            "and put plain op.* calls into a revision of their own.",
        )
    )


_RELATIVE = re.compile(r"(?:.+@)?[+-](?P<steps>\d+)")


def absolute(
    directory: ScriptDirectory, destination: object, change: Change, *, down: bool
) -> str | tuple[str, ...] | None:
    """``destination`` of the run that is under way, if it means now what it meant when the run began.

    ``+2`` counts from where the run began. Once a plain revision has run, that place is no longer known.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF302`` where it may mean another revision now.
    """
    if isinstance(destination, (tuple, list)):
        return tuple(map(str, destination))
    if destination is None:
        return None
    text = str(destination)
    relative = _RELATIVE.fullmatch(text)
    if relative is None or int(relative["steps"]) == 1:
        return text
    script = revision_of(directory.walk_revisions(), change)
    names = script.nextrev if down else _names(script.down_revision)
    if all(change_of(neighbour) is not None for neighbour in directory.get_revisions(tuple(names))):
        return text
    raise ProblemError(
        Problem(
            code="CF302",
            what=f"the target {text} reaches revision {script.revision}, a Change, by way of plain revisions.",
            why="it counts from where the run began, and a Change must know exactly how far the run will go.",
            instead="name the target revision instead of counting: alembic "
            f"{'downgrade' if down else 'upgrade'} REVISION.",
        )
    )


def _names(down_revision: str | Sequence[str] | None) -> tuple[str, ...]:
    if down_revision is None:
        return ()
    return (down_revision,) if isinstance(down_revision, str) else tuple(down_revision)


def _merge_point(script: Script) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF302",
            what=f"revision {script.revision} merges branches ({', '.join(_names(script.down_revision))})"
            " and declares a Change.",
            why="an upgrade starts from one old revision; a merge has several.",
            instead="make the merge a plain revision (alembic merge) and put the Change into one that follows it.",
        )
    )


def _several(chains: Sequence[Sequence[Script]], by_revision: dict[str, Script]) -> ProblemError:
    first, second = chains[0][-1], chains[1][0]
    between = _between(first, second, by_revision)
    if between is None:
        return ProblemError(
            Problem(
                code="CF302",
                what=f"revisions {first.revision} and {second.revision} declare Changes on two branches.",
                why="the Changes of one upgrade are planned together, in one order.",
                instead=f"upgrade one branch after the other: alembic upgrade {first.revision}; contraflow contract; "
                f"alembic upgrade {second.revision}\n"
                "or merge the branches before the Changes. " + _FRESH,
            )
        )
    names = ", ".join(between)
    return ProblemError(
        Problem(
            code="CF302",
            what=f"the plain revision {names} stands between the Changes {first.revision} and {second.revision}.",
            why="the Changes of one upgrade are expanded together, so it could run neither before nor after them.",
            instead=f"upgrade in two steps: alembic upgrade {first.revision}; roll the nodes; contraflow contract;"
            " then go on\n"
            f"or move {names} before {chains[0][0].revision} or after {chains[-1][-1].revision}. " + _FRESH,
        )
    )


_FRESH = "A database that no service uses yet needs neither: alembic -x contraflow.through=contract upgrade head."


def _between(lower: Script, upper: Script, by_revision: dict[str, Script]) -> list[str] | None:
    """The revisions on a way down from ``upper`` to ``lower``, the oldest first; None if there is no way."""
    ways = [(name, [name]) for name in _names(upper.down_revision)]
    seen = set()
    while ways:
        name, way = ways.pop()
        if name == lower.revision:
            return way[-2::-1]
        if name in seen or name not in by_revision:
            continue
        seen.add(name)
        ways.extend((deeper, [*way, deeper]) for deeper in _names(by_revision[name].down_revision))
    return None
