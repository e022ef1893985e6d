"""The rehearsal's model of a row: what it may hold, by what was acknowledged and what was read."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from contraflow import AddColumn, Lens, RenameColumn, TransformColumns
from contraflow.expressions import lower, to_integer, to_text, utcnow
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from contraflow.rehearsal.hot import Draft, HotRow
from contraflow.rehearsal.oracle import ABSENT, Stage, TableOracle, World
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.shapes import Link, TableShape
from contraflow.rehearsal.transactions import Drawer, Item
from contraflow.steps import Backfill, Online
from tests.upgrades import upgrade_of


def shape(*columns: sa.Column[Any]) -> TableShape:
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer(), primary_key=True), *columns)
    return TableShape(name=(None, "t"), columns={column.name: column for column in table.columns}, key=("id",))


def oracle(old: TableShape, new: TableShape, *operations: Operation) -> TableOracle:
    table = next(iter(old.columns.values())).table
    assert isinstance(table, sa.Table)
    upgrade = upgrade_of(*operations, old="a", new="b")
    phases = plan(upgrade, {(None, "t"): table})
    steps = [block.step for block in phases.migrate if isinstance(block, Online)]
    (sync,) = [step.sync for step in steps if isinstance(step, Backfill)]
    return TableOracle(old=old, new=new, sync=sync)


def renamed() -> TableOracle:
    return oracle(
        shape(sa.Column("a", sa.String(20)), sa.Column("note", sa.String(20))),
        shape(sa.Column("b", sa.String(20)), sa.Column("note", sa.String(20))),
        RenameColumn(table="t", old="a", new="b"),
    )


def only(worlds: list[World]) -> dict[str, Any]:
    (world,) = worlds
    assert world.values is not None
    return world.values


def test_a_write_of_one_release_is_read_by_the_other_as_its_image() -> None:
    table = renamed()
    worlds = table.insert({"id": 1, "a": "x", "note": "n"}, Stage.BOTH)
    assert only(worlds) == {"id": 1, "a": "x", "note": "n", "b": "x"}
    worlds = table.update(worlds[0], {"b": "y"}, Stage.BOTH)
    assert table.read(worlds, "old", {"id": 1, "a": "y", "note": "n"})[1] == []
    left, wrong = table.read(worlds, "old", {"id": 1, "a": "x", "note": "n"})
    assert left == []
    assert wrong == ["a is 'x', and must be 'y'"]


def test_what_the_server_numbers_is_a_number_and_stays() -> None:
    old = shape(sa.Column("a", sa.String(20)))
    new = replace(shape(sa.Column("a", sa.String(20)), sa.Column("n", sa.Integer())), made=frozenset({"n"}))
    table = TableOracle(old=old, new=new, sync=None)
    worlds = table.moved(table.insert({"id": 1, "a": "x"}, Stage.OLD), Stage.BOTH)
    assert table.read(worlds, "new", {"id": 1, "a": "x", "n": None})[1] == ["n is NULL, and must be a number"]
    known, wrong = table.read(worlds, "new", {"id": 1, "a": "x", "n": 7})
    assert not wrong
    assert table.read(known, "new", {"id": 1, "a": "x", "n": 8})[1] == ["n is 8, and must be 7"]
    # Taken back, and numbered anew.
    again = table.moved(table.moved(known, Stage.OLD), Stage.BOTH)
    assert not table.read(again, "new", {"id": 1, "a": "x", "n": 8})[1]


def test_nobody_knows_when_the_sync_came_while_it_is_installed() -> None:
    old = shape(sa.Column("a", sa.String(20), nullable=False))
    table = oracle(
        old,
        shape(sa.Column("a", sa.String(20), nullable=False), sa.Column("low", sa.String(20))),
        AddColumn(
            table="t",
            column=sa.Column("low", sa.String(20)),
            reads=["a"],
            value=lambda row: lower(row.a),
            keep="fill",
        ),
    )
    worlds = table.insert({"id": 1, "a": "One"}, Stage.OLD)
    worlds = [after for world in worlds for after in table.update(world, {"a": "Two"}, Stage.WINDOW)]
    worlds = [after for world in worlds for after in table.update(world, {"a": "Three"}, Stage.WINDOW)]
    worlds = table.backfilled(worlds)
    # Filled once: from whichever value stood when the row was synced.
    for low, possible in (("one", True), ("two", True), ("three", True), ("four", False)):
        left, wrong = table.read(worlds, "new", {"id": 1, "a": "Three", "low": low})
        assert bool(left) is possible
        assert bool(wrong) is not possible
    assert only(table.read(worlds, "new", {"id": 1, "a": "Three", "low": "two"})[0])["low"] == "two"


def test_a_commit_of_unknown_outcome_is_settled_by_a_read() -> None:
    table = renamed()
    before = table.insert({"id": 1, "a": "x", "note": None}, Stage.BOTH)
    both = [*before, *table.update(before[0], {"a": "y"}, Stage.BOTH)]
    assert only(table.read(both, "new", {"id": 1, "b": "y", "note": None})[0])["a"] == "y"
    assert only(table.read(both, "new", {"id": 1, "b": "x", "note": None})[0])["a"] == "x"
    assert table.read(both, "new", {"id": 1, "b": "z", "note": None})[0] == []
    assert table.read([ABSENT, *before], "old", None) == ([ABSENT], [])


def test_a_time_that_the_sync_made_must_mean_what_the_other_side_says() -> None:
    table = oracle(
        shape(sa.Column("enabled", sa.Boolean(), nullable=False)),
        shape(sa.Column("disabled_at", sa.DateTime())),
        TransformColumns(
            table="t",
            columns=[sa.Column("disabled_at", sa.DateTime())],
            lens=Lens(
                old=["enabled"],
                new=["disabled_at"],
                forward=lambda row: {"disabled_at": sa.case((row.enabled, sa.null()), else_=utcnow())},
                backward=lambda row: {"enabled": row.disabled_at.is_(None)},
            ),
        ),
    )
    worlds = table.insert({"id": 1, "enabled": False}, Stage.BOTH)
    assert table.unsettled(worlds, "new")
    assert not table.unsettled(worlds, "old")
    assert table.read(worlds, "new", {"id": 1, "disabled_at": None})[0] == []
    assert table.read(worlds, "new", {"id": 1, "disabled_at": "any time"})[1] == []


def test_after_contract_the_old_columns_are_nobodys() -> None:
    table = renamed()
    worlds = table.contracted(table.insert({"id": 1, "a": "x", "note": None}, Stage.BOTH))
    worlds = [after for world in worlds for after in table.update(world, {"b": "y"}, Stage.NEW)]
    assert only(worlds)["b"] == "y"
    assert table.read(worlds, "new", {"id": 1, "b": "y", "note": None})[1] == []


def test_a_hot_row_holds_what_was_written_or_its_image() -> None:
    table = oracle(
        shape(sa.Column("a", sa.String(20))),
        shape(sa.Column("n", sa.Integer())),
        TransformColumns(
            table="t",
            columns=[sa.Column("n", sa.Integer())],
            lens=Lens(
                old=["a"],
                new=["n"],
                forward=lambda row: {"n": to_integer(row.a)},
                backward=lambda row: {"a": to_text(row.n)},
                lossy=True,
            ),
        ),
    )
    row = HotRow((None, "t"), {"id": 1}, table, {"id": 1, "a": "007"})
    assert read(row, "old", {"id": 1, "a": "007"}) == []
    assert read(row, "new", {"id": 1, "n": 7}) == []
    assert read(row, "new", {"id": 1, "n": 8}) == [
        ("alien read", "n = 8 was neither written nor is it the image of what was")
    ]
    assert read(row, "old", None) == [("lost", "the row is not there")]
    assert row.torn([{"id": 1, "a": "007"}, {"id": 1, "n": 7}]) == []
    assert row.torn([{"id": 1, "a": "8"}, {"id": 1, "n": 7}]) == ["a = '8', n = 7 do not agree"]


def test_a_hot_row_whose_foreign_key_gets_another_name() -> None:
    """Nobody writes it, so it is judged by its two sides alone; and not at all while one release is there."""
    up = {"old": "parent_id", "new": "up"}
    shapes = {
        side: replace(
            shape(sa.Column(name, sa.Integer()), sa.Column("note", sa.String(20))),
            links=(Link(columns=(name,), table=(None, "t"), referred=("id",)),),
        )
        for side, name in up.items()
    }
    table = oracle(shapes["old"], shapes["new"], RenameColumn(table="t", old="parent_id", new="up"))
    row = HotRow((None, "t"), {"id": 1}, table, {"id": 1, "parent_id": 2, "note": "n"})
    assert read(row, "old", {"id": 1, "parent_id": 2, "note": "n"}) == []
    assert row.torn([{"id": 1, "parent_id": 2, "note": "n"}]) == []
    assert row.torn([{"id": 1, "parent_id": 2}, {"id": 1, "up": 2}]) == []
    assert row.torn([{"id": 1, "parent_id": 2}, {"id": 1, "up": 3}]) == ["parent_id = 2, up = 3 do not agree"]


def read(row: HotRow, release: Side, found: dict[str, Any] | None, at: float = 1.0) -> list[tuple[str, str]]:
    row.reading(at)
    return [*row.judge(release, found, at)]


class Chosen(random.Random):
    """Lets a row be written in all its columns."""

    def sample(self, population: Any, *_: Any, **_named: Any) -> list[Any]:
        return list(population)


def write(row: HotRow, release: Side, at: float) -> tuple[Draft, dict[str, Any]]:
    draft = row.draw(release, Chosen(f"{release}/{at}"), itertools.count(int(at) * 10).__next__, at)
    assert draft is not None
    return draft, {"id": 1, **draft.values}


def hot() -> HotRow:
    return HotRow((None, "t"), {"id": 1}, renamed(), {"id": 1, "a": "first", "note": "first"})


def as_new(values: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "b": values["a"], "note": values["note"]}


def test_a_hot_row_does_not_go_back_to_what_was_replaced() -> None:
    row = hot()
    first, values = write(row, "old", 1.0)
    row.reading(1.5)
    row.done(first, 2.0)
    assert row.judge("new", {"id": 1, "b": "first", "note": "first"}, 1.5) == []  # it began before the answer came
    assert read(row, "new", as_new(values), 2.5) == []
    (kind, what), *more = read(row, "new", {"id": 1, "b": "first", "note": values["note"]}, 2.5)
    assert (kind, more) == ("stale", [])
    assert what == "b = 'first' had been replaced by a later write before this read began"


def test_of_two_writes_at_once_either_may_be_the_last() -> None:
    row = hot()
    (first, one), (second, other) = write(row, "old", 1.0), write(row, "old", 1.1)
    row.done(second, 2.0)
    row.done(first, 3.0)
    for values in (one, other):
        assert read(row, "old", values, 4.0) == []
    third, last = write(row, "old", 4.0)
    row.done(third, 5.0)
    assert read(row, "old", last, 6.0) == []
    assert {kind for values in (one, other) for kind, _ in read(row, "old", values, 6.0)} == {"stale"}


def test_a_write_that_nobody_knows_of_may_show_at_any_time_and_one_that_failed_never() -> None:
    row = hot()
    _, lost = write(row, "old", 1.0)
    second, known = write(row, "old", 2.0)
    row.done(second, 3.0)
    failed, gone = write(row, "old", 4.0)
    row.failed(failed)
    assert read(row, "old", lost, 5.0) == []
    assert read(row, "old", known, 5.0) == []
    assert {kind for kind, _ in read(row, "old", gone, 5.0)} == {"alien read"}


def test_what_can_be_read_no_more_is_forgotten() -> None:
    row = hot()
    for number in range(1, 1000):
        draft, _ = write(row, "new" if number % 2 else "old", float(number))
        row.done(draft, number + 0.5)
    kept = [len(unit.writes) for unit in row._units]
    assert max(kept) < 100


def test_rows_that_are_updated_together_keep_what_tells_them_apart() -> None:
    columns = [sa.Column(name, sa.String(20)) for name in ("service", "region", "note")]
    registered = replace(shape(*columns), unique=(("service", "region"),))
    name, table = (None, "t"), TableOracle(old=registered, new=registered, sync=None)
    items = [
        Item(table=name, key={"id": number}, worlds=table.insert(row, Stage.OLD))
        for number in (1, 2)
        for row in [{"id": number, "service": "one", "region": str(number), "note": "n"}]
    ]
    token, rng = itertools.count().__next__, random.Random(1)
    drawer = Drawer(tables={name: table}, items={name: items}, token=token, rng=rng, known=lambda _name: items)
    drawn = [step for _ in range(30) for step in drawer.update("old", items, Stage.OLD)]
    assert drawn
    assert all(values is not None and values.keys() <= {"note"} for step in drawn for values in step.values)
