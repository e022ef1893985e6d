"""Which upgrade of the journal a declared one is, and what is refused because of it. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from contraflow.engine.journal import Entry, Revision
from contraflow.engine.report import State
from contraflow.operations.planning import Upgrade
from contraflow.problems import Problem, ProblemError

__all__ = ["contracted", "grown", "impossible", "last", "match", "nothing_open", "revisions_of", "rolled_back"]


def revisions_of(upgrade: Upgrade) -> tuple[Revision, ...]:
    """The upgrade's revisions, as the journal keeps them."""
    return tuple(
        Revision(id=change.revision, fingerprint=change.fingerprint, doc=change.doc) for change in upgrade.changes
    )


def match(entries: Sequence[Entry], upgrade: Upgrade) -> Entry | None:
    """The journal's entry that ``upgrade`` belongs to: an open one, or the contracted one that holds all of
    it; else None.

    An upgrade belongs to the open one if its revisions are among the open one's (what is left of a set of
    which some were stamped already), or if it continues it (see :func:`grown`). Raises ``CF002`` if one of
    them changed since, ``CF005`` if another upgrade is open, ``CF007`` if revisions were added too late.
    """
    wanted = revisions_of(upgrade)
    ids = [revision.id for revision in wanted]
    entry = next((entry for entry in entries if entry.open), None)
    if entry is None:
        return _contracted_with(entries, upgrade, ids)
    known = {revision.id: revision for revision in entry.revisions}
    if not grown(entry, upgrade) and not set(ids) <= set(known):
        raise _another_open(entry, upgrade)
    changed = [
        revision
        for revision in wanted
        if revision.id in known and known[revision.id].fingerprint != revision.fingerprint
    ]
    if changed:
        raise _changed(entry, changed)
    if grown(entry, upgrade) and entry.state not in (State.PENDING, State.EXPANDED):
        raise _grown_late(entry, upgrade)
    return entry


def grown(entry: Entry, upgrade: Upgrade) -> bool:
    """Whether ``upgrade`` is the open one with revisions added at its end."""
    ids = [change.revision for change in upgrade.changes]
    known = [revision.id for revision in entry.revisions]
    return entry.open and upgrade.old == entry.old and len(ids) > len(known) and ids[: len(known)] == known


def last(entries: Sequence[Entry]) -> Entry | None:
    """The open upgrade, else the last one, else None."""
    return next((entry for entry in entries if entry.open), entries[-1] if entries else None)


def rolled_back(entries: Sequence[Entry], upgrade: Upgrade) -> Entry | None:
    """The last entry, if it is the declared upgrade, rolled back."""
    if not entries or entries[-1].state is not State.ROLLED_BACK:
        return None
    ids = {change.revision for change in upgrade.changes}
    return entries[-1] if ids <= {revision.id for revision in entries[-1].revisions} else None


def _contracted_with(entries: Sequence[Entry], upgrade: Upgrade, ids: Sequence[str]) -> Entry | None:
    for entry in reversed(entries):
        if entry.state is not State.CONTRACTED:
            continue
        known = {revision.id for revision in entry.revisions}
        if set(ids) <= known:
            return entry
        if done := [revision for revision in ids if revision in known]:
            raise ProblemError(
                Problem(
                    code="CF305",
                    what=f"{', '.join(done)} of the upgrade {upgrade.id} is contracted already.",
                    why="its old shape is gone, so it cannot be expanded again.",
                    instead=f"begin the upgrade at {entry.new}.",
                )
            )
    return None


def impossible(verb: str, entry: Entry | None) -> ProblemError:
    """``CF004``: ``verb`` is not possible where the upgrade stands."""
    if entry is None:
        what, instead = f"cannot {verb}: no upgrade was begun on this database.", "contraflow expand begins one."
    elif entry.pending in ("contract", "rollback") and entry.pending != verb:
        what = f"cannot {verb} {entry.id}: a {entry.pending} was begun and is not finished."
        instead = f"contraflow {entry.pending} finishes it."
    else:
        what = f"cannot {verb} {entry.id}: it is {entry.state.value}."
        instead = {
            State.PENDING: "contraflow expand comes next.",
            State.EXPANDED: "contraflow migrate comes next.",
            State.MIGRATED: "contraflow verify comes next.",
            State.VERIFIED: "contraflow contract comes next.",
            State.CONTRACTED: "nothing is left to do.",
            State.ROLLED_BACK: "contraflow expand begins it anew.",
        }[entry.state]
    return ProblemError(
        Problem(code="CF004", what=what, why="each phase relies on what the one before it left.", instead=instead)
    )


def nothing_open(verb: str) -> ProblemError:
    """``CF004``: the verb needs the declared upgrade, or an open one."""
    return ProblemError(
        Problem(
            code="CF004",
            what=f"cannot {verb}: no upgrade was named, and none is open on this database.",
            instead="name the revisions (--revision OLD:NEW), or run where the revisions are.",
        )
    )


def contracted(entry: Entry) -> ProblemError:
    """``CF303``: there is no way back."""
    return ProblemError(
        Problem(
            code="CF303",
            what=f"{entry.id} is contracted: it cannot be rolled back.",
            why="its old columns are dropped, and what the new release wrote since may have no old shape.",
            instead="write a new revision that leads back, and upgrade to it; or restore a backup.",
        )
    )


def _another_open(entry: Entry, upgrade: Upgrade) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF005",
            what=f"cannot begin {upgrade.id}: the upgrade {entry.id} is {entry.state.value}, not contracted.",
            why="at most two adjacent releases run side by side.",
            instead=f"finish {entry.id} (contraflow contract), or take it back (contraflow rollback), first.",
        )
    )


def _changed(entry: Entry, changed: Sequence[Revision]) -> ProblemError:
    names = ", ".join(f"{revision.id} ({revision.doc})" if revision.doc else revision.id for revision in changed)
    return ProblemError(
        Problem(
            code="CF002",
            what=f"{names} changed since the upgrade {entry.id} was expanded.",
            why="the database holds columns and triggers of the earlier declaration.",
            instead="undo the change; or contraflow rollback, and upgrade again.",
        )
    )


def _grown_late(entry: Entry, upgrade: Upgrade) -> ProblemError:
    known = {revision.id for revision in entry.revisions}
    added = ", ".join(change.revision for change in upgrade.changes if change.revision not in known)
    return ProblemError(
        Problem(
            code="CF007",
            what=f"cannot add {added} to the upgrade {entry.id}: it is {entry.state.value}.",
            why="the new release may have written in the new shape already, which planning anew would lose.",
            instead=f"contract {entry.id} first; then upgrade to {upgrade.new}.",
        )
    )
