"""From the history of one row that was found wrong to a few statements that show the same, one after the other.

A rehearsal finds a row wrong among thousands, with faults and many clients at work. Mostly that has nothing to do with
it: the row's own statements, each carried out in the phase in which it was, show the same alone. `find` tries that on a
scratch server, leaves out what is not needed, and `script` writes what is left as a script.
"""

from __future__ import annotations

import ast
import datetime as dt
import decimal
import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import sqlalchemy as sa

from contraflow.engine.runner import Runner
from contraflow.engine.schema import old_shape
from contraflow.operations.base import TableName
from contraflow.operations.planning import plan, tables_of
from contraflow.problems import ProblemError
from contraflow.rehearsal.control import Control
from contraflow.rehearsal.models import models
from contraflow.rehearsal.oracle import ABSENT, Stage, TableOracle, World
from contraflow.rehearsal.project import Project
from contraflow.rehearsal.reach import find as find_server
from contraflow.rehearsal.record import Event, Finding, Plain, Record
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.rule import NOW, Side
from contraflow.rehearsal.runner_process import RunnerProcess, Verb
from contraflow.rehearsal.shapes import ANY, TableShape, value_for

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Bench", "Case", "Write", "Wrong", "find", "script", "shrink"]

_VERBS = ("expand", "migrate", "verify", "contract", "rollback")
_RELEASES: tuple[Side, Side] = ("old", "new")


@dataclass(frozen=True, kw_only=True)
class Write:
    """One statement of one release, for the one row.

    :ivar values: what it writes, in the release's own shape; nothing for a ``delete``.
    """

    release: Side
    verb: Literal["insert", "update", "delete"]
    values: Mapping[str, Any] = field(default_factory=dict)


Step: TypeAlias = "Write | Verb"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What a replay has shown.

    :ivar failed: a statement failed that does not fail without the upgrade; else a value is wrong.
    """

    failed: bool
    what: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """What happens to one row during an upgrade, in order: statements, and the phases between them.

    :ivar rehearsal: the project and the server; how it is loaded does not matter.
    :ivar table: what the new release calls the table; the old one, if only that has it.
    """

    rehearsal: Rehearsal
    table: str
    key: Mapping[str, Any]
    steps: Sequence[Step]

    def show(self, tell: Callable[[str], None]) -> bool:
        """Carry it out on a scratch server, tell each step and what is wrong, and whether something was.

        :raises ProblemError: if the server or the project cannot be used.
        """
        with Bench(self.rehearsal) as bench:
            wrong = bench.replay(self, tell)
        tell(f"wrong: {wrong.what}" if wrong is not None else "nothing is wrong")
        return wrong is not None


class Bench:
    """A scratch server on which cases are tried, one after the other; a context manager that leaves nothing behind."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._options = rehearsal
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        options = self._options
        self.project = Project(
            options.config, section=options.section, arguments=options.arguments, revisions=options.revisions
        )
        with ExitStack() as stack:
            self._server = stack.enter_context(find_server(options.on, options.url, lambda _line: None))
            urls = {release: self._server.create_database() for release in _RELEASES}
            revisions: dict[Side, str] = {"old": self.project.old, "new": self.project.new}
            for release, revision in revisions.items():
                stack.callback(self._server.drop_database, urls[release])
                self.project.prepare(urls[release], revision)
            self.control = Control(urls)
            self._runner = stack.enter_context(RunnerProcess(self.project.source))
            engine = sa.create_engine(urls["old"], poolclass=sa.pool.NullPool)
            with Runner(urls["old"]) as runner, engine.connect() as connection:
                phases = plan(
                    self.project.upgrade, old_shape(connection, runner.adapter, tables_of(self.project.upgrade))
                )
            self._models = models(self.project.upgrade, phases, *(self.control.shapes[each] for each in _RELEASES))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def table(self, title: str) -> TableOracle | None:
        """The model of a table, None if it has none, or one that is not about one row alone."""
        paired = {name for pair in self._models.pairs for name in (pair.main, pair.companion)}
        found = next((name for name in self._models.tables if _title(name) == title and name not in paired), None)
        table = self._models.tables[found] if found is not None else None
        return None if table is None or table.opaque or not table.alone else table

    def replay(self, case: Case, tell: Callable[[str], None] = lambda _line: None) -> Wrong | None:
        """Carry a case out in a fresh database.

        :returns: what is wrong; None if nothing is, or a statement fails that fails without the upgrade, too.
        :raises ProblemError: if the upgrade itself is refused.
        """
        table = self.table(case.table)
        if table is None:
            return None
        url = self._server.create_database()
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        try:
            self.project.prepare(url, self.project.old)
            return _Replay(table, case, engine, self).run(tell)
        finally:
            engine.dispose()
            self._server.drop_database(url)

    def carry_out(self, verb: Verb, url: sa.URL) -> None:
        """Carry out one phase, as the rehearsal does."""
        if verb == "expand":
            self.project.lead(url)
        self._runner.begin(verb, url, force="a counter-example" if verb in ("contract", "rollback") else None)
        *_, report = self._runner.reports()
        if report.problems:
            raise ProblemError(*report.problems)
        if verb == "verify":
            self.project.follow(url)

    def reflected(self, release: Side, shape: TableShape) -> sa.Table:
        """A table as the release's own schema has it."""
        own = self.control.shapes[release][shape.physical or shape.name]
        found = next(iter(own.columns.values())).table
        assert isinstance(found, sa.Table)  # noqa: S101 - reflected from one
        return found

    def parent(self, release: Side, name: TableName) -> TableShape | None:
        """The shape of a table that a foreign key refers to."""
        table = self._models.tables.get(name)
        return table.shape(release) if table is not None and table.knows(release) else None


class _Replay:
    """One case while it is carried out."""

    def __init__(self, table: TableOracle, case: Case, engine: sa.Engine, bench: Bench) -> None:
        self._table = table
        self._case = case
        self._engine = engine
        self._bench = bench
        self._stage = Stage.OLD
        self._worlds: list[World] = [ABSENT]

    def run(self, tell: Callable[[str], None]) -> Wrong | None:
        if not self._clear():
            return None
        for step in self._case.steps:
            if isinstance(step, Write):
                tell(f"{step.release} release: {step.verb} {dict(step.values) or ''}".rstrip())
                try:
                    self._write(step)
                except sa.exc.DBAPIError as error:
                    if self._fails_anyway(step):
                        return None
                    return Wrong(failed=True, what=f"{step.verb} by the {step.release} release fails: {error.orig}")
            else:
                tell(step)
                self._bench.carry_out(step, self._engine.url)
                self._enter(step)
            if (wrong := self._read()) is not None:
                return Wrong(failed=False, what=wrong)
        return None

    def _clear(self) -> bool:
        """Take away a row of this key that the project's own revisions make: a case makes its row itself.

        :returns: False if other rows need it, so that this row cannot be shown alone.
        """
        table = self._bench.reflected("old", self._table.shape("old")) if self._table.knows("old") else None
        if table is None or any(name not in table.c for name in self._case.key):
            return True
        where = (table.c[name] == value for name, value in self._case.key.items())
        try:
            with self._engine.begin() as connection:
                connection.execute(table.delete().where(*where))
        except sa.exc.IntegrityError:
            return False
        return True

    def _fails_anyway(self, write: Write) -> bool:
        """Whether the statement fails in the release's own schema, too, without an upgrade."""
        title, key, row = self._table.shape(write.release).title, self._case.key, None
        if write.verb == "insert":
            return self._bench.control.fails(write.release, ("insert", title, [{**write.values, **key}]), None)
        if self._worlds[0].values is not None:
            seen = self._table.view(self._worlds[0], write.release) or {}
            row = {name: value for name, value in seen.items() if value not in (ANY, NOW)}
        return self._bench.control.fails(write.release, (write.verb, title, [key], dict(write.values)), row)

    def _enter(self, verb: Verb) -> None:
        stage = {"expand": Stage.WINDOW, "verify": Stage.BOTH, "contract": Stage.NEW, "rollback": Stage.OLD}.get(verb)
        if stage is not None:
            self._worlds = self._table.moved(self._worlds, stage)
            self._stage = stage

    def _write(self, write: Write) -> None:
        shape = self._table.shape(write.release)
        table = self._bench.reflected(write.release, shape)
        where = sa.and_(*(table.c[name] == value for name, value in self._case.key.items()))
        with self._engine.begin() as connection:
            if write.verb == "insert":
                values = {**write.values, **self._case.key}
                self._refer(connection, write.release, shape, values, depth=3)
                connection.execute(table.insert().values(values))
                self._worlds = self._table.insert(values, self._stage)
            elif write.verb == "update":
                connection.execute(table.update().where(where).values(dict(write.values)))
                self._worlds = [
                    after for world in self._worlds for after in self._table.update(world, write.values, self._stage)
                ]
            else:
                connection.execute(table.delete().where(where))
                self._worlds = [ABSENT]

    def _refer(
        self, connection: sa.Connection, release: Side, shape: TableShape, values: Mapping[str, Any], depth: int
    ) -> None:
        """Make the rows that a row refers to."""
        for link in shape.links:
            far = self._bench.parent(release, link.table)
            if far is None or depth == 0 or any(values.get(name) is None for name in link.columns):
                continue
            row = {there: values[here] for here, there in zip(link.columns, link.referred, strict=True)}
            table = self._bench.reflected(release, far)
            known = sa.select(sa.literal(1)).where(*(table.c[name] == value for name, value in row.items()))
            if connection.execute(known).first() is not None:
                continue
            for number, (name, column) in enumerate(far.columns.items()):
                if name not in row and not column.nullable and column.server_default is None and name not in far.made:
                    row[name] = value_for(column, random.Random(0), token=20_000 + number)  # noqa: S311 - a token needs no chance
            self._refer(connection, release, far, row, depth - 1)
            connection.execute(table.insert().values(row))

    def _read(self) -> str | None:
        """Hold the row, as each release that serves reads it, against its model."""
        for release in _RELEASES:
            serves = {Stage.BOTH: True, Stage.NEW: release == "new"}.get(self._stage, release == "old")
            if not serves or not self._table.knows(release):
                continue
            table = self._bench.reflected(release, self._table.shape(release))
            where = (table.c[name] == value for name, value in self._case.key.items())
            with self._engine.connect() as connection:
                row = connection.execute(sa.select(table).where(*where)).mappings().one_or_none()
            self._worlds, wrong = self._table.read(self._worlds, release, None if row is None else dict(row))
            if wrong:
                return f"the {release} release reads: {'; '.join(wrong)}"
        return None


def _title(name: TableName) -> str:
    return ".".join(part for part in name if part)


# -- from a finding to a case ------------------------------------------------------------------------------------------


def find(
    rehearsal: Rehearsal,
    record: Record,
    *,
    most: int = 60,
    progress: Callable[[str], None] = lambda _line: None,
) -> tuple[Finding, Case] | None:
    """The first finding of a record whose row's own history shows something wrong, and the least that shows it.

    :param most: how many replays may be run.
    :raises ProblemError: if the server or the project cannot be used.
    """
    if rehearsal.old_workload.own:
        return None  # the statements of a workload of one's own are not known
    with Bench(rehearsal) as bench:
        tries = _Tries(bench=bench, left=most)
        for finding in record.findings:
            table = bench.table(finding.table)
            case = None if table is None else case_of(rehearsal, record, finding, table)
            if case is None:
                continue
            progress(f"trying the history of {finding.table} {finding.key} alone")
            fails = partial(tries.fails, finding.kind == "failed")
            if fails(case):
                progress(f"leaving out what is not needed of {len(case.steps)} steps")
                return finding, shrink(case, fails)
    return None


@dataclass(kw_only=True)
class _Tries:
    """Replays, as long as there are some left."""

    bench: Bench
    left: int

    def fails(self, failed: bool, case: Case) -> bool:
        """Whether a replay shows a statement that failed, or else a value that is wrong."""
        if self.left <= 0:
            return False
        self.left -= 1
        try:
            wrong = self.bench.replay(case)
        except ProblemError:
            return False  # what is refused is not what was found
        return wrong is not None and wrong.failed == failed


def case_of(rehearsal: Rehearsal, record: Record, finding: Finding, table: TableOracle) -> Case | None:
    """The history of a finding as a case; None if too little of it is known."""
    key = {
        name: _value(table, "new" if table.knows("new") else "old", name, text) for name, text in finding.row.items()
    }
    if not key or any(value is _UNKNOWN for value in key.values()):
        return None
    verbs = [(phase.ended, _as_verb(phase.name)) for phase in record.phases if phase.name in _VERBS]
    moments: list[tuple[float, Step]] = [(at, verb) for at, verb in verbs if verb is not None]
    there = False
    for event in finding.history:
        write = _write(table, event, there=there)
        if write is not None:
            there = there or write.verb == "insert"
            moments.append((event.at, write))
    steps = [step for _, step in sorted(moments, key=lambda moment: moment[0])]
    return Case(rehearsal=rehearsal, table=finding.table, key=key, steps=steps) if there else None


def _as_verb(name: str) -> Verb | None:
    verbs: dict[str, Verb] = {verb: verb for verb in _VERBS}  # type: ignore[misc]  # they are verbs
    return verbs.get(name)


def _write(table: TableOracle, event: Event, *, there: bool) -> Write | None:
    """What an event has written; what was read first stands for writes that nobody remembers."""
    release = event.release or "old"
    if event.outcome not in ("ok", "unknown") or not table.knows(release):
        return None
    values = {name: _value(table, release, name, text) for name, text in event.values.items()}
    values = {name: value for name, value in values.items() if value is not _UNKNOWN}
    if event.action in ("insert", "found") or (event.action in ("read", "check") and not there and values):
        made = table.shape(release).made
        given = {name: value for name, value in values.items() if name not in made}
        return Write(release=release, verb="insert", values=given)
    if event.action in ("update", "upsert") and there:
        return Write(release=release, verb="update", values=values)
    return Write(release=release, verb="delete") if event.action == "delete" and there else None


_UNKNOWN = object()
"""A value that its text does not tell."""


def _value(table: TableOracle, release: Side, name: str, told: Plain) -> Any:
    """The value that a record's plain one was made of."""
    column = table.shape(release).columns.get(name)
    if column is None:
        return _UNKNOWN
    if not isinstance(told, str):
        return told
    try:
        wanted = column.type.python_type
    except NotImplementedError:
        return _UNKNOWN
    try:
        return _READ.get(wanted, str)(told)
    except (ValueError, SyntaxError, ArithmeticError):
        return _UNKNOWN


_READ: Mapping[type, Callable[[str], Any]] = {
    bytes: lambda text: bytes.fromhex(text.removeprefix("0x")),
    decimal.Decimal: decimal.Decimal,
    float: float,
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
    uuid.UUID: uuid.UUID,
    dict: ast.literal_eval,
    list: ast.literal_eval,
}


# -- the least that shows it -------------------------------------------------------------------------------------------


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The case without what it does not need: statements, phases at the end, columns. It still ``fails``."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(case):
            if fails(candidate):
                case, smaller = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """A little less than a case, in ever smaller parts."""
    steps = list(case.steps)
    for end in sorted({len(steps) // 2, len(steps) * 3 // 4, len(steps) - 1}):
        if 0 < end < len(steps):
            yield replace(case, steps=steps[:end])
    # The first statement makes the row.
    writes = [place for place, step in enumerate(steps) if isinstance(step, Write)][1:]
    size = len(writes)
    while size > 0:
        for start in range(0, len(writes), size):
            without = set(writes[start : start + size])
            yield replace(case, steps=[step for place, step in enumerate(steps) if place not in without])
        size //= 2
    for place, step in enumerate(steps):
        if not isinstance(step, Write) or len(step.values) < 2:
            continue
        for name in step.values:
            less = replace(step, values={other: value for other, value in step.values.items() if other != name})
            yield replace(case, steps=[*steps[:place], less, *steps[place + 1 :]])


# -- as a script -------------------------------------------------------------------------------------------------------


def script(case: Case, finding: Finding, record: Record) -> str:
    """A Python script that carries the case out, tells each step and what is wrong, and ends with 1 if something is.

    It needs Contraflow and nothing else. A server's URL, which may hold a password, is left out: it is taken from the
    environment (``CONTRAFLOW_URL``).
    """
    rehearsal = case.rehearsal
    where = [f"config={_path(rehearsal.config or 'alembic.ini')}"]
    for name in ("section", "arguments", "revisions", "on"):
        if getattr(rehearsal, name) != getattr(Rehearsal(), name):
            where.append(f"{name}={getattr(rehearsal, name)!r}")
    imports = ["import datetime", "import decimal", "import uuid", "from pathlib import Path"]
    if rehearsal.url is not None:
        imports.insert(2, "import os")
        where.append("url=os.environ['CONTRAFLOW_URL']")
    told = "\n".join(
        f"# {line}" for line in f"{finding.kind}: {finding.table} {finding.key}: {finding.what}".splitlines()
    )
    steps = "".join(f"        {_step(step)},\n" for step in case.steps)
    return f"""\
# {record.old}:{record.new} on {record.server} {record.server_version}: the history of one row that a
# rehearsal found wrong, without what it did not need. What was found:
{told}

{chr(10).join(imports)}

from contraflow.rehearsal.counterexample import Case, Write
from contraflow.rehearsal.rehearse import Rehearsal

Decimal, UUID = decimal.Decimal, uuid.UUID
case = Case(
    rehearsal=Rehearsal({", ".join(where)}),
    table={case.table!r},
    key={dict(case.key)!r},
    steps=[
{steps}    ],
)
raise SystemExit(case.show(print))
"""


def _step(step: Step) -> str:
    if not isinstance(step, Write):
        return repr(step)
    values = f", values={dict(step.values)!r}" if step.values else ""
    return f"Write(release={step.release!r}, verb={step.verb!r}{values})"


def _path(path: str | Path) -> str:
    return f"Path({str(Path(path).absolute())!r})"
