"""What the copy, the split and the merge of tables are refused for."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    CopyTable,
    CreateTable,
    Declared,
    DropTable,
    MergeTables,
    ProblemError,
    RenameTable,
    Runner,
    SplitTable,
    Upgrade,
)
from contraflow.expressions import utcnow
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from tests.servers.shared import Database
from tests.upgrades import upgrade_of


def table(name: str, *items: sa.schema.SchemaItem, key: str = "id", generated: bool = False) -> sa.Table:
    number = sa.Column(key, sa.Integer, primary_key=True, autoincrement="auto" if generated else False)
    return sa.Table(name, sa.MetaData(), number, sa.Column("note", sa.String(20)), *items)


def flag() -> sa.Column[bool]:
    return sa.Column("archived", sa.Boolean)


ORDERS = table("orders", flag())
SPLIT: dict[str, Any] = {
    "table": "orders",
    "matching": "old",
    "others": "live",
    "reads": ["archived"],
    "where": lambda row: row.archived.is_(True),
}
DROP = DropTable(table="orders")


def created(*items: sa.schema.SchemaItem, **more: Any) -> tuple[Operation, ...]:
    """The two new tables, the first of which has more than the other one."""
    return CreateTable(definition=table("old", flag(), *items, **more)), CreateTable(definition=table("live", flag()))


def refusal(*operations: Operation, old: sa.Table = ORDERS) -> str:
    upgrade = upgrade_of(*operations, new="r")
    with pytest.raises(ProblemError) as caught:
        plan(upgrade, {(None, old.name): old})
    return str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"others": "old"}, "needs two different tables"),
        ({"reads": []}, "needs two different tables"),
        ({"values": {"orders": {}}}, "values= of SplitTable into old and live names orders"),
    ],
)
def test_a_contradiction(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError, match="CF116") as caught:
        SplitTable(**{**SPLIT, **more})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (lambda row: row.archived and 1, "where= of SplitTable into old and live raises TypeError"),
        (lambda _row: utcnow() > utcnow(), "does not always give the same"),
    ],
)
def test_a_condition_that_is_none(where: Any, said: str) -> None:
    assert said in refusal(*created(), SplitTable(**{**SPLIT, "where": where}), DROP)


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ((*created(), SplitTable(**SPLIT)), 'DropTable(table="orders") after it'),
        ((*created(generated=True), SplitTable(**SPLIT), DROP), "old.id is numbered by the server"),
        ((*created(key="number"), SplitTable(**SPLIT), DROP), "do not have the same primary key"),
        (
            (*created(sa.Column("more", sa.Integer, nullable=False)), SplitTable(**SPLIT), DROP),
            "orders does not have it",
        ),
        ((*created(sa.UniqueConstraint("note")), SplitTable(**SPLIT), DROP), "CF109"),
        (
            (*created(sa.CheckConstraint("note <> ''", name="ck_note")), SplitTable(**SPLIT), DROP),
            "the check constraint",
        ),
        (
            (*created(sa.ForeignKeyConstraint(["note"], ["notes.id"], ondelete="CASCADE")), SplitTable(**SPLIT), DROP),
            "orders has none like it",
        ),
        ((*created(), SplitTable(**SPLIT, values={"old": {"archived": True}}), DROP), "old has a column archived"),
        (
            (*created(), SplitTable(**SPLIT, values={"old": {"nothing": 1}}), DROP),
            "orders.nothing, which does not exist",
        ),
        (
            (AddColumn(table="orders", column=sa.Column("more", sa.Integer)), *created(), SplitTable(**SPLIT), DROP),
            "orders changes otherwise",
        ),
        (
            (*created(), RenameTable(table="orders", new="all"), SplitTable(**{**SPLIT, "table": "all"})),
            "not a new table",
        ),
        ((CopyTable(table="orders", to="orders"),), "not a new table beside an old one"),
    ],
)
def test_a_split_that_cannot_be(operations: tuple[Operation, ...], said: str) -> None:
    assert said in refusal(*operations)


def test_a_side_that_a_table_does_not_tell() -> None:
    bare = (CreateTable(definition=table("old")), CreateTable(definition=table("live", flag())))
    said = refusal(*bare, SplitTable(**SPLIT), DROP)
    assert "old does not tell for all of its rows what archived hold" in said
    assert 'values={"old": {"archived": ...}}' in said
    wrong = SplitTable(**SPLIT, values={"old": {"archived": False}})
    assert "exchange matching= and others=" in refusal(*bare, wrong, DROP)


def test_a_merge_of_tables_that_could_hold_rows_of_the_other_side() -> None:
    merge = MergeTables(**{name: value for name, value in SPLIT.items() if name != "table"}, to="orders")
    old, live = table("old", flag()), table("live", flag())
    upgrade = Upgrade(
        old=None,
        new="r",
        changes=(
            Declared(
                revision="r",
                operations=(CreateTable(definition=ORDERS), merge, DropTable(table="old"), DropTable(table="live")),
            ),
        ),
    )
    with pytest.raises(ProblemError) as caught:
        plan(upgrade, {(None, "old"): old, (None, "live"): live})
    assert "by which the merged rows are told apart" in str(caught.value)


def test_a_new_column_too_narrow(database: Database) -> None:
    table("orders").create(database.engine)
    narrow = sa.Table(
        "copied",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("note", sa.String(5)),
    )
    operations = (CreateTable(definition=narrow), CopyTable(table="orders", to="copied"))
    upgrade = upgrade_of(*operations, new="r")
    with Runner(database.url, upgrade) as run:
        assert {problem.code for problem in run.check()} == {"CF107"}
