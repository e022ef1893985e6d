"""Opaque lenses at work: rows are read, computed in Python, and written back if nobody has changed them meanwhile."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.opaque import OpaqueText, opaque_text
from contraflow.engine.backfill import next_size
from contraflow.engine.checks import misfit
from contraflow.engine.report import Progress
from contraflow.engine.schema import full_name
from contraflow.engine.work import Work
from contraflow.opaque import Opaque
from contraflow.problems import Problem, ProblemError
from contraflow.steps import Backfill, Online, Phases
from contraflow.syncs import Sync

__all__ = ["check_opaque", "compute", "needs_python", "opaque_syncs"]

SAMPLE = 1000
"""Rows of each table that ``check`` computes."""
_IDLE_PASSES = 3


def opaque_syncs(phases: Phases) -> list[Sync]:
    """The syncs whose rows Python computes."""
    return [
        block.step.sync
        for block in phases.migrate
        if isinstance(block, Online) and isinstance(block.step, Backfill) and block.step.sync.opaque is not None
    ]


def needs_python(upgrade: str, tables: Sequence[str]) -> ProblemError:
    """``CF004``: the journal alone is not enough."""
    return ProblemError(
        Problem(
            code="CF004",
            what=f"cannot migrate {upgrade} from the journal alone: {', '.join(tables)} has an opaque lens.",
            why="its functions are Python code of the revision, which the journal cannot hold.",
            instead="run it where the revisions are: contraflow -c alembic.ini migrate",
        )
    )


def _lens(sync: Sync) -> Opaque:
    if sync.opaque is None:
        raise TypeError(f"the sync of {sync.table} has no opaque lens")
    return sync.opaque


def _failed(sync: Sync, direction: str, row: Mapping[str, Any], reason: str) -> Problem:
    # Only the key: what the columns hold may be a secret.
    where = ", ".join(f"{name} = {row[name]!r}" for name in sync.key) or "a row without a key"
    return Problem(
        code="CF107",
        what=f"{full_name(sync.schema, sync.table)}: for the row {where}, {direction} {reason}.",
        why="its new side cannot be computed, and contract would wait for it for ever.",
        instead=f"make {direction} total over the column's values, or mend the row.",
    )


def _compute(sync: Sync, row: Mapping[str, Any]) -> dict[str, Any]:
    """The new side of a row. Raises ``CF107`` if it cannot be stored."""
    try:
        values = _lens(sync).new_from(row)
    except ProblemError:
        raise
    except Exception as error:
        reason = f"raises {type(error).__name__}"
        raise ProblemError(_failed(sync, "forward", row, reason)) from error
    for name, value in values.items():
        if unfit := misfit(value, sync.columns[name]):
            shown = unfit if value is None else f"a value that {name} cannot hold"
            raise ProblemError(_failed(sync, "forward", row, f"gives {name}: {shown}"))
    return values


def check_opaque(connection: sa.Connection, syncs: Sequence[Sync]) -> list[Problem]:
    """Problems of opaque lenses over the first :data:`SAMPLE` rows of their tables, one for each table at most.

    ``CF107`` where a side cannot be computed or stored, ``CF108`` where ``backward`` does not give back what
    ``forward`` was given, ``CF102`` where a function gives other columns than it should.
    """
    problems = []
    for sync in syncs:
        try:
            problems += _check(connection, sync)
        except ProblemError as error:
            problems += error.problems
    return problems


def _check(connection: sa.Connection, sync: Sync) -> list[Problem]:
    lens = _lens(sync)
    names = tuple(dict.fromkeys((*sync.key, *lens.old)))
    types = {**dict(zip(sync.key, sync.key_types, strict=True)), **{name: sync.columns[name].type for name in lens.old}}
    columns = [sa.column(name, types[name]) for name in names]
    table = sa.table(sync.table, *columns, schema=sync.schema)
    lost: list[str] = []
    for found in connection.execute(sa.select(*table.columns).limit(SAMPLE)):
        row = dict(zip(names, found, strict=True))
        values = _compute(sync, row)
        try:
            back = lens.old_from(values)
        except ProblemError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's function
            return [_failed(sync, "backward", row, f"raises {type(error).__name__} on what forward gave")]
        if not lens.lossy and any(back[name] != row[name] for name in lens.old):
            lost.append(", ".join(f"{name} = {row[name]!r}" for name in sync.key) or "one without a key")
    if not lost:
        return []
    return [
        Problem(
            code="CF108",
            what=f"{sync.table}: backward(forward(row)) differs from the row in {len(lost)} of its first {SAMPLE} rows:"
            f" {'; '.join(lost[:3])}.",
            why="what the old release wrote would be another value once the new release has written the row.",
            instead="change the lens so that it keeps the difference, or accept the loss: Opaque(..., lossy=True).",
        )
    ]


def compute(work: Work, syncs: Sequence[Sync]) -> None:
    """Compute the stale rows of each table, while the old release may make new ones. Needs no checkpoint: the marker
    tells.

    Raises ``CF006`` if row locks cannot be had for ``lock_patience`` seconds, ``CF107`` for a row that cannot be
    computed (those before it are written), ``CF012`` if rows stay stale though each was tried.
    """
    for sync in syncs:
        title = f"compute {full_name(sync.schema, sync.table)}"
        began = work.clock()
        work.record("begun", title)
        rows = _Table(work=work, sync=sync, lens=_lens(sync), title=title).run()
        work.record("done", title, statements=rows, seconds=work.clock() - began)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One table whose stale rows are computed."""

    work: Work
    sync: Sync
    lens: Opaque
    title: str

    def run(self) -> int:
        """Compute until no stale row is left. Returns the rows written."""
        work, sync = self.work, self.sync
        found = work.adapter.find(work.connection, sync.table, sync.schema)
        keep = [name for name in found.details.get("on_update", ()) if name not in sync.columns]
        text = opaque_text(sync, self.lens, work.adapter.compiler, keep=keep)
        done = idle = 0
        while left := self._count(text):
            wrote = self._pass(text, done, left)
            done += wrote
            idle = 0 if wrote else idle + 1
            if idle == _IDLE_PASSES:
                raise _stuck(sync, left)
        self._tell(done, done, finished=True)
        return done

    def _tell(self, done: int, total: int, *, finished: bool = False) -> None:
        progress = Progress(phase=self.work.verb, title=self.title, done=done, total=total, finished=finished)
        self.work.progress(progress)

    def _count(self, text: OpaqueText) -> int:
        return int(self.work.connection.execute(sa.text(text.remaining)).scalar() or 0)

    def _pass(self, text: OpaqueText, before: int, left: int) -> int:
        """One walk over the table's stale rows, in the order of the key. Returns the rows written."""
        work, sync, options = self.work, self.sync, self.work.options
        typed = [sa.column(name, type_) for name, type_ in zip(sync.key, sync.key_types, strict=True)]
        typed += [sa.column(name, sync.columns[name].type) for name in self.lens.old]
        size, wrote = min(options.batch_size, options.max_batch_size), 0
        position: Mapping[str, Any] | None = None
        while True:
            work.breathe()
            began = work.clock()
            page = self._typed(text.first_page if position is None else text.page).columns(*typed)
            rows = work.connection.execute(page, {"limit": size, **(position or {})}).all()
            if not rows:
                return wrote
            writes = [self._parameters(tuple(row)) for row in rows]
            now = self._write(self._typed(text.write), writes)
            wrote += now
            self._tell(before + wrote, before + max(left, wrote))
            if sync.key:
                position = {name: value for name, value in writes[-1].items() if name.startswith("k")}
            elif not now:
                return wrote
            size = next_size(size, work.clock() - began, options)
            if options.pause:
                work.sleep(options.pause)

    def _typed(self, sql: str) -> sa.TextClause:
        """The statement, with those of the parameters that it has bound as their columns' types are."""
        sync, lens = self.sync, self.lens
        types = {f"k{place}": type_ for place, type_ in enumerate(sync.key_types)}
        types |= {f"o{place}": sync.columns[name].type for place, name in enumerate(lens.old)}
        types |= {f"n{place}": sync.columns[name].type for place, name in enumerate(lens.new)}
        named = set(re.findall(r"(?<!\\):(\w+)", sql))
        return sa.text(sql).bindparams(*(sa.bindparam(name, type_=types[name]) for name in types.keys() & named))

    def _parameters(self, row: tuple[Any, ...]) -> dict[str, Any]:
        """Those of a row's write."""
        sync, lens, count = self.sync, self.lens, len(self.sync.key)
        values = _compute(sync, dict(zip((*sync.key, *lens.old), row, strict=True)))
        return {
            **{f"k{place}": value for place, value in enumerate(row[:count])},
            **{f"o{place}": value for place, value in enumerate(row[count:])},
            **{f"n{place}": values[name] for place, name in enumerate(lens.new)},
        }

    def _write(self, statement: sa.TextClause, writes: list[dict[str, Any]]) -> int:
        """One short transaction. A row that was changed since it was read stays stale."""
        work = self.work

        def attempt() -> int:
            with work.adapter.transaction(work.connection, work.options.lock_timeout):
                work.lease.renew(work.connection)
                return sum(work.connection.execute(statement, write).rowcount for write in writes)

        name = full_name(self.sync.schema, self.sync.table)
        return work.patiently(attempt, rows_of=name, again="it computes what is left")


def _stuck(sync: Sync, left: int) -> ProblemError:
    name = full_name(sync.schema, sync.table)
    return ProblemError(
        Problem(
            code="CF012",
            what=f"{left} rows of {name} stay to be computed, though each was tried.",
            why="something takes the writes back (another trigger on the table), or writes these rows without a pause.",
            instead=f"look at the triggers of {name}, then run: contraflow migrate",
        )
    )
