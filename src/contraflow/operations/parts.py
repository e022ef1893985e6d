"""Whole rows that live in another table for the new release: a copy of a table, its split by a condition, the merge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa

from contraflow import expressions
from contraflow.constraints import Check, ForeignKey
from contraflow.expressions import Ref
from contraflow.lens import Group, Row
from contraflow.operations.base import (
    LONGEST_NAME,
    Condition,
    Fragment,
    Part,
    Schema,
    TableName,
    default_text,
    find_column,
    find_table,
    incomplete,
)
from contraflow.operations.gathering import Plans, TablePlan
from contraflow.operations.moves import PAIR_MARKER, Moved
from contraflow.problems import Problem, ProblemError
from contraflow.steps import Block
from contraflow.syncs import Pair, PairTable, Sync, SyncColumn

__all__ = ["CopyTable", "MergeTables", "SplitTable", "expand_parts", "note_parts", "parts_of"]

Values = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class CopyTable:
    """Let the new release have its own copy of a table; what either writes, the other one reads, until contract.

    ``to`` is made by a ``CreateTable`` before it in the same upgrade, with the same primary key and columns of the same
    names. The old table goes with a ``DropTable`` after it, or stays, and is a table of its own from contract on. See
    :class:`SplitTable` for what both of them need.
    """

    table: str
    to: str
    schema: str | None = None

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The tables that rows are copied between."""
        return (self.schema, self.table), (self.schema, self.to)

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        whole, to = self.tables
        find_table(schema, whole)
        find_table(schema, to)
        part = Part(whole=whole, part=to, old="whole", where=None, reads=(), values={}, stays=True)
        return Fragment(table=whole, parts=(part,))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "CopyTable", "table": [self.schema, self.table], "to": self.to}


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """A condition, and the tables of the rows for which it is true, and of all others."""

    matching: str
    others: str
    reads: Sequence[str]
    where: Callable[[Row], Any]
    values: Values = field(default_factory=dict)
    schema: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))
        object.__setattr__(self, "values", {table: dict(given) for table, given in self.values.items()})
        if not self.reads or self.matching == self.others:
            raise incomplete(
                f"{self._title} needs two different tables and the columns of its condition.",
                "matching=, others= and reads= name them.",
            )
        if strangers := set(self.values) - {self.matching, self.others}:
            raise incomplete(f"values= of {self._title} names {min(strangers)}.", "name matching= and others= only.")

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} into {self.matching} and {self.others}"

    def _condition(self, whole: Mapping[str, sa.Column[Any]]) -> Any:
        row = Row({name: Ref(name, whole[name].type) for name in self.reads})
        try:
            found = expressions.validate(self.where(row))
        except (TypeError, ValueError) as error:
            raise incomplete(
                f"where= of {self._title} raises {type(error).__name__}: {error}.",
                "it is called once, with columns instead of values, and must return an expression over them.",
            ) from error
        if not expressions.is_deterministic(found):
            raise incomplete(
                f"where= of {self._title} does not always give the same for the same row.",
                "compare with a column or a literal, not with the present time.",
            )
        return found

    def _parts(self, schema: Schema, whole: TableName, old: Literal["whole", "part"]) -> tuple[Part, ...]:
        columns = {name: find_column(schema, whole, name) for name in self.reads}
        told = sa.case((self._condition(columns), 1), else_=0)  # NULL is on the side of the others
        return tuple(
            Part(
                whole=whole,
                part=(self.schema, name),
                old=old,
                where=expressions.validate(told == side),
                reads=tuple(self.reads),
                values=self.values.get(name, {}),
                stays=False,
            )
            for name, side in ((self.matching, 1), (self.others, 0))
        )

    def _described(self) -> dict[str, Any]:
        row = Row({name: Ref(name) for name in self.reads})
        return {
            "matching": self.matching,
            "others": self.others,
            "where": expressions.describe(expressions.validate(self.where(row))),
            "values": {
                table: {name: repr(value) for name, value in sorted(given.items())}
                for table, given in sorted(self.values.items())
            },
        }


@dataclass(frozen=True, kw_only=True)
class SplitTable(_Sides):
    """Split the rows of a table: those for which ``where`` is true live in ``matching``, all others in ``others``.

    The two tables are made by ``CreateTable`` before it in the same upgrade, and the old one goes with a ``DropTable``
    after it. They take new names both: under its own, the table cannot hold all rows for one release and some of them
    for the other. ``where`` gets a row with the columns that it ``reads``, and gives an expression in the language of
    lenses. A row changes sides when the old release changes it so; the new release deletes it here and inserts it
    there. Each new table keeps its side of the condition as a CHECK, so that every row is on one side; or it does not
    have these columns, and ``values`` says what they hold for its rows: ``{"orders_archive": {"archived": True}}``.

    All three have the same primary key, and columns of the same names; a column that only one side knows may be NULL,
    or has a default. Keys must come from one place, so the new tables do not number their rows themselves.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if the declaration contradicts itself.
    """

    table: str

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The tables that rows move between."""
        return tuple((self.schema, name) for name in (self.table, self.matching, self.others))

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        for name in self.tables:
            find_table(schema, name)
        return Fragment(table=self.tables[0], parts=self._parts(schema, self.tables[0], "whole"))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "SplitTable", "table": [self.schema, self.table], **self._described()}


@dataclass(frozen=True, kw_only=True)
class MergeTables(_Sides):
    """Make one table ``to`` of two: of its rows, those for which ``where`` is true come from ``matching``.

    The reverse of :class:`SplitTable`: ``CreateTable`` makes ``to`` before it, and a ``DropTable`` after it lets each
    of the old tables go. These do not have the columns that ``where`` reads: ``values`` says what they hold for the
    rows of each. No key may be in both tables: the application gives keys that are distinct.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` if the declaration contradicts itself.
    """

    to: str

    @property
    def table(self) -> str:
        """The table that the rows come to."""
        return self.to

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The tables that rows move between."""
        return tuple((self.schema, name) for name in (self.to, self.matching, self.others))

    def plan(self, schema: Schema) -> Fragment:
        """See :meth:`contraflow.operations.base.Operation.plan`."""
        for name in self.tables:
            find_table(schema, name)
        return Fragment(table=self.tables[0], parts=self._parts(schema, self.tables[0], "part"))

    def describe(self) -> dict[str, Any]:
        """See :meth:`contraflow.operations.base.Operation.describe`."""
        return {"operation": "MergeTables", "table": [self.schema, self.to], **self._described()}


# --- for planning -----------------------------------------------------------------------------------------------------


def note_parts(fragment: Fragment, plans: Plans) -> None:
    """Note a fragment's parts, and give a new table its side of the condition as a CHECK."""
    for part in fragment.parts:
        whole, found = plans.current[part.whole], plans.current[part.part]
        if part.where is not None and found.created and set(part.reads) <= set(found.columns):
            name = f"ck_{part.part[1].encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_side"
            found.constrain.append(Condition(name=name, columns=part.reads, expression=part.where))
        plans.parts.append((part, whole, found))


def parts_of(plans: Plans) -> list[list[Moved]]:
    """What the parts come to, by whole table.

    Raises :class:`~contraflow.problems.ProblemError` with all that stands in their way.
    """
    problems: list[Problem] = []
    found: dict[TableName, list[Moved]] = {}
    for part, whole, other in plans.parts:
        moved = found.setdefault(part.whole, [])
        planner = _Planner(part=part, whole=whole, other=other, plans=plans)
        problems += planner.problems()
        if not problems:
            moved.append(planner.moved())
    ProblemError.raise_any(problems)
    for moved in found.values():  # the last one's triggers on a table mark its rows
        old = [one.pair.old_table.table for one in moved]
        moved[:] = [
            one if old[place] not in old[place + 1 :] else replace(one, pair=replace(one.pair, marks=False))
            for place, one in enumerate(moved)
        ]
    return list(found.values())


def expand_parts(moved: Sequence[Moved]) -> Iterator[Block]:
    """Those of the new tables before those of the old ones: nobody writes the new tables before these stand."""
    blocks = [list(one.expand()) for one in moved]
    yield from (block for listed in blocks for block in listed[:-1])
    yield from (listed[-1] for listed in blocks)


@dataclass(frozen=True, kw_only=True)
class _Planner:
    """One part, the table that has all rows, and the one that has some of them."""

    part: Part
    whole: TablePlan
    other: TablePlan
    plans: Plans

    @property
    def new(self) -> TablePlan:
        """Of the two, the new release's table."""
        return self.other if self.part.old == "whole" else self.whole

    @property
    def old(self) -> TablePlan:
        """The old release's."""
        return self.whole if self.part.old == "whole" else self.other

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(self.whole.table.primary_key.columns.keys())

    @property
    def common(self) -> list[str]:
        """The columns that both tables have, but for the key."""
        return [name for name in self.other.original if name in self.whole.table.columns and name not in self.key]

    def problems(self) -> list[Problem]:
        """What stands in the way."""
        return [*self._table_problems(), *self._side_problems(), *self._column_problems(), *self._held_problems()]

    def _table_problems(self) -> Iterator[Problem]:
        old, new = self.old.name[1], self.new.name[1]
        if not self.new.created or self.old.created or self.old.renamed:
            yield _incomplete(
                f"rows of {old} come to {new}, which is not a new table beside an old one.",
                f"CreateTable for {new} before it, and {old} as it stands.",
            )
        gone = any(found is self.old for found in self.plans.removed)
        if not gone and not self.part.stays:
            yield _incomplete(f"{old} stays, and its rows move to other tables.", f'DropTable(table="{old}") after it.')
        keys = [set(found.table.primary_key.columns.keys()) for found in (self.whole, self.other)]
        if not keys[0] or keys[0] != keys[1]:
            yield _incomplete(
                f"{self.whole.name[1]} and {self.other.name[1]} do not have the same primary key.",
                "declare it with columns of the same names: they tell which rows are the same.",
            )
        generated = self.new.table.autoincrement_column
        if generated is not None and generated.server_default is None:
            yield Problem(
                code="CF116",
                what=f"{new}.{generated.name} is numbered by the server.",
                why="two tables that number their rows alike would give one key to two of them.",
                instead="declare it with autoincrement=False, and let the keys come from one place.",
            )
        for found in (self.old, self.new):
            if PAIR_MARKER in found.original:
                yield Problem(
                    code="CF112",
                    what=f"table {found.name[1]} has a column {PAIR_MARKER} already.",
                    why="Contraflow keeps there which rows were synced; it may be left from another upgrade.",
                    instead="contraflow status; drop the column if no upgrade is open.",
                )
        if self.old.added or self.old.dropped or self.old.lenses or self.old.widened:
            yield _incomplete(f"{old} changes otherwise in the same upgrade.", "change it in an upgrade of its own.")

    def _side_problems(self) -> Iterator[Problem]:
        part, name = self.part, self.other.name[1]
        given = set(part.values)
        if wrong := given & set(self.other.table.columns.keys()):
            yield _incomplete(f"{name} has a column {min(wrong)}, and values= fixes it.", "leave it out of values=.")
        if wrong := given - set(self.whole.table.columns.keys()):
            yield _incomplete(
                f"values= names {self.whole.name[1]}.{min(wrong)}, which does not exist.", "check the name."
            )
        if part.where is None:
            return
        fixed = given & set(part.reads)
        lacking = [one for one in part.reads if one not in fixed and one not in self.other.table.columns]
        if lacking or (fixed and fixed != set(part.reads)):
            yield _incomplete(
                f"{name} does not tell for all of its rows what {', '.join(part.reads)} hold.",
                f'say so: values={{"{name}": {{"{(lacking or part.reads)[0]}": ...}}}}, for all of them or none.',
            )
        elif fixed and not expressions.evaluate(part.where, {one: part.values[one] for one in part.reads}):
            yield _incomplete(
                f"the values of {', '.join(part.reads)} for {name} are those of the other table's rows.",
                "exchange matching= and others=, or their values=.",
            )
        elif not fixed and part.old == "part":
            yield Problem(
                code="CF116",
                what=f"{name} has the columns {', '.join(part.reads)}, by which the merged rows are told apart.",
                why="the old release could write a row there that is not one of them.",
                instead="merge by columns that only the new table has, and say in values= what they hold.",
            )

    def _column_problems(self) -> Iterator[Problem]:
        if not self.common:
            yield _incomplete(
                f"{self.whole.name[1]} and {self.other.name[1]} have nothing in common but their key.",
                "declare the columns in both.",
            )
        for found, other in ((self.whole, self.other), (self.other, self.whole)):
            for column in found.table.columns:
                known = column.name in other.table.columns or column.name in self.part.values
                given = default_text(column) is not None or column.identity is not None or column.computed is not None
                if not known and not column.nullable and not given:
                    yield Problem(
                        code="CF116",
                        what=f"{found.name[1]}.{column.name} is NOT NULL without a default, and {other.name[1]} does"
                        " not have it.",
                        why="the sync could not make a row of it.",
                        instead="give it a default, make it nullable, or say in values= what it holds."
                        if found is self.whole
                        else "give it a default, or make it nullable.",
                    )
                if known and (column.computed is not None or (column.identity is not None and found is self.new)):
                    yield Problem(
                        code="CF110",
                        what=f"{found.name[1]}.{column.name} is generated by the server.",
                        why="the sync could not write it.",
                        instead="declare a plain column; turn it into a generated one in a later revision.",
                    )

    def _held_problems(self) -> Iterator[Problem]:
        """What the new table demands of its rows, and the old one does not; and what happens to it alone."""
        old, new = self.old.name[1], self.new.name[1]
        unique = [set(holder.columns) for holder in self.old.holders if holder.unique]
        if self.part.old == "part":
            unique = [set(self.key)]  # no constraint of one table holds over both
        for holder in self.new.holders:
            if holder.unique and not any(columns <= set(holder.columns) for columns in unique):
                yield Problem(
                    code="CF109",
                    what=f"{new} has {holder.title}, and nothing keeps {old} from repeating itself there.",
                    why="a write of the old release would be refused.",
                    instead=f"leave it out, and let {new} have it (AddUnique) in an upgrade after this.",
                )
            if holder.kind == Check.kind:
                yield Problem(
                    code="CF116",
                    what=f"{new} has {holder.title}.",
                    why=f"what {old} holds might violate it: a write of the old release would be refused.",
                    instead="leave it out, and add it (AddCheck) in an upgrade after this.",
                )
        keys = {_meaning(key) for key in _foreign_keys(self.old)}
        for found, others, lacking in (
            (self.new, keys, old),
            (self.old, {_meaning(key) for key in _foreign_keys(self.new)}, new),
        ):
            for key in _foreign_keys(found):
                acts = key.ondelete not in (None, "NO ACTION", "RESTRICT") or key.onupdate not in (
                    None,
                    "NO ACTION",
                    "RESTRICT",
                )
                if _meaning(key) not in others and (found is self.new or acts):
                    yield Problem(
                        code="CF116",
                        what=f"{found.name[1]} has {key.title}, and {lacking} has none like it.",
                        why="its actions, or its refusals, would concern one of the two tables only.",
                        instead="let both have it, with the same actions, or neither.",
                    )

    # -- the pair --

    def moved(self) -> Moved:
        """The part as a pair of tables."""
        part, whole, other = self.part, self.whole.table.columns, self.other.table.columns
        read = [name for name in part.reads if name not in self.common and name not in self.key]
        fixed = [name for name in part.values if name not in read]
        pair = Pair(
            main=self._end(self.whole, [*self.common, *read, *fixed]),
            companion=self._end(self.other, self.common),
            old="main" if part.old == "whole" else "companion",
            to_companion={name: Ref(name, whole[name].type) for name in self.common},
            to_main={
                **{name: Ref(name, other[name].type) for name in self.common},
                **{name: expressions.validate(value) for name, value in part.values.items()},
            },
            follows=True,
            marker=PAIR_MARKER,
            cascades=tuple(self._cascades()),
            rows=True,
            where=part.where,
        )
        return Moved(pair=pair, lens=self._lens(pair))

    def _cascades(self) -> Iterator[str]:
        """Foreign keys that let a row change sides where no trigger sees it."""
        for key in _foreign_keys(self.whole):
            sets = [rule for rule in (key.ondelete, key.onupdate) if str(rule or "").startswith("SET")]
            follows = key.onupdate == "CASCADE"
            if (sets or follows) and set(key.columns) & {*self.part.reads, *self.key}:
                yield f"{key.title} of {self.whole.name[1]}"

    def _end(self, found: TablePlan, names: Sequence[str]) -> PairTable:
        schema, table = found.name
        meaning = [list(self.part.whole), list(self.part.part), list(found.name)]
        digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:8]
        columns = found.table.columns
        return PairTable(
            table=table,
            schema=schema,
            key=tuple(_sync_column(columns[name]) for name in self.key),
            columns={name: _sync_column(columns[name]) for name in names},
            name=f"zcf_{table.encode()[:36].decode(errors='ignore')}_{digest}",
        )

    def _lens(self, pair: Pair) -> Sync:
        """The pair as a lens of its old table: new columns carry their table's name."""
        old, new = pair.old_table, pair.new_table
        far = {name: f"{new.table}.{name}" for name in self.common}
        columns = {name: old.columns[name] for name in self.common}
        group = Group(
            old=tuple(self.common),
            new=tuple(far.values()),
            forward={far[name]: Ref(name, old.columns[name].type) for name in self.common},
            backward={name: Ref(far[name], new.columns[name].type) for name in self.common},
        )
        made = {far[name]: replace(new.columns[name], name=far[name], default=None) for name in self.common}
        return Sync(
            table=old.table,
            schema=old.schema,
            key=self.key,
            columns={**columns, **made},
            groups=(group,),
            marker=pair.marker,
            name=old.name,
        )


def _sync_column(column: sa.Column[Any]) -> SyncColumn:
    return SyncColumn(name=column.name, type=column.type, nullable=bool(column.nullable), default=default_text(column))


def _foreign_keys(found: TablePlan) -> list[ForeignKey]:
    return [holder.constraint for holder in found.holders if isinstance(holder.constraint, ForeignKey)]


def _meaning(key: ForeignKey) -> tuple[Any, ...]:
    """What a foreign key says, whatever its name."""
    return replace(key, name=None, late=False), key.columns


def _incomplete(what: str, instead: str) -> Problem:
    return Problem(code="CF116", what=what, instead=instead)
