"""Verification: queries that count, and show, the rows which keep an upgrade from contracting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Constraint
from contraflow.dialects.base import Adapter, ProbeText, escape
from contraflow.engine.report import Difference
from contraflow.engine.schema import full_name
from contraflow.problems import Problem, ProblemError
from contraflow.steps import BuildIndex

__all__ = ["ProbeTarget", "find_alike", "find_differences", "find_nulls", "find_violations", "refuse"]


_UNSYNCED = "never synced"
_STALE = "to be computed"


@dataclass(frozen=True, kw_only=True)
class ProbeTarget:
    """One table to verify."""

    name: str
    title: str
    text: ProbeText
    opaque: bool = False
    """Rows that were never synced are to be computed in Python."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return {
            "name": self.name,
            "title": self.title,
            "opaque": self.opaque,
            "text": {
                "unsynced": self.text.unsynced,
                "differing": [list(pair) for pair in self.text.differing],
                "show": [list(pair) for pair in self.text.show],
                "nulls": dict(self.text.nulls),
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProbeTarget:
        """The value that :meth:`as_dict` was called on."""
        text = data["text"]
        return cls(
            name=data["name"],
            title=data["title"],
            opaque=bool(data.get("opaque", False)),
            text=ProbeText(
                unsynced=text["unsynced"],
                differing=tuple((title, query) for title, query in text["differing"]),
                show=tuple((title, query) for title, query in text["show"]),
                nulls=dict(text["nulls"]),
            ),
        )


def find_differences(
    connection: sa.Connection, target: ProbeTarget, *, show: int, pause_point: Callable[[], None]
) -> list[Difference]:
    """What differs in one table, each kind with its count and at most ``show`` rows."""

    def count(query: str) -> int:
        pause_point()
        return int(connection.execute(sa.text(query)).scalar() or 0)

    found: list[Difference] = []
    if unsynced := count(target.text.unsynced):
        title = _STALE if target.opaque else _UNSYNCED
        found.append(Difference(code="CF012", table=target.name, title=title, count=unsynced))
    queries = dict(target.text.show)
    for title, query in target.text.differing:
        if not (differing := count(query)):
            continue
        examples: tuple[Mapping[str, Any], ...] = ()
        if show:
            rows = connection.execute(sa.text(queries[title]), {"limit": show}).mappings()
            examples = tuple(dict(row) for row in rows)
        found.append(Difference(code="CF012", table=target.name, title=title, count=differing, examples=examples))
    for column, query in target.text.nulls.items():
        if nulls := count(query):
            found.append(Difference(code="CF013", table=target.name, title=column, count=nulls))
    return found


_COUNTED = 1000
"""Kinds of rows that are alike are counted up to here: each is a row of the answer."""


def find_alike(connection: sa.Connection, adapter: Adapter, step: BuildIndex, *, show: int) -> Difference | None:
    """The rows that a unique index would refuse, counted, with at most ``show`` of their values; None if there are
    none.
    """
    found = connection.execute(sa.text(adapter.alike(step)), {"limit": _COUNTED}).mappings().all()
    if not found:
        return None
    return Difference(
        code="CF014",
        table=full_name(step.schema, step.table),
        title=f"{step.index.name} on {', '.join(step.index.columns)}",
        count=sum(row["contraflow_rows"] for row in found),
        examples=tuple(_values(row) for row in found[:show]),
    )


def find_violations(
    connection: sa.Connection, adapter: Adapter, constraint: Constraint, *, table: str, schema: str | None, show: int
) -> Difference | None:
    """The rows that violate a foreign key or a check, counted, with at most ``show`` of them; None without one."""
    rows = escape(adapter.violating(table, schema, constraint))
    count = int(connection.execute(sa.text(f"SELECT count(*) FROM {rows}")).scalar_one())
    if not count:
        return None
    key = sa.inspect(connection).get_pk_constraint(table, schema=schema)["constrained_columns"]
    names = [escape(adapter.compiler.quote(name)) for name in dict.fromkeys((*key, *constraint.columns))]
    shown = f"SELECT {', '.join(f'contraflow_row.{name}' for name in names)} FROM {rows} LIMIT :limit"
    examples = connection.execute(sa.text(shown), {"limit": show}).mappings()
    return Difference(
        code="CF016",
        table=full_name(schema, table),
        title=constraint.title.removeprefix("the "),
        count=count,
        examples=tuple(dict(row) for row in examples),
    )


def find_nulls(
    connection: sa.Connection, adapter: Adapter, column: str, *, table: str, schema: str | None
) -> Difference | None:
    """The NULLs of a column, counted; None if there are none."""
    name = escape(adapter.compiler.quote(column))
    rows = escape(adapter.compiler.table(table, schema))
    count = int(connection.execute(sa.text(f"SELECT count(*) FROM {rows} WHERE {name} IS NULL")).scalar_one())
    return Difference(code="CF013", table=full_name(schema, table), title=column, count=count) if count else None


def _values(row: sa.RowMapping) -> dict[str, Any]:
    return {("rows" if name == "contraflow_rows" else str(name)): value for name, value in row.items()}


def refuse(differences: Sequence[Difference], *, upgrade: str, verb: str) -> ProblemError:
    """The problems that ``verb`` is refused with."""
    return ProblemError(*(_problem(difference, upgrade, verb) for difference in differences))


def _problem(found: Difference, upgrade: str, verb: str) -> Problem:
    rows = "1 row" if found.count == 1 else f"{found.count} rows"
    if found.code == "CF013":
        return Problem(
            code="CF013",
            what=f"cannot {verb} {upgrade}: {found.table}.{found.title} is NULL in {rows}.",
            why="the new schema says NOT NULL there.",
            instead=f"give {found.table}.{found.title} a value in these rows, then {verb} again.",
        )
    if found.code == "CF014":
        shown = "".join(f"\n{_example(example)}" for example in found.examples)
        return Problem(
            code="CF014",
            what=f"cannot {verb} {upgrade}: {rows} of {found.table} are alike under {found.title}.{_indent(shown)}",
            why="the new release takes them to be unique; the index cannot be built, and nothing of it is left.",
            instead=f"change or delete all but one of each, then {verb} again.",
        )
    if found.code == "CF016":
        shown = "".join(f"\n{_example(example)}" for example in found.examples)
        verb_of = "violates" if found.count == 1 else "violate"
        return Problem(
            code="CF016",
            what=f"cannot {verb} {upgrade}: {rows} of {found.table} {verb_of} the {found.title}.{_indent(shown)}",
            why="the new release takes such rows to be impossible; the constraint cannot be made, and does not stand.",
            instead=f"change or delete these rows, then {verb} again.",
        )
    if found.title == _STALE:
        return Problem(
            code="CF012",
            what=f"cannot {verb} {upgrade}: the new side of {rows} of {found.table} is still to be computed.",
            why="the old release wrote them, and only Python can compute what the new one is to read.",
            instead=f"contraflow migrate computes them, once the old release writes no more; then {verb} again.",
        )
    if found.title == _UNSYNCED:
        return Problem(
            code="CF012",
            what=f"cannot {verb} {upgrade}: {rows} of {found.table} were never synced.",
            why="they were written past the sync: with triggers off, or by INSERT OR IGNORE on SQLite.",
            instead=f"contraflow migrate fills them; then {verb} again.",
        )
    shown = "".join(f"\n{_example(example)}" for example in found.examples)
    return Problem(
        code="CF012",
        what=f"cannot {verb} {upgrade}: {rows} of {found.table} differ ({found.title}).{_indent(shown)}",
        why="something writes one side without the sync, or the sync was dropped for a while.",
        instead=(
            "contraflow verify --show 10 shows them; contraflow repair "
            f"{found.table} --from old (or new) mends them; then {verb} again."
        ),
    )


def _indent(text: str) -> str:
    return text.replace("\n", "\n         ")


def _example(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in row.items())
