"""pgroll's example migrations: those that Contraflow expresses are carried through their whole life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow import AddColumn, Declared, Options, Runner, TightenNotNull, Upgrade, WidenColumn
from contraflow.expressions import concat
from contraflow.operations.base import Operation
from contraflow.problems import ProblemError
from tests.operations.lives import send
from tests.operations.pgroll.example import Example, Rows, made, serial
from tests.operations.pgroll.page import EXAMPLES, table
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

PAGE = Path(__file__).parents[2] / "docs" / "pgroll.md"
LIVE = [example for example in EXAMPLES if example.verdict.startswith("expressed")]


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("example", LIVE, ids=lambda example: example.name)
def test_an_expressed_example(database: Database, example: Example) -> None:
    engine = database.engine
    send(engine, example.setup)
    assert example.operations is not None
    declared = Declared(revision="r1", operations=tuple(example.operations()))
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    with Runner(database.url, upgrade, options=Options(lock_timeout=0.3)) as run:
        run.expand()
        send(engine, example.old)
        run.migrate()
        send(engine, example.meanwhile)
        reads(engine, example.seen)
        if example.obstacle:
            with pytest.raises(ProblemError, match=f"(?s){example.obstacle}"):
                run.verify()
            send(engine, example.mend)
        run.verify()
        run.contract()
    reads(engine, example.end)
    for statement in example.refused:
        with pytest.raises(sa.exc.DBAPIError):
            send(engine, [statement])


def reads(engine: sa.Engine, expected: Mapping[str, Rows]) -> None:
    with engine.connect() as connection:
        for query, rows in expected.items():
            assert [tuple(row) for row in connection.exec_driver_sql(query)] == list(rows), query


ASKED: Mapping[str, tuple[str, Sequence[Operation]]] = {
    "03_add_column": (
        "CF107",
        [
            AddColumn(
                table="products",
                column=sa.Column("category", sa.String(255), nullable=False),
                value=lambda row: concat(row["name"], "-category"),
                reads=["name"],
                keep="fill",
            )
        ],
    ),
    "19_create_orders_table": (
        "CF121",
        [made("orders", serial(), sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id")))],
    ),
    "35_alter_column_multiple": (
        "CF116",
        [
            WidenColumn(table="events", column="name", type=sa.Text(), replans=True),
            TightenNotNull(table="events", column="name", fill=lambda _row: "placeholder"),
        ],
    ),
}


@pytest.mark.only_on("postgresql")
@pytest.mark.parametrize("name", ASKED)
def test_what_an_example_leaves_open_is_asked_about(database: Database, name: str) -> None:
    example = next(one for one in EXAMPLES if one.name == name)
    code, operations = ASKED[name]
    send(database.engine, example.setup)
    upgrade = upgrade_of(*operations)
    with Runner(database.url, upgrade) as run, pytest.raises(ProblemError, match=code):
        run.expand()


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.problem], ids=lambda example: example.name)
def test_a_refused_example(example: Example) -> None:
    assert example.operations is not None
    with pytest.raises(ProblemError, match=example.problem):
        example.operations()


def test_every_expressed_example_is_seen_to_work() -> None:
    assert len({one.name for one in EXAMPLES}) == 57
    assert all(one.operations and one.meanwhile and (one.end or one.refused) for one in LIVE)
    assert {one.verdict for one in EXAMPLES if one.problem} == {"refused"}


def test_the_documentation_holds_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "python -m tests.operations.pgroll.page prints it"
