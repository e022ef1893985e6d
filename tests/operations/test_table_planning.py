"""What the planner makes of tables that come, go and are renamed, and what it refuses. No server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddPrimaryKey,
    AddSurrogateKey,
    AddUnique,
    CopyTable,
    CreateIndex,
    CreateTable,
    DropColumn,
    DropForeignKey,
    DropPrimaryKey,
    DropTable,
    DropUnique,
    ProblemError,
    RenameColumn,
    RenameTable,
)
from contraflow.dialects import Profile, for_profile
from contraflow.installed import Installed
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan, plan_end, tables_of
from contraflow.steps import AddAlias, Hold, MakeTable, Phases
from tests.upgrades import upgrade_of


def existing() -> dict[tuple[None, str], sa.Table]:
    metadata = sa.MetaData()
    users = sa.Table(
        "users",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("mail", sa.String(60), nullable=False),
        sa.Column("town", sa.String(60)),
    )
    notes = sa.Table(
        "notes",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", name="fk_notes")),
    )
    return {(None, "users"): users, (None, "notes"): notes}


def new_table(name: str, *items: Any) -> CreateTable:
    return CreateTable(definition=sa.Table(name, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *items))


def planned(*operations: Operation) -> Phases:
    upgrade = upgrade_of(*operations, new="r")
    wanted = tables_of(upgrade)
    return plan(upgrade, {name: table for name, table in existing().items() if name in wanted})


def refused(*operations: Operation) -> set[str]:
    with pytest.raises(ProblemError) as caught:
        planned(*operations)
    return {problem.code for problem in caught.value.problems}


def made(phases: Phases) -> list[sa.Table]:
    steps = [step for block in phases.expand if isinstance(block, Hold) for step in block.steps]
    return [step.definition for step in steps if isinstance(step, MakeTable)]


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(20))


def reference(target: str, **options: Any) -> sa.Column[int]:
    return sa.Column("other_id", sa.Integer, sa.ForeignKey(target, **options))


def test_operations_on_a_new_table_change_its_declaration() -> None:
    (table,) = made(
        planned(
            new_table("orders", text("code"), text("spare"), sa.UniqueConstraint("code", name="uq_code")),
            AddColumn(table="orders", column=text("note")),
            RenameColumn(table="orders", old="note", new="remark"),
            DropColumn(table="orders", column="spare"),
            DropUnique(table="orders", columns=["code"]),
            AddUnique(table="orders", name="uq_remark", columns=["remark"]),
            CreateIndex(table="orders", name="ix_code", columns=["code"]),
            RenameTable(table="orders", new="purchases"),
        )
    )
    assert table.name == "purchases"
    assert list(table.columns.keys()) == ["id", "code", "remark"]
    unique = [constraint.name for constraint in table.constraints if isinstance(constraint, sa.UniqueConstraint)]
    assert unique == ["uq_remark"]
    assert {index.name for index in table.indexes} == {"ix_code"}


def test_what_comes_and_goes_in_one_upgrade_leaves_nothing() -> None:
    phases = planned(new_table("orders"), DropTable(table="orders"))
    assert (phases.expand, phases.contract, phases.installed) == ((), (), ())


def test_new_tables_come_after_those_they_refer_to_and_go_before() -> None:
    phases = planned(new_table("a", reference("b.id")), new_table("b"))
    assert [table.name for table in made(phases)] == ["b", "a"]
    assert [block.table for block in phases.rollback] == ["a", "b"]


def test_a_foreign_key_to_a_renamed_table_is_made_to_where_it_stands() -> None:
    (table,) = made(
        planned(RenameTable(table="users", new="people"), new_table("x", reference("people.id", ondelete="CASCADE")))
    )
    (key,) = table.foreign_key_constraints
    assert key.referred_table.name == "users"


def test_the_second_name_has_the_new_release_s_columns() -> None:
    phases = planned(
        RenameTable(table="users", new="people"),
        RenameColumn(table="people", old="mail", new="email"),
        DropColumn(table="people", column="town"),
    )
    (alias,) = [
        step for block in phases.expand if isinstance(block, Hold) for step in block.steps if type(step) is AddAlias
    ]
    assert alias.columns == ("id", "email")
    (installed,) = phases.installed
    assert (installed.table, installed.renamed) == ("users", "people")
    assert Installed.from_dict(installed.as_dict()) == installed
    earlier = {"table": "users", "added": ["email"]}
    assert Installed.from_dict(earlier).renamed is None
    # After the rename, contract finds the table under its new name; rollback never does.
    contract, rollback = plan_end(phases.installed)
    assert [block.table for block in contract] == ["users"] * 3 + ["people"] * 2
    assert {block.table for block in rollback} == {"users"}


def test_renaming_twice_or_back() -> None:
    there = RenameTable(table="users", new="people")
    (twice,) = planned(there, RenameTable(table="people", new="humans")).installed
    assert twice.renamed == "humans"
    phases = planned(there, RenameTable(table="people", new="users"))
    assert phases.expand == ()


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([new_table("users")], "CF120"),
        ([RenameTable(table="users", new="notes"), DropColumn(table="notes", column="user_id")], "CF120"),
        ([DropTable(table="notes"), new_table("notes")], "CF120"),
        ([RenameTable(table="users", new="people"), new_table("users")], "CF120"),
        ([new_table("a"), new_table("a")], "CF120"),
        ([new_table("a", reference("users.id"))], "CF121"),
        ([new_table("a", reference("users.id", ondelete="RESTRICT"))], "CF121"),
        ([DropTable(table="notes")], "CF121"),
        ([DropTable(table="users"), new_table("a", reference("users.id", ondelete="CASCADE"))], "CF111"),
        ([new_table("a", reference("b.id")), new_table("b", reference("a.id"))], "CF116"),
        ([new_table("a", text("c"), sa.UniqueConstraint("c")), DropColumn(table="a", column="c")], "CF111"),
        ([DropTable(table="notes", restricts=True), DropColumn(table="notes", column="user_id")], "CF101"),
        ([RenameTable(table="users", new="p"), DropColumn(table="users", column="town")], "CF101"),
    ],
)
def test_refusals(operations: Sequence[Operation], code: str) -> None:
    assert refused(*operations) == {code}


def test_restricts_says_that_it_is_meant() -> None:
    assert planned(DropTable(table="notes", restricts=True)).contract
    definition = sa.Table("a", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), reference("users.id"))
    assert planned(CreateTable(definition=definition, restricts=True)).expand


@pytest.mark.parametrize(
    "column",
    [sa.Column("c"), sa.Column("c", sa.Integer, sa.Sequence("s"))],
    ids=["no type", "a sequence"],
)
def test_what_cannot_be_declared(column: sa.Column[Any]) -> None:
    with pytest.raises(ProblemError, match="CF116"):
        new_table("a", column)


def test_a_declaration_is_told_by_its_meaning() -> None:
    def described(*items: Any) -> dict[str, Any]:
        return new_table("a", *items).describe()

    assert described(text("b")) == described(text("b"))
    others = [described(), described(text("c")), described(text("b"), sa.Index("i", "b")), described(text("b"))]
    assert len({str(other) for other in others}) == len(others)


def test_comments_and_defaults_are_written_for_each_server() -> None:
    table = sa.Table(
        "a",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, comment="it's the key: 100%"),
        sa.Column("at", sa.DateTime, server_default=sa.func.now()),
        comment="a table",
    )
    profiles = [("postgresql", (18, 0)), ("mysql", (9, 7, 0)), ("mariadb", (10, 11, 0)), ("sqlite", (3, 40, 0))]
    for product, version in profiles:
        adapter = for_profile(Profile(product=product, version=version))
        (block,) = planned(CreateTable(definition=table)).expand
        assert isinstance(block, Hold)
        sent = "\n".join(statement.sql for statement in adapter.hold(block, None))
        assert "%%" not in sent
        assert ("it''s the key: 100%" in sent) is (product != "sqlite")


def test_the_primary_key_of_a_new_table_is_declared_with_it() -> None:
    create = new_table("a", sa.Column("n", sa.Integer), text("c"))
    drop, add = DropPrimaryKey(table="a"), AddPrimaryKey(table="a", columns=["c", "n"], name="pk_a")
    (table,) = made(planned(create, drop, add))
    assert (table.primary_key.columns.keys(), table.primary_key.name) == (["c", "n"], "pk_a")
    assert not table.c.c.nullable
    (table,) = made(planned(create, drop))
    assert table.primary_key.columns.keys() == []
    (table,) = made(planned(create, drop, add, drop, AddPrimaryKey(table="a", columns=["n"])))
    assert table.primary_key.columns.keys() == ["n"]
    assert table.autoincrement_column is None
    (table,) = made(planned(create))
    assert table.autoincrement_column is table.c.id
    numbered = AddSurrogateKey(table="a", column=sa.Column("m", sa.Integer), unique="uq")
    copied = CopyTable(table="notes", to="a")
    gone = DropColumn(table="a", column="n")
    for operations, said in (
        ((create, add), "CF116: a has a primary key already, on id"),
        ((create, drop, drop), "CF101: table a has no primary key"),
        ((create, numbered), "declare the key with the table"),
        ((create, drop, add, gone), "CF111: a.n cannot be dropped: the primary key that this upgrade makes"),
        ((create, drop, add, copied), "CF116: the primary key of a changes in an upgrade in which the table has rows"),
    ):
        with pytest.raises(ProblemError, match=re.escape(said)):
            planned(*operations)


def test_constraints_of_a_new_table_are_declared_with_it() -> None:
    (table,) = made(
        planned(
            new_table("a", text("c"), sa.Column("user_id", sa.Integer), reference("notes.id", ondelete="CASCADE")),
            AddForeignKey(
                table="a", name="fk", columns=["user_id"], target="users", target_columns=["id"], ondelete="CASCADE"
            ),
            DropForeignKey(table="a", columns=["other_id"]),
            AddCheck(table="a", name="ck", columns=["c"], condition=lambda row: row.c != ":x"),
            RenameTable(table="users", new="people"),
        )
    )
    (key,) = table.foreign_key_constraints
    assert (key.name, key.referred_table.name) == ("fk", "users")
    (check,) = [constraint for constraint in table.constraints if isinstance(constraint, sa.CheckConstraint)]
    assert check.name == "ck"
