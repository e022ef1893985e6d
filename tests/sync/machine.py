"""Old release, new release, backfill and everybody else interleave on one table; the oracle says what must stand there."""

# ruff: noqa: E501, PT017
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.sync.bench import Bench, Refused
from tests.sync.oracle import NOW, Cell, Group, Oracle, Rejected, Row, Values, same
from tests.sync.scenarios import KEY, NOTE

__all__ = ["machine_for"]

Writer = Literal["old", "new", "dual"]
WRITERS: list[Writer] = ["old", "new", "dual"]
KEYS = st.integers(1, 4)


class SyncMachine(RuleBasedStateMachine):
    """The table of one scenario on one server, beside its oracle. Subclasses carry the ``bench``."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.model = self.bench.scenario.model(self.bench.product)
        # A BEFORE trigger has made its changes when EXCLUDED is formed; an AFTER trigger has not even run.
        self.oracle = Oracle(model=self.model, excluded_is_synced=self.bench.product != "sqlite")

    # -- what a release may write ---------------------------------------------------------------------------------

    def cells(self, writer: Writer) -> list[Cell]:
        """The columns that a release names in its statements."""
        if writer == "old":
            return list(self.model.present)
        if writer == "dual":
            return list(self.model.cells)
        old_only = {cell.name for cell in self.model.old} - self.model.shared
        return [cell for cell in self.model.cells if cell.name not in old_only]

    def is_new(self, cell: Cell) -> bool:
        """Whether only the new schema has the column."""
        return cell in self.model.added

    def value(self, data: st.DataObject, cell: Cell, *, may_fail: bool = False) -> Any:
        """A value for the column: legal in its release's schema, or NULL in an old NOT NULL column, which must fail."""
        pool = ["-", "note"] if cell.name == NOTE else self.bench.scenario.pools[cell.name]
        if cell.nullable or (may_fail and not self.is_new(cell)):
            pool = [*pool, None]
        return data.draw(st.sampled_from(list(pool)), label=cell.name)

    def names(self, data: st.DataObject, writer: Writer, *, inserting: bool) -> list[Cell]:
        """The columns that one statement gives: all that its release must give, and some of the others."""
        cells = self.cells(writer)
        given = data.draw(st.sets(st.sampled_from(cells), min_size=1), label="gives")
        return [cell for cell in cells if cell in given or (inserting and cell.required)]

    def row(self, data: st.DataObject, cells: Sequence[Cell], *, may_fail: bool = False) -> Values:
        """Values for one row."""
        return {cell.name: self.value(data, cell, may_fail=may_fail) for cell in cells}

    def rows(self, data: st.DataObject, cells: Sequence[Cell], *, may_fail: bool = False) -> list[tuple[int, Values]]:
        """Values for one to three rows of different keys."""
        keys = data.draw(st.lists(KEYS, min_size=1, max_size=3, unique=True), label="keys")
        return [(key, self.row(data, cells, may_fail=may_fail)) for key in keys]

    def chosen_keys(self, data: st.DataObject) -> list[int]:
        """Some rows that stand there, and perhaps one that does not."""
        return data.draw(st.lists(KEYS, min_size=1, max_size=3, unique=True), label="keys")

    def new_may_touch(self, keys: Sequence[int]) -> bool:
        """The new release writes from MIGRATED on only: never a row that was not synced."""
        return all(self.oracle.rows[key].synced for key in keys if key in self.oracle.rows)

    # -- both worlds ------------------------------------------------------------------------------------------------

    def both(self, expected: Callable[[], None], actual: Callable[[], None]) -> bool:
        """Tell the oracle and the server; both or neither must refuse, and hold the same then. True if it was done."""
        before = dict(self.oracle.rows)
        rejected: Rejected | None = None
        try:
            expected()
        except Rejected as error:
            rejected = error
            self.oracle.rows = before
        try:
            actual()
        except Refused as error:
            if rejected is None:
                raise AssertionError(f"the server refused what must succeed: {error}") from error
        else:
            if rejected is not None:
                raise AssertionError(f"the server accepted what must fail: {rejected}")
        self.compare()
        return rejected is None

    def compare(self) -> None:
        """The table holds exactly what the oracle says."""
        found = self.bench.read()
        self.oracle.settle({key: values for key, (values, _) in found.items()})
        assert set(found) == set(self.oracle.rows), "other rows than expected"
        for key, row in self.oracle.rows.items():
            values, synced = found[key]
            wrong = {
                name: (value, values[name])
                for name, value in row.values.items()
                if value is NOW or not same(value, values[name])
            }
            assert not wrong, f"row {key}: (expected, found) {wrong} in {values}"
            assert synced is row.synced, f"row {key}: synced is {synced}"

    # -- statements -----------------------------------------------------------------------------------------------

    @initialize(data=st.data(), recursive=st.booleans())
    def rows_from_before_expand(self, data: st.DataObject, recursive: bool) -> None:
        """A few rows that the old release left, never synced."""
        if self.bench.product == "sqlite":
            self.bench.connection.exec_driver_sql(f"PRAGMA recursive_triggers = {int(recursive)}")
        self.bench.clear()
        cells = self.cells("old")
        for key in data.draw(st.lists(KEYS, max_size=3, unique=True), label="rows from before"):
            values = self.row(data, cells)
            self.bench.insert([(key, values)])
            stored = {
                cell.name: cell.store(values[cell.name]) if values[cell.name] is not None else None for cell in cells
            }
            nulls = {cell.name: None for cell in self.model.cells if cell.name not in stored}
            self.bench.forget(key, {**values, **nulls})
            self.oracle.rows[key] = Row({**stored, **nulls}, synced=False)
        self.compare()

    # Statements are grouped into few rules, since each rule is drawn equally often: most steps are to be writes of a release.

    @rule(data=st.data(), writer=st.sampled_from(WRITERS))
    def insert(self, data: st.DataObject, writer: Writer) -> None:
        """INSERT of one or more rows."""
        rows = self.rows(data, self.names(data, writer, inserting=True), may_fail=writer == "old")
        if not self.bench.scenario.keyed:
            rows = [(key, values) for key, values in rows if key not in self.oracle.rows] or [(9, rows[0][1])]
            self.bench.delete([9])
            self.oracle.delete([9])
        self.both(lambda: self.oracle.insert(rows), lambda: self.bench.insert(rows))

    @rule(
        data=st.data(),
        writer=st.sampled_from(WRITERS),
        kind=st.sampled_from(["update", "update", "ignore", "nothing", "replace", "select"]),
    )
    def upsert(self, data: st.DataObject, writer: Writer, kind: str) -> None:
        """Every other kind of INSERT that the server has."""
        if kind == "select":
            self.insert_select(data, writer)
        elif self.bench.scenario.keyed and (kind, self.bench.product) != ("replace", "postgresql"):
            given = self.names(data, writer, inserting=True)
            self.insert_somehow(data, writer, kind, given, self.rows(data, given))

    def insert_somehow(
        self, data: st.DataObject, writer: Writer, kind: str, given: list[Cell], rows: list[tuple[int, Values]]
    ) -> None:
        """ON CONFLICT, ON DUPLICATE KEY, INSERT IGNORE, REPLACE and what they are called elsewhere."""
        if kind == "replace":
            self.both(lambda: self.oracle.replace(rows), lambda: self.bench.replace(rows))
            return
        if kind != "update":
            write = self.bench.insert_or_ignore if kind == "ignore" else self.bench.do_nothing
            self.both(lambda: self.oracle.insert_or_ignore(rows), lambda: write(rows))
            return
        if writer != "old" and not self.new_may_touch([key for key, _ in rows]):
            return
        assigned = [cell.name for cell in given if data.draw(st.booleans(), label=f"assigns {cell.name}?")]
        assigned = assigned or [given[-1].name]
        if self.bench.product in ("mysql", "mariadb") and any("%" in name for name in assigned):
            return  # SQLAlchemy doubles percent signs in the names of ON DUPLICATE KEY UPDATE
        self.both(lambda: self.oracle.upsert(rows, assigned), lambda: self.bench.upsert(rows, assigned))

    def insert_select(self, data: st.DataObject, writer: Writer) -> None:
        """INSERT ... SELECT: rows copied by a release that names its own columns."""
        keys = [key for key in self.chosen_keys(data) if key in self.oracle.rows]
        if not keys or (writer != "old" and not self.new_may_touch(keys)):
            return
        copies = [key + 10 for key in keys]
        self.bench.delete(copies)
        self.oracle.delete(copies)
        names = [cell.name for cell in self.names(data, writer, inserting=True)]
        rows = [(key + 10, {name: self.oracle.rows[key].values[name] for name in names}) for key in keys]
        if self.bench.product == "mariadb" and any(
            cell.required and cell.name not in names for cell in self.model.present
        ):
            self.refused_by_mariadb(names, keys)
            return
        self.both(lambda: self.oracle.insert(rows), lambda: self.bench.insert_select(names, 10, keys))

    def refused_by_mariadb(self, names: Sequence[str], keys: Sequence[int]) -> None:
        """MariaDB checks NOT NULL columns that INSERT ... SELECT leaves out before it fires the trigger (1364).

        A limit of that server, pinned here: the statement fails whole, and nothing is written.
        """
        try:
            self.bench.insert_select(names, 10, keys)
        except Refused as error:
            assert "1364" in str(error)
        else:
            raise AssertionError("INSERT ... SELECT passed: this limit of MariaDB is gone")
        self.compare()

    @rule(data=st.data())
    def update_by_old(self, data: st.DataObject) -> None:
        """UPDATE by the old release."""
        self.update(data, "old")

    @rule(data=st.data())
    def update_by_new(self, data: st.DataObject) -> None:
        """UPDATE by the new release."""
        self.update(data, "new")

    @rule(data=st.data())
    def update_by_both(self, data: st.DataObject) -> None:
        """UPDATE that writes both sides at once."""
        self.update(data, "dual")

    def update(self, data: st.DataObject, writer: Writer) -> None:
        """UPDATE of several rows to the same values."""
        keys = self.chosen_keys(data)
        if writer != "old" and not self.new_may_touch(keys):
            return
        cells = self.names(data, writer, inserting=False)
        values = self.row(data, cells, may_fail=writer == "old")
        before = dict(self.oracle.rows)
        done = self.both(lambda: self.oracle.update(keys, lambda _row: values), lambda: self.bench.update(keys, values))
        for key in keys:
            if done and key in before:
                self.kept_promises(before[key], self.oracle.rows[key], values)

    def kept_promises(self, before: Row, after: Row, written: Mapping[str, Any]) -> None:
        """Invariants 1 and 2, without the rule: own writes read back; the other side reads their image."""
        if before.values == after.values and before.synced:
            return
        for group in self.model.groups:
            old_written = [cell for cell in group.old if cell.name in written]
            new_written = [cell for cell in group.new if cell.name in written]
            if old_written and new_written:
                continue
            row = dict(after.values)
            for cell in (*old_written, *new_written):
                value = written[cell.name]
                assert same(row[cell.name], value if value is None else cell.store(value)), (cell.name, row)
            if any(not same(before.values[cell.name], row[cell.name]) for cell in old_written):
                assert self.image_stands(group, row, "new"), row
            if any(not same(before.values[cell.name], row[cell.name]) for cell in new_written):
                assert self.image_stands(group, row, "old"), row

    @staticmethod
    def image_stands(group: Group, row: Values, side: str) -> bool:
        """Whether one side is the image of the other, as far as that can be computed twice."""
        reads_itself = any(group.forward(row) != group.forward({**row, **group.forward(row)}) for _ in "x")
        if side == "new":
            return reads_itself or group.agrees_forward(row, first=False)
        return group.agrees_backward(row, first=False)

    @rule(
        data=st.data(),
        writer=st.sampled_from(WRITERS),
        kind=st.sampled_from(["unrelated", "unrelated", "repeat", "rekey", "delete"]),
    )
    def others(self, data: st.DataObject, writer: Writer, kind: str) -> None:
        """Statements that change nothing of the lens: another column, the same values, the key; and DELETE."""
        keys = self.chosen_keys(data)
        if kind == "unrelated":
            note = data.draw(st.sampled_from(["-", "x", None]), label="note")
            self.both(
                lambda: self.oracle.update(keys, lambda _row: {NOTE: note}),
                lambda: self.bench.update(keys, {NOTE: note}),
            )
        elif kind == "repeat":
            names = [cell.name for cell in self.names(data, writer, inserting=False)]
            self.both(
                lambda: self.oracle.update(keys, lambda row: {name: row[name] for name in names}),
                lambda: self.bench.repeat(keys, names),
            )
        elif kind == "delete":
            self.both(lambda: self.oracle.delete(keys), lambda: self.bench.delete(keys))
        elif keys[0] in self.oracle.rows:
            key = keys[0]
            self.bench.delete([key + 20])
            self.oracle.delete([key + 20])
            self.both(lambda: self.oracle.rekey(key, key + 20), lambda: self.bench.update([key], {KEY: key + 20}))

    @rule(limit=st.integers(1, 3), batches=st.sampled_from([1, 2, 100]))
    def backfill(self, limit: int, batches: int) -> None:
        """Some batches of the backfill, which is then killed; or all of it."""
        before = self.bench.read()
        written = self.bench.backfill(limit=limit, batches=batches)
        after = self.bench.read()
        reached = [key for key, (_, synced) in after.items() if synced and not before[key][1]]
        assert written == len(reached)
        self.both(lambda: self.oracle.backfill(reached), lambda: None)
        if batches == 100:
            self.migrated()

    def migrated(self) -> None:
        """No row is left unsynced, and the verification agrees with the oracle."""
        assert all(row.synced for row in self.oracle.rows.values())
        unsynced, counts, shown = self.bench.probe()
        assert unsynced == 0
        differing = self.oracle.differing()
        assert counts == [len(keys) for keys in differing]
        if self.bench.scenario.keyed:
            assert [set(keys) for keys in shown] == differing


def machine_for(bench: Bench) -> type[SyncMachine]:
    """The machine of one expanded table."""
    return type(f"SyncMachine_{bench.scenario.name}", (SyncMachine,), {"bench": bench})
