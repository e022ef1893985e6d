"""Changes of several operations, drawn at random, together with what they must come to."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddUnique,
    ChangeComment,
    ChangeDefault,
    ChangeType,
    CreateIndex,
    CreateTable,
    DropCheck,
    DropColumn,
    DropForeignKey,
    DropIndex,
    DropTable,
    DropUnique,
    Lens,
    LoosenNotNull,
    MoveColumns,
    RenameColumn,
    RenameTable,
    TightenNotNull,
    TransformColumns,
    WidenColumn,
)
from contraflow.expressions import after, before, concat, lower, to_integer, to_text, upper
from contraflow.operations.base import Operation
from tests.composed.tables import Row, Side, Table, build, is_long, is_number, length_of

__all__ = ["Composition", "start"]

_ODD = ("order", "Select", "two words", "per%cent", "it's", "name:x", "größe", "a.b", 'qu"ote')
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_COMMENT = "it's 100 %"


def _text(name: str, length: int = 40, *, nullable: bool = True, default: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), nullable=nullable, server_default=default)


def _long(name: str, *, nullable: bool | None) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _number(name: str, *, nullable: bool = True, default: int | None = None) -> sa.Column[Any]:
    text = None if default is None else sa.text(str(default))
    return sa.Column(name, sa.Integer, nullable=nullable, server_default=text)


def start(rng: random.Random) -> dict[int, Table]:
    """One to three tables of a first release."""
    tables: dict[int, Table] = {}
    for line in range(rng.choice((1, 2, 2, 3))):
        name = rng.choice((f"t{line}", f"t{line}", f"t{line}", f"{rng.choice(_ODD[:-1])} {line}"))
        table = Table(line=line, name=name, columns={}, comment=rng.choice((None, _COMMENT)))
        for place in range(rng.randint(2, 5)):
            own = f"{rng.choice(_ODD)}{line}{place}" if rng.random() < 0.12 else f"c{line}{place}"
            nullable, given = rng.random() < 0.5, rng.random() < 0.25
            if rng.random() < 0.5 or '"' in own:  # SQLAlchemy does not find such a foreign key's columns on SQLite
                column = _text(own, nullable=nullable, default="it's" if given and not nullable else None)
            else:
                column = _number(own, nullable=nullable, default=7 if given and not nullable else None)
            if not is_number(column) and column.server_default is None and rng.random() < 0.4:
                column.type = sa.Text()
            column.comment = rng.choice((None, None, _COMMENT))
            table.columns[own] = column
        tables[line] = table
    for table in tables.values():
        for place, (name, column) in enumerate(list(table.columns.items())):
            if is_long(column):
                continue
            stem = f"{table.line}_{place}"
            chance = rng.random()
            if chance < 0.15 and column.server_default is None:
                table.unique[f"uq{stem}"] = (name,)
            elif chance < 0.35:
                other = rng.choice([other for other in table.columns.values() if not is_long(other)]).name
                table.indexes[f"ix{stem}"] = (tuple(dict.fromkeys((name, other))), False)
            elif chance < 0.5:
                table.checks[f"ck{stem}"] = name
            elif chance < 0.65 and is_number(column) and column.server_default is None:
                target = rng.randrange(table.line + 1)
                table.keys[f"fk{stem}"] = (name, target, rng.choice((None, None, "CASCADE")))
    return tables


@dataclass(kw_only=True)
class Composition:
    """One upgrade: operations drawn one after the other, each over what those before it left."""

    rng: random.Random
    old: dict[int, Table]
    """By line."""
    number: int = 1
    """Of the upgrade, in the names of what it makes."""
    new: dict[int, Table] = field(init=False)
    operations: list[Operation] = field(default_factory=list)
    forward: dict[int, dict[str, Side]] = field(default_factory=dict)
    """Of each line the new columns that the old release's row determines, or once did."""
    backward: dict[int, dict[str, Side]] = field(default_factory=dict)
    fills: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What contract writes into NULLs of a column."""
    empties: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What rollback writes into NULLs of a column."""
    repairs: dict[int, dict[str, int]] = field(default_factory=dict)
    """Columns in which contract writes NULL, where they refer to no row of that line."""
    moves: dict[int, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Lines of which each row stands beside one of another line: that line, and its old columns' names there."""
    draws: list[tuple[int, int]] = field(default_factory=list)
    """How many operations there were after each draw, and the line it was about."""

    def __post_init__(self) -> None:
        self.new = {line: table.copy() for line, table in self.old.items()}
        for found in (self.forward, self.backward, self.fills, self.empties, self.repairs):
            found.update({line: {} for line in self.old})
        wanted = self.rng.randint(2, 5)
        for _ in range(100):
            if len(self.operations) >= wanted:
                break
            self._draw()

    # --- names and choices ---

    def _fresh(self, prefix: str) -> str:
        odd = f"{self.rng.choice(_ODD[:-1])} " if self.rng.random() < 0.08 else ""
        return f"{odd}{prefix}_{self.number}_{len(self.operations)}"

    def _draw(self) -> None:
        table = self.rng.choice([table for line, table in self.new.items() if line not in self.moves])
        draws: Sequence[tuple[int, Callable[[Table], None]]] = (
            (6, self._rename_column),
            (3, self._change_type),
            (3, self._split),
            (3, self._merge),
            (5, self._add_column),
            (4, self._drop_column),
            (2, self._change_default),
            (2, self._change_comment),
            (3, self._widen),
            (3, self._tighten),
            (3, self._loosen),
            (3, self._create_index),
            (3, self._drop_holder),
            (3, self._add_unique),
            (2, self._add_check),
            (3, self._add_key),
            (1, self._create_table),
            (1, self._drop_table),
            (2, self._rename_table),
            (2, self._move),
        )
        weights, calls = zip(*draws, strict=True)
        before = len(self.operations)
        self.rng.choices(calls, weights)[0](table)
        if len(self.operations) > before:
            self.draws.append((len(self.operations), table.line))

    def _free(self, table: Table) -> list[sa.Column[Any]]:
        """Columns on which nothing stands."""
        return [column for name, column in table.columns.items() if not table.holds(name)]

    # --- correspondence ---

    def _is_shared(self, table: Table, name: str) -> bool:
        return table.line in self.old and name in self.old[table.line].columns

    def _became(
        self, table: Table, old: str, images: dict[str, Callable[[Any], Any]], back: Callable[[Row], Any]
    ) -> None:
        """One column became others, each an image of its value; ``back`` computes it from their row."""
        line = table.line
        if line not in self.old:
            return
        forward, backward = self.forward[line], self.backward[line]
        news = frozenset(images)
        if old in forward:
            source = forward.pop(old)
            for name, image in images.items():
                forward[name] = Side(reads=source.reads, value=_after(image, source.value), tracks=source.tracks)
        elif self._is_shared(table, old):
            for name, image in images.items():
                forward[name] = Side(reads=frozenset([old]), value=_after(image, _get(old)))
            backward[old] = Side(reads=news, value=back)
        for name, side in list(backward.items()):
            if old in side.reads and name != old:
                reads = side.reads - {old} | news
                backward[name] = Side(reads=reads, value=_within(side.value, old, back), tracks=side.tracks)

    # --- columns ---

    def _rename_column(self, table: Table) -> None:
        old = self.rng.choice(list(table.columns))
        self._move_to(table, old, self._fresh("r"))

    def _move_to(self, table: Table, old: str, new: str) -> None:
        """Rename the column, and say what becomes of what stands on it, in some order."""
        column = table.columns.pop(old)
        renamed = column._copy()
        renamed.name = renamed.key = new
        table.columns[new] = renamed
        first: list[Operation] = []
        last: list[Operation] = []
        where = table.name
        moved = {
            "unique": [name for name, columns in table.unique.items() if old in columns],
            "index": [name for name, (columns, _) in table.indexes.items() if old in columns],
            "check": [name for name, held in table.checks.items() if held == old],
            "key": [name for name, (held, _, _) in table.keys.items() if held == old],
        }
        for name in moved["unique"]:
            columns = table.unique.pop(name)
            first.append(DropUnique(table=where, columns=columns))
            table.unique[f"{name}m"] = tuple(new if one == old else one for one in columns)
            last.append(AddUnique(table=where, name=f"{name}m", columns=table.unique[f"{name}m"]))
        for name in moved["index"]:
            columns, unique = table.indexes.pop(name)
            first.append(DropIndex(table=where, name=name))
            columns = tuple(new if one == old else one for one in columns)
            table.indexes[f"{name}m"] = (columns, unique)
            last.append(CreateIndex(table=where, name=f"{name}m", columns=columns, unique=unique))
        for name in moved["check"]:
            del table.checks[name]
            first.append(DropCheck(table=where, name=name))
            table.checks[f"{name}m"] = new
            last.append(self._check(table, f"{name}m", new))
        for name in moved["key"]:
            _, target, ondelete = table.keys.pop(name)
            first.append(DropForeignKey(table=where, columns=[old]))
            table.keys[f"{name}m"] = (new, target, ondelete)
            last.append(self._key(table, f"{name}m"))
        self.rng.shuffle(first)
        self.rng.shuffle(last)
        rename = RenameColumn(table=where, old=old, new=new)
        # What goes may be said before the rename, or after it.
        place = self.rng.randint(0, len(first))
        self.operations += [*first[:place], rename, *first[place:], *last]
        self._became(table, old, {new: _same}, _get(new))

    def _change_type(self, table: Table) -> None:
        if not (free := [column for column in self._free(table) if column.server_default is None]):
            return
        column, new, old = self.rng.choice(free), self._fresh("y"), ""
        old = column.name
        forward: Callable[[Any], Any]
        backward: Callable[[Any], Any]
        to: Callable[[Any], Any]
        back: Callable[[Any], Any]
        if is_number(column):
            if not column.nullable:
                return
            made = _text(new, 30)
            forward, backward = lambda row: to_text(row[old]), lambda row: to_integer(row[new])
            to, back = _to_text, _to_integer
            if not isinstance(column.type, sa.BigInteger):
                return
        elif self.rng.random() < 0.4 and column.nullable:
            made = sa.Column(new, sa.BigInteger)
            forward, backward = lambda row: to_integer(row[old]), lambda row: to_text(row[new])
            to, back = _to_integer, _to_text
        elif self.rng.random() < 0.5:
            made = column._copy()
            made.name = made.key = new
            forward, backward = lambda row: lower(row[old]), lambda row: upper(row[new])
            to, back = _lower, _upper
        else:
            made = column._copy()
            made.name = made.key = new
            made.nullable = not column.nullable
            if column.nullable:
                forward, backward = lambda row: sa.func.coalesce(row[old], ""), lambda row: row[new]
                to, back = _some, _same
            else:
                forward, backward = lambda row: row[old], lambda row: sa.func.coalesce(row[new], "")
                to, back = _same, _some
        operation = ChangeType(
            table=table.name, column=old, new=made._copy(), forward=forward, backward=backward, lossy=True
        )
        self.operations.append(operation)
        del table.columns[old]
        table.columns[new] = made
        self._became(table, old, {new: to}, _after(back, _get(new)))

    def _split(self, table: Table) -> None:
        free = [column for column in self._free(table) if is_long(column)]
        if not free:
            return
        column = self.rng.choice(free)
        old, one, two = column.name, self._fresh("s"), self._fresh("z")
        made = [_long(name, nullable=column.nullable) for name in (one, two)]
        lens = Lens(
            old=[old],
            new=[one, two],
            forward=lambda row: {one: before(row[old], " "), two: after(row[old], " ")},
            backward=lambda row: {old: concat(row[one], " ", row[two])},
            lossy=True,
        )
        self.operations.append(
            TransformColumns(table=table.name, columns=[column._copy() for column in made], lens=lens)
        )
        del table.columns[old]
        table.columns.update({column.name: column for column in made})
        self._became(table, old, {one: _before, two: _behind}, lambda row: _joined(row[one], row[two]))

    def _merge(self, table: Table) -> None:
        free = [column for column in self._free(table) if is_long(column)]
        shared = [column for column in free if self._is_shared(table, column.name)]
        if len(shared) < 2:
            return
        one, two = self.rng.sample(shared, 2)
        if one.nullable != two.nullable:
            return
        first, second, new = one.name, two.name, self._fresh("m")
        made = _long(new, nullable=one.nullable)
        lens = Lens(
            old=[first, second],
            new=[new],
            forward=lambda row: {new: concat(row[first], " ", row[second])},
            backward=lambda row: {first: before(row[new], " "), second: after(row[new], " ")},
            lossy=True,
        )
        reading = [side for side in self.forward[table.line].values() if {first, second} & side.reads]
        if reading or any({first, second} & side.reads for side in self.backward[table.line].values()):
            return
        self.operations.append(TransformColumns(table=table.name, columns=[made._copy()], lens=lens))
        del table.columns[first], table.columns[second]
        table.columns[new] = made
        line = table.line
        self.forward[line][new] = Side(
            reads=frozenset([first, second]), value=lambda row: _joined(row[first], row[second])
        )
        self.backward[line][first] = Side(reads=frozenset([new]), value=lambda row: _before(row[new]))
        self.backward[line][second] = Side(reads=frozenset([new]), value=lambda row: _behind(row[new]))

    def _add_column(self, table: Table) -> None:
        name = self._fresh("a")
        line = table.line
        kind = self.rng.choice(("plain", "default", "tracked", "filled"))
        if kind == "plain":
            column = self.rng.choice((_text, _number))(name)
        elif kind == "default":
            column = self.rng.choice(
                (_text(name, nullable=False, default="it's"), _number(name, nullable=False, default=5))
            )
            if line in self.forward:
                value = _default(column)
                self.forward[line][name] = Side(reads=frozenset(), value=lambda _row: value)
        else:
            sources = [
                one for one in table.columns.values() if not is_number(one) and self._is_readable(table, one.name)
            ]
            if not sources:
                return
            source = self.rng.choice(sources)
            column = source._copy()
            column.name = column.key = name
            column.server_default = None
            read = source.name
            side = self.forward[line].get(read) or Side(reads=frozenset([read]), value=_get(read))
            tracks = kind == "tracked"
            self.forward[line][name] = Side(reads=side.reads, value=_after(_lower, side.value), tracks=tracks)
            self.operations.append(
                AddColumn(
                    table=table.name,
                    column=column._copy(),
                    reads=[read],
                    value=lambda row: lower(row[read]),
                    keep="track" if tracks else "fill",
                )
            )
            table.columns[name] = column
            return
        table.columns[name] = column
        self.operations.append(AddColumn(table=table.name, column=column._copy()))

    def _is_readable(self, table: Table, name: str) -> bool:
        """Whether a new column may be computed from this one: no other one is yet."""
        line = table.line
        if line not in self.forward:
            return False
        side = self.forward[line].get(name)
        reads = side.reads if side else frozenset([name] if self._is_shared(table, name) else [])
        readers = [one for one, other in self.forward[line].items() if other.reads & reads and one != name]
        dependents = [other for other in self.backward[line].values() if name in other.reads and not other.tracks]
        return len(reads) == 1 and not readers and not dependents and (side is None or side.tracks)

    def _drop_column(self, table: Table) -> None:
        if not (free := self._free(table)):
            return
        column = self.rng.choice(free)
        name, line = column.name, table.line
        if any(name in side.reads for side in self.backward.get(line, {}).values()) and self.rng.random() < 0.9:
            return  # refused: half of a pair goes
        value = None
        if not column.nullable and column.server_default is None:
            given = 3 if is_number(column) else "gone"
            value = lambda _row: sa.literal(given)  # noqa: E731
        self.operations.append(DropColumn(table=table.name, column=name, value=value))
        del table.columns[name]
        if line in self.old:
            self.forward[line].pop(name, None)
            if self._is_shared(table, name):
                constant = given if value is not None else _default(self.old[line].columns[name])
                self.backward[line][name] = Side(reads=frozenset(), value=lambda _row: constant)

    def _change_default(self, table: Table) -> None:
        column = self.rng.choice(list(table.columns.values()))
        if any(column.name in columns for columns in table.unique.values()) or column.nullable or is_long(column):
            return
        default: Any = None
        if self.rng.random() < 0.6:
            default = sa.text("9") if is_number(column) else "new's"
        had = column.server_default is not None
        if had and default is None and not self._is_shared(table, column.name):
            return
        omitted: Literal["old", "new"] | None = (
            None if had is not (default is not None) else self.rng.choice(("old", "new"))
        )
        if not had and default is None:
            return
        self.operations.append(ChangeDefault(table=table.name, column=column.name, default=default, omitted=omitted))
        changed = sa.Column(
            column.name, column.type, nullable=column.nullable, server_default=default, comment=column.comment
        )
        table.columns[column.name] = changed

    def _change_comment(self, table: Table) -> None:
        comment = self.rng.choice((None, "other's \\ 50 %"))
        name = self.rng.choice((None, *table.columns))
        self.operations.append(ChangeComment(table=table.name, column=name, comment=comment))
        if name is None:
            table.comment = comment
        else:
            column = table.columns[name]._copy()
            column.comment = comment
            table.columns[name] = column

    def _widen(self, table: Table) -> None:
        column = self.rng.choice(list(table.columns.values()))
        wide: Any
        if is_number(column):
            if isinstance(column.type, sa.BigInteger) or any(column.name == own for own, _, _ in table.keys.values()):
                return
            wide = sa.BigInteger()
        elif is_long(column):
            return
        else:
            wide = sa.String(length_of(column) + 60)
        self.operations.append(WidenColumn(table=table.name, column=column.name, type=wide, replans=True))
        changed = column._copy()
        changed.type = wide
        table.columns[column.name] = changed

    def _tighten(self, table: Table) -> None:
        if drawn := self._nullability(table, nullable=False):
            name, value, fill = drawn
            self.operations.append(TightenNotNull(table=table.name, column=name, fill=fill))
            if self.empties[table.line].pop(name, None) is None:  # else there and back again
                self.fills[table.line][name] = value

    def _loosen(self, table: Table) -> None:
        if drawn := self._nullability(table, nullable=True):
            name, value, fill = drawn
            self.operations.append(LoosenNotNull(table=table.name, column=name, value=fill))
            if self.fills[table.line].pop(name, None) is None:
                self.empties[table.line][name] = value

    def _nullability(self, table: Table, *, nullable: bool) -> tuple[str, Any, Callable[[Any], Any]] | None:
        """Change NOT NULL of a column that can get one value in all rows; that value, and how it is declared."""
        columns = [
            column
            for name, column in table.columns.items()
            if bool(column.nullable) is not nullable
            and self._is_shared(table, name)
            and not any(name in held for held in table.unique.values())
            and not any(name == held for held, _, _ in table.keys.values())
        ]
        if not columns:
            return None
        changed = self.rng.choice(columns)._copy()
        changed.nullable = nullable
        table.columns[changed.name] = changed
        value: Any = 0 if is_number(changed) else "none"
        return changed.name, value, lambda _row: sa.literal(value)

    # --- what stands on columns ---

    def _create_index(self, table: Table) -> None:
        short = [name for name, column in table.columns.items() if not is_long(column)]
        columns = tuple(self.rng.sample(short, min(self.rng.choice((1, 2)), len(short))))
        if not columns:
            return
        name = self._fresh("ix")
        table.indexes[name] = (columns, False)
        self.operations.append(CreateIndex(table=table.name, name=name, columns=columns))

    def _drop_holder(self, table: Table) -> None:
        if not (names := sorted(table.names())):
            return
        name = self.rng.choice(names)
        operation: Operation
        if name in table.unique:
            operation = DropUnique(table=table.name, columns=table.unique.pop(name))
        elif name in table.indexes:
            del table.indexes[name]
            operation = DropIndex(table=table.name, name=name)
        elif name in table.checks:
            del table.checks[name]
            operation = DropCheck(table=table.name, name=name)
        else:
            operation = DropForeignKey(table=table.name, columns=[table.keys.pop(name)[0]])
        self.operations.append(operation)

    def _add_unique(self, table: Table) -> None:
        line = table.line
        columns = [
            name
            for name, column in table.columns.items()
            if column.server_default is None
            and not is_long(column)
            and not any(name == own for own, _, _ in table.keys.values())
            and not (line in self.old and any(name == own for own, _, _ in self.old[line].keys.values()))
            and (self._is_shared(table, name) or name not in self.forward.get(table.line, {}))
            and name not in self.fills.get(table.line, {})
            and name not in self.empties.get(table.line, {})
        ]
        if not columns:
            return
        held = (self.rng.choice(columns),)
        if held in table.unique.values():
            return
        name = self._fresh("uq")
        table.unique[name] = held
        self.operations.append(AddUnique(table=table.name, name=name, columns=held))

    def _add_check(self, table: Table) -> None:
        columns = [one for one in table.columns if one not in self.forward.get(table.line, {})]
        if not columns:
            return
        name, column = self._fresh("ck"), self.rng.choice(columns)
        table.checks[name] = column
        self.operations.append(self._check(table, name, column))

    def _check(self, table: Table, name: str, column: str) -> AddCheck:
        number = is_number(table.columns[column])

        def condition(row: Any) -> Any:
            return row[column] >= 0 if number else row[column] != ""

        return AddCheck(table=table.name, name=name, columns=[column], condition=condition, copies=True)

    def _add_key(self, table: Table) -> None:
        columns = [
            column.name
            for column in self._free(table)
            if type(column.type) is sa.Integer
            and column.server_default is None
            and not (self._is_shared(table, column.name) and self.old[table.line].holds(column.name))
        ]
        if not columns:
            return
        column, name = self.rng.choice(columns), self._fresh("fk")
        held = self.number > 1 and self._is_shared(table, column)  # by rows that know nothing of the key
        target = self.rng.choice([line for line in self.new if line <= table.line])  # no circle
        nullable = table.columns[column].nullable
        if held and (not nullable or target == table.line):
            return
        table.keys[name] = (column, target, self.rng.choice((None, "CASCADE", "SET NULL" if nullable else None)))
        operation = self._key(table, name)
        if held:
            self.repairs[table.line][column] = target
            operation = replace(operation, repair={column: lambda _row: None})
        self.operations.append(operation)

    def _key(self, table: Table, name: str) -> AddForeignKey:
        column, target, ondelete = table.keys[name]
        return AddForeignKey(
            table=table.name,
            name=name,
            columns=[column],
            target=self.new[target].name,
            target_columns=["id"],
            ondelete=ondelete,  # type: ignore[arg-type]
        )

    # --- whole tables ---

    def _create_table(self, _table: Table) -> None:
        line = 10 * self.number + len(self.operations)
        made = Table(line=line, name=self._fresh("t"), columns={})
        for column in (_text(f"n{line}", nullable=self.rng.random() < 0.5), _number(f"k{line}"), _number(f"p{line}")):
            made.columns[column.name] = column
        made.indexes[f"ix{line}"] = ((f"k{line}",), False)
        target = self.rng.choice(list(self.new))
        made.keys[f"fk{line}"] = (f"p{line}", target, "CASCADE")
        definition = build({**self.new, line: made})[line]
        self.new[line] = made
        self.operations.append(CreateTable(definition=definition))

    def _move(self, table: Table) -> None:
        read = {name for side in self.forward.get(table.line, {}).values() for name in side.reads}
        read |= {name for side in self.backward.get(table.line, {}).values() for name in side.reads}
        changed = {*self.fills.get(table.line, {}), *self.empties.get(table.line, {})}
        columns = [
            column
            for column in self._free(table)
            if self._is_shared(table, column.name)
            and not self.old[table.line].holds(column.name)
            and column.server_default is None
            and not column.nullable
            and column.name not in read | changed
        ]
        if not columns:
            return
        column, line = self.rng.choice(columns), 10 * self.number + len(self.operations)
        moved = column._copy()
        moved.name = moved.key = self._fresh("v")
        made = Table(line=line, name=self._fresh("t"), columns={moved.name: moved})
        made.keys[f"fk{line}"] = ("id", table.line, "CASCADE")
        definition = build({**self.new, line: made})[line]
        del table.columns[column.name]
        self.new[line] = made
        self.moves[line] = table.line, {column.name: moved.name}
        missing = {column.name: -1 if is_number(column) else "-"}
        names = {column.name: moved.name}
        self.operations.append(CreateTable(definition=definition))
        self.operations.append(
            MoveColumns(table=table.name, to=made.name, on={"id": "id"}, columns=names, missing=missing)
        )

    def _drop_table(self, table: Table) -> None:
        if len(self.new) == 1:
            return
        referred = [
            (one.line, name)
            for one in self.new.values()
            for name, (_, target, _) in one.keys.items()
            if target == table.line and one is not table
        ]
        if referred and self.rng.random() < 0.9:
            return
        self.operations.append(DropTable(table=table.name, restricts=True))
        del self.new[table.line]

    def _rename_table(self, table: Table) -> None:
        new = self._fresh("n")
        self.operations.append(RenameTable(table=table.name, new=new))
        table.name = new


# --- values -----------------------------------------------------------------------------------------------------------


def _get(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


def _after(image: Callable[[Any], Any], value: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: image(value(row))


def _within(value: Callable[[Row], Any], name: str, back: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: value({**row, name: back(row)})


def _default(column: sa.Column[Any]) -> Any:
    default = getattr(column.server_default, "arg", None)
    if default is None:
        return None
    return int(str(default)) if is_number(column) else str(default)


def _same(value: Any) -> Any:
    return value


def _lower(value: str | None) -> str | None:
    return None if value is None else value.translate(_LOWER)


def _upper(value: str | None) -> str | None:
    return None if value is None else value.translate(_UPPER)


def _some(value: str | None) -> str:
    return "" if value is None else value


def _to_text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _to_integer(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


def _before(value: str | None) -> str | None:
    return None if value is None else value.partition(" ")[0]


def _behind(value: str | None) -> str | None:
    return None if value is None else value.partition(" ")[2]


def _joined(one: str | None, two: str | None) -> str | None:
    return None if one is None or two is None else f"{one} {two}"
