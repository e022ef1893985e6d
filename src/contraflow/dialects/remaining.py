"""What of a hold is still to do on a table, given what stands there: the same question on every server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Constraint
from contraflow.dialects.base import Found
from contraflow.dialects.pair import pair_trigger_names
from contraflow.dialects.sync import TriggerText
from contraflow.installed import Index
from contraflow.problems import Problem, ProblemError
from contraflow.references import InstallReference
from contraflow.steps import (
    AddColumns,
    ChangeKey,
    DropColumns,
    DropConstraints,
    DropIndexes,
    EnforceNotNull,
    ForgetNotNull,
    Hold,
    InstallCopy,
    InstallPair,
    InstallSync,
    Linked,
    MakeConstraints,
    NumberColumn,
    RelaxNotNull,
    RemovePair,
    RemoveSync,
    RestoreNotNull,
    SetDefaults,
    SetNotNull,
    Step,
    WidenColumns,
)
from contraflow.syncs import Sync

__all__ = ["Remaining", "fingerprint", "index_name", "key_is_due", "remaining", "require", "still_nullable"]

_FINGERPRINT = re.compile(r"/\* contraflow ([0-9a-f]{16}) \*/")


def fingerprint(text: str) -> str | None:
    """The fingerprint of the sync that a trigger's text belongs to; None if the text does not tell."""
    match = _FINGERPRINT.search(text)
    return match.group(1) if match else None


@dataclass(kw_only=True)
class Remaining:
    """The work left in a hold, by kind; an adapter puts it into the order that is safe on its server."""

    table: str = ""
    schema: str | None = None
    add: list[sa.Column[Any]] = field(default_factory=list)
    add_marker: str | None = None
    reset_marker: str | None = None
    """A marker left by another sync, to be dropped and added again, so that every row counts as never synced."""
    create: list[TriggerText] = field(default_factory=list)
    drop_triggers: list[str] = field(default_factory=list)
    """INSERT trigger first: an INSERT trigger alone would mark rows whose later UPDATEs nobody follows."""
    marker: str | None = None
    """The marker of the sync that is removed."""
    drop_function: str | None = None
    drop: list[str] = field(default_factory=list)
    """Columns, the marker last."""
    relax: list[str] = field(default_factory=list)
    restore: list[str] = field(default_factory=list)
    not_null: list[str] = field(default_factory=list)
    defaults: dict[str, str] = field(default_factory=dict)
    set_defaults: dict[str, str | None] = field(default_factory=dict)
    """Columns that have another default by then, or none."""
    show: list[str] = field(default_factory=list)
    """Hidden columns to be made visible."""
    fill_defaults: list[str] = field(default_factory=list)
    drop_indexes: list[Index] = field(default_factory=list)
    make_constraints: list[Index] = field(default_factory=list)
    widening: list[WidenColumns] = field(default_factory=list)
    """Stages of widening columns, as they are: what is left of one is the server's own to tell."""
    forget: list[str] = field(default_factory=list)
    """Columns whose NOT NULL need not be restored any more."""
    drop_constraints: list[Constraint] = field(default_factory=list)
    key: ChangeKey | None = None
    """The primary key that takes the place of another; what is left of it is the server's own to tell."""
    number: NumberColumn | None = None
    """A stage of a column that the server numbers; likewise."""

    @property
    def gone(self) -> frozenset[str]:
        """The names of the indexes and constraints that the hold drops."""
        return frozenset(str(one.name) for one in (*self.drop_indexes, *self.drop_constraints))

    def apart(self, step: Step) -> None:
        """Note what is left as it is."""
        if isinstance(step, WidenColumns):
            self.widening.append(step)
        elif isinstance(step, ChangeKey):
            self.key = step
        elif isinstance(step, NumberColumn):
            self.number = step


def remaining(hold: Hold, found: Found | None, triggers: Callable[[Sync | Linked], Sequence[TriggerText]]) -> Remaining:
    """What is left of ``hold``; everything if ``found`` is None.

    Of a table that does not exist, nothing is left to be taken away. Raises CF101 if something is to be put on it.
    """
    work = Remaining(table=hold.table, schema=hold.schema)
    for step in hold.steps:
        target = step.sync if isinstance(step, InstallSync) else step
        if not isinstance(
            target,
            (
                Sync,
                AddColumns,
                ChangeKey,
                DropColumns,
                DropConstraints,
                DropIndexes,
                InstallCopy,
                InstallPair,
                InstallReference,
                ForgetNotNull,
                MakeConstraints,
                NumberColumn,
                RelaxNotNull,
                RemovePair,
                RemoveSync,
                RestoreNotNull,
                SetDefaults,
                SetNotNull,
                WidenColumns,
            ),
        ):
            raise TypeError(f"{type(step).__name__} is not a step of a hold")
        work.table, work.schema = target.table, target.schema
        if found is not None and not found.exists:
            taken = isinstance(step, (NumberColumn, WidenColumns)) and step.stage in ("guard", "undo", "end")
            going = (
                DropColumns,
                DropConstraints,
                DropIndexes,
                RemovePair,
                RemoveSync,
                RestoreNotNull,
                SetDefaults,
            )
            if taken or isinstance(step, going):
                continue
            raise _no_table(target.table)
        if isinstance(step, AddColumns):
            work.add += [op.column for op in step.columns if found is None or op.column.name not in found.columns]
        elif isinstance(step, InstallSync):
            _install(work, step, found, triggers(step.sync))
        elif isinstance(step, (InstallCopy, InstallPair, InstallReference, RemovePair)):
            _linked(work, step, found, () if isinstance(step, RemovePair) else triggers(step))
        elif isinstance(step, SetNotNull):
            _final_shape(work, step, found)
        elif isinstance(step, (ForgetNotNull, RelaxNotNull, RestoreNotNull)):
            _nullability(work, step, found)
        elif isinstance(step, RemoveSync):
            _remove(work, step, found)
        elif isinstance(step, (DropColumns, DropConstraints, DropIndexes, MakeConstraints)):
            _held(work, step, found)
        elif isinstance(step, SetDefaults):
            work.set_defaults.update(_defaults(step, found))
        else:
            work.apart(step)
    return work


def _defaults(step: SetDefaults, found: Found | None) -> dict[str, str | None]:
    if found is None:
        return dict(step.defaults)
    texts = found.details["default_texts"]
    return {
        name: text
        for name, text in step.defaults.items()
        if name in found.columns and not _same_default(texts.get(name), text)
    }


def _same_default(one: str | None, other: str | None) -> bool:
    """Whether two texts of a default are one to a server, as far as they show it: it spells them its own way."""

    def bare(text: str | None) -> str:
        plain = re.sub(r"::[\w\s\"]+(\(\d+\))?", "", text or "NULL").strip()
        while plain.startswith("(") and plain.endswith(")"):
            plain = plain[1:-1].strip()
        return plain.strip("'").lower()

    return bare(one) == bare(other)


def _held(
    work: Remaining, step: DropColumns | DropConstraints | DropIndexes | MakeConstraints, found: Found | None
) -> None:
    if isinstance(step, DropColumns):
        work.drop[:0] = [name for name in step.names if found is None or name in found.columns]
        return
    if isinstance(step, MakeConstraints):
        work.make_constraints += [
            index for index in step.indexes if found is None or found.indexes.get(str(index.name)) == "index"
        ]
        return
    if isinstance(step, DropIndexes):
        work.drop_indexes += [index for index in step.indexes if found is None or index_name(index, found)]
        return
    # All of them where only the adapter can tell: SQLite's names stand in the table's text.
    standing = None if found is None else found.details.get("constraints")
    work.drop_constraints += [gone for gone in step.constraints if standing is None or gone.name in standing]


def _install(work: Remaining, step: InstallSync, found: Found | None, texts: Sequence[TriggerText]) -> None:
    sync = step.sync
    if found is None:
        work.add_marker = None if step.marked else sync.marker
        work.create += texts
        return
    present = [text for text in texts if text.name in found.triggers]
    # A server that keeps no comments (CockroachDB) does not tell: there the name alone counts.
    current = [text for text in present if fingerprint(found.triggers[text.name]) in (sync.fingerprint, None)]
    marker = sync.marker in found.columns
    if len(current) < len(present) or not current:
        # Nothing of this sync, or something of another: a marker that stands there is not this sync's, unless its own
        # phase has put it there.
        work.drop_triggers += reversed([text.name for text in present])
        work.drop_function = sync.name if present else None
        work.reset_marker = sync.marker if marker and (present or not step.marked) else None
        work.add_marker = None if marker else sync.marker
        work.create += texts
        return
    work.add_marker = None if marker else sync.marker
    work.create += [text for text in texts if text not in current]


def _linked(
    work: Remaining,
    step: Linked | RemovePair,
    found: Found | None,
    texts: Sequence[TriggerText],
) -> None:
    """The triggers of a pair, a copy or a reference."""
    standing = {} if found is None else found.triggers
    if isinstance(step, RemovePair):
        names = pair_trigger_names(step.name)
        work.drop_triggers += [name for name in names if found is None or name in standing]
        work.drop_function = step.name
        return
    if isinstance(step, InstallCopy):
        name, meaning = step.copy.stem(step.on), step.copy.fingerprint
    else:
        name, meaning = step.name, step.fingerprint
    present = [trigger for trigger in pair_trigger_names(name) if trigger in standing]
    current = [text for text in texts if fingerprint(standing.get(text.name, "")) == meaning]
    if len(current) < len(present):  # of another one: all of them anew
        work.drop_triggers += present
        work.drop_function = name
        current = []
    work.create += [text for text in texts if text not in current]


def _remove(work: Remaining, step: RemoveSync, found: Found | None) -> None:
    names = [f"{step.name}_i", f"{step.name}_u"]
    if found is not None:  # _c: a bridge that MySQL's contract builds, there only after a kill
        names = [name for name in (*names, f"{step.name}_c") if name in found.triggers]
    marker = found is None or step.marker in found.columns
    work.drop_triggers += names
    work.marker = step.marker
    # The function has no other trace that find() sees; it goes before the marker does.
    work.drop_function = step.name if names or marker else None
    if marker:
        work.drop.append(step.marker)
    work.fill_defaults += [
        name
        for name in step.fill_defaults
        if found is None or (found.columns.get(name) is False and name not in found.details.get("defaults", ()))
    ]


def _final_shape(work: Remaining, step: SetNotNull, found: Found | None) -> None:
    if found is None:
        work.not_null += (*step.not_null, *step.passing)
        work.defaults.update(step.defaults)
        work.show += step.names
        return
    require(found, step.table, (*step.not_null, *step.defaults))
    work.not_null += [name for name in (*step.not_null, *step.passing) if found.columns.get(name, False)]
    work.defaults.update(
        {name: text for name, text in step.defaults.items() if name not in found.details.get("defaults", ())}
    )
    work.show += [name for name in step.names if name in found.details.get("invisible", ())]


def _nullability(work: Remaining, step: ForgetNotNull | RelaxNotNull | RestoreNotNull, found: Found | None) -> None:
    if isinstance(step, ForgetNotNull):
        work.forget += step.names
    elif isinstance(step, RelaxNotNull):
        work.relax += [name for name in step.names if found is None or not found.columns.get(name, True)]
    else:
        work.restore += [name for name in step.names if found is None or found.columns.get(name, False)]


def still_nullable(step: EnforceNotNull, found: Found | None) -> list[str]:
    """The columns that may hold NULL still; all of them if ``found`` is None. Raises CF101 if one is missing."""
    if found is None:
        return [*step.names, *step.passing]
    require(found, step.table, step.names)
    return [name for name in (*step.names, *step.passing) if found.columns.get(name, False)]


def key_is_due(step: ChangeKey, found: Found | None) -> bool:
    """Whether the table has its old key yet. Raises CF101 if it has another one than either of the two."""
    if found is None:
        return True
    require(found, step.table, step.key.new)
    stands = tuple(found.details["key"])
    if stands == step.key.new:
        return False
    if stands and stands != step.key.old:
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"the primary key of {step.table} stands on {', '.join(stands)}.",
                why=f"the upgrade was planned for one on {', '.join(step.key.old) or 'nothing'}; something changed it.",
                instead="bring it back.",
            )
        )
    return True


def index_name(index: Index, found: Found) -> str | None:
    """The name by which the index stands, None if it does not; a constraint may be known by its columns only."""
    if index.name in found.indexes:
        return index.name
    unnamed = found.details.get("unnamed", {})
    # Another constraint may stand on the same columns: one that has a name is known by that.
    if not index.constraint or (index.name and index.name not in found.details.get("called", (index.name,))):
        return None
    return next((name for name, columns in unnamed.items() if tuple(columns) == index.columns), None)


def require(found: Found, table: str, names: Iterable[str]) -> None:
    """Raise CF101 for columns that should stand on the table by now."""
    missing = sorted(set(names) - set(found.columns))
    if missing:
        raise ProblemError(
            Problem(
                code="CF101",
                what=f"the table {table} has no column {', '.join(missing)}.",
                why="the upgrade added it; something dropped or renamed it since.",
                instead="bring it back, or roll the upgrade back.",
            )
        )


def _no_table(name: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF101",
            what=f"the table {name} does not exist.",
            why="it was dropped or renamed after the upgrade was planned.",
            instead="bring it back, or roll the upgrade back.",
        )
    )
