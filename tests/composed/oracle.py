"""What both releases hold while a composition is carried through its life: the oracle, and its writers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa

from tests.composed.changes import Composition
from tests.composed.tables import Row, Side, Table, build, is_number, length_of

__all__ = ["Oracle"]

Release = Literal["old", "new"]
_SPELT = ("", "x", "Ada Lovelace", "it's 7 %", "12", "a b c", "Straße \\ ")


class Oracle:
    """The rows of each table in both releases' shapes, and writers of both that keep to their constraints."""

    def __init__(self, composition: Composition, rng: random.Random, rows: Mapping[int, Mapping[int, Row]]) -> None:
        self.composition, self._rng = composition, rng
        self.shapes: dict[Release, dict[int, Table]] = {"old": composition.old, "new": composition.new}
        self.tables: dict[Release, dict[int, sa.Table]] = {
            "old": build(composition.old),
            "new": build(composition.new),
        }
        lines = {**composition.old, **composition.new}
        self.rows: dict[Release, dict[int, dict[int, Row]]] = {
            "old": {line: {key: dict(row) for key, row in rows.get(line, {}).items()} for line in composition.old},
            "new": {line: {} for line in lines if line in composition.new},
        }
        self._count = 100 + max((key for found in rows.values() for key in found), default=0)
        self._synced: set[tuple[int, int]] = set()
        self.begin()

    # --- what must be there ---

    def begin(self) -> None:
        """The new shape of all rows is what follows from the old one, and will again when they are first synced."""
        self._synced.clear()
        for line, found in self.rows["new"].items():
            found.clear()
            for key, row in self.rows["old"].get(line, {}).items():
                found[key] = self._other(line, "old", row)
        for line in self.composition.moves:
            self._follow(line)

    def _follow(self, line: int) -> None:
        """Rows whose columns stand in another table, as the old release has them."""
        main, names = self.composition.moves[line]
        rows = self.rows["old"][main].items()
        self.rows["new"][line] = {key: {new: row[old] for old, new in names.items()} for key, row in rows}

    def migrate(self) -> None:
        """All rows are synced."""
        self._synced |= {(line, key) for line, rows in self.rows["old"].items() for key in rows}

    def expand_anew(self, lines: set[int]) -> None:
        """The rows of these tables count as never synced."""
        self._synced = {(line, key) for line, key in self._synced if line not in lines}
        for line in lines & set(self.rows["new"]):
            for key, row in self.rows["old"].get(line, {}).items():
                self.rows["new"][line][key] = self._other(line, "old", row)
        for line in self.composition.moves:
            self._follow(line)

    def roll_back(self) -> None:
        """What is written into columns that may be NULL no more, and the new shape is gone."""
        for line, values in self.composition.empties.items():
            _fill(self.rows["old"].get(line, {}), values)
        self.begin()

    def contract(self) -> None:
        """What is written into columns that may be NULL no more."""
        for line, values in self.composition.fills.items():
            _fill(self.rows["new"].get(line, {}), values)
        for line, targets in self.composition.repairs.items():
            for row in self.rows["new"].get(line, {}).values():
                row.update(
                    {name: None for name, target in targets.items() if row.get(name) not in self.rows["new"][target]}
                )

    def _sides(self, line: int, release: Release) -> Mapping[str, Side]:
        """How the columns of the release's row follow from the other one's."""
        return (self.composition.backward if release == "old" else self.composition.forward).get(line, {})

    def _other(self, line: int, release: Release, row: Row) -> Row:
        """The new row of the other release."""
        other: Release = "new" if release == "old" else "old"
        sides = self._sides(line, other)
        made: Row = {}
        for name in self.shapes[other][line].columns:
            made[name] = sides[name].value(row) if name in sides else row.get(name)
        return made

    # --- writers ---

    def write(self, engine: sa.Engine, release: Release) -> None:
        """An insert, some updates and a delete in each table of the release."""
        for line in self._parents_first(release):
            beside = "id" in {column for column, _, _ in self.shapes[release][line].keys.values()}
            for _ in range(0 if beside else 2):
                self._insert(engine, release, line)
            for key in sorted(self.rows[release][line])[:3]:
                self._update(engine, release, line, key)
            if not beside:
                self._delete(engine, release, line)

    def _parents_first(self, release: Release) -> list[int]:
        shapes, ordered = self.shapes[release], []
        left = dict(shapes)
        while left:
            ready = [
                line
                for line, table in left.items()
                if not {target for _, target, _ in table.keys.values()} & (set(left) - {line})
            ] or list(left)[:1]
            for line in ready:
                ordered.append(line)
                del left[line]
        return ordered

    def value(self, release: Release, line: int, name: str) -> Any:
        """One that every constraint of either release bears."""
        table = self.shapes[release][line]
        column = table.columns[name]
        other: Release = "new" if release == "old" else "old"
        seen = {name} | {one for one, side in self._sides(line, other).items() if name in side.reads}
        targets = {
            target
            for shape in self.shapes.values()
            if line in shape
            for held, target, _ in shape[line].keys.values()
            if held in seen
        }
        if targets:
            common = set.intersection(*(self._known(target) for target in targets))
            if common and (not column.nullable or self._rng.random() < 0.8):
                return self._rng.choice(sorted(common))
            return None
        self._count += 1
        if column.nullable and self._rng.random() < 0.2:
            return None
        if is_number(column):
            return self._count
        spelt = f"{self._rng.choice(_SPELT)}{self._count}" if self._rng.random() < 0.9 else f"{self._count}"
        return spelt[-length_of(column) :]

    def _known(self, line: int) -> set[int]:
        """Keys that both releases see, if both have the table."""
        return set.intersection(*(set(self.rows[release][line]) for release in self.rows if line in self.rows[release]))

    def _narrow(self, line: int, release: Release) -> list[str]:
        return list(self.shapes[release][line].columns)

    def _insert(self, engine: sa.Engine, release: Release, line: int) -> None:
        row = {name: self.value(release, line, name) for name in self._narrow(line, release)}
        if any(row[name] is None and not self.shapes[release][line].columns[name].nullable for name in row):
            return  # nothing to refer to
        self._count += 1
        self._put(engine, release, line, self._count, row)

    def _put(self, engine: sa.Engine, release: Release, line: int, key: int, row: Row) -> None:
        table = self.tables[release][line]
        with engine.begin() as connection:
            connection.execute(table.insert().values({"id": key, **row}))
        self.rows[release][line][key] = row
        self._synced.add((line, key))
        other: Release = "new" if release == "old" else "old"
        if line in self.composition.moves:
            self._moved(line, key)
        if line not in self.rows[other]:
            return
        self.rows[other][line][key] = there = self._other(line, release, row)
        for beside in self._beside(line):
            if release == "old":
                self._follow(beside)
            else:
                values = {name: self.value("new", beside, name) for name in self.shapes["new"][beside].columns}
                self._put(engine, "new", beside, key, values)
        given = {
            name: side for name, side in self._sides(line, release).items() if side.reads and side.reads <= set(row)
        }
        if all(row[name] is None for name in given):  # as if they were not given
            row.update({name: side.value(there) for name, side in given.items()})

    def _beside(self, line: int) -> list[int]:
        """The lines whose rows stand beside those of this one."""
        return [beside for beside, (main, _) in self.composition.moves.items() if main == line]

    def _moved(self, line: int, key: int) -> None:
        """The new release wrote what is the old one's in another table."""
        main, names = self.composition.moves[line]
        row = self.rows["new"][line][key]
        self.rows["old"][main][key].update({old: row[new] for old, new in names.items()})

    def _update(self, engine: sa.Engine, release: Release, line: int, key: int) -> None:
        names = self._narrow(line, release)
        chosen = self._rng.sample(names, self._rng.randint(1, len(names)))
        values = {name: self.value(release, line, name) for name in chosen}
        columns = self.shapes[release][line].columns
        values = {name: value for name, value in values.items() if value is not None or columns[name].nullable}
        if not values:
            return
        table = self.tables[release][line]
        with engine.begin() as connection:
            changed = connection.execute(table.update().where(table.c.id == key).values(values)).rowcount
        assert changed == 1
        row = self.rows[release][line][key]
        here = self._sides(line, release)
        changed_names = {name for name, value in values.items() if row[name] != value}
        row.update(values)
        if line in self.composition.moves:
            self._moved(line, key)
        for beside in self._beside(line) if release == "old" else []:
            self._follow(beside)
        other: Release = "new" if release == "old" else "old"
        if line not in self.rows[other]:
            return
        there = self.rows[other][line][key]
        before = dict(there)
        sides = self._sides(line, other)
        if (line, key) not in self._synced:
            self._synced.add((line, key))
            there.update(self._other(line, release, row))
            return
        for name in there:
            if name not in sides and name in values:
                there[name] = values[name]
            elif name in sides and sides[name].tracks and sides[name].reads & changed_names:
                there[name] = sides[name].value(row)
        # A column that both releases have, and from which some of this release's own are computed, if none was given.
        shared = {name for name in changed_names if name in there and there[name] != before[name]}
        follow = {name: side for name, side in here.items() if side.reads & shared}
        if changed_names.isdisjoint(follow):
            row.update({name: side.value(there) for name, side in follow.items() if side.tracks})

    def _delete(self, engine: sa.Engine, release: Release, line: int) -> None:
        other: Release = "new" if release == "old" else "old"
        referred = {
            key if column == "id" else self.rows[side][own][key].get(column)
            for side in self.rows
            for own, table in self.shapes[side].items()
            for column, target, _ in table.keys.values()
            if target == line and own not in self.composition.moves  # where it goes with this one
            for key in self.rows[side][own]
        }
        free = [key for key in self.rows[release][line] if key not in referred]
        if not free:
            return
        key = self._rng.choice(free)
        table = self.tables[release][line]
        with engine.begin() as connection:
            assert connection.execute(table.delete().where(table.c.id == key)).rowcount == 1
        del self.rows[release][line][key]
        if line in self.rows[other]:
            del self.rows[other][line][key]
        for beside in self._beside(line):
            del self.rows["new"][beside][key]

    # --- what is there ---

    def check(self, engine: sa.Engine, release: Release) -> None:
        """The release reads what the oracle says."""
        for line, table in self.tables[release].items():
            with engine.connect() as connection:
                found = {row["id"]: dict(row) for row in connection.execute(sa.select(table)).mappings()}
            expected = {key: {"id": key, **row} for key, row in self.rows[release][line].items()}
            differing = {
                key: (found.get(key), expected.get(key))
                for key in {*found, *expected}
                if found.get(key) != expected.get(key)
            }
            assert differing == {}, f"{release} release, table {table.name}, found and expected: {differing}"


def _fill(rows: Mapping[int, Row], values: Mapping[str, Any]) -> None:
    for row in rows.values():
        for name, value in values.items():
            if row.get(name, "") is None:
                row[name] = value
