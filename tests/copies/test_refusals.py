"""What a column that follows other tables is refused for, and how it is shown."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddForeignKey,
    AddUnique,
    CopyColumn,
    DropColumn,
    DropTable,
    ProblemError,
    RenameColumn,
    RenameTable,
    Runner,
    Source,
    Through,
)
from contraflow.copies import BackfillCopy
from contraflow.dialects import Profile, for_profile
from contraflow.operations.base import Operation, TableName
from contraflow.operations.planning import plan
from contraflow.steps import Online, Phases
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

PLACE = sa.Column("place", sa.String(9))
BY_KEY = Source(table="makers", column="town", on={"maker": "id"})


def tables(*more: sa.schema.SchemaItem, **makers: Any) -> dict[TableName, sa.Table]:
    metadata = sa.MetaData()
    goods = sa.Table(
        "goods",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("maker", sa.Integer, index=True),
        sa.Column("origin", sa.Integer),
    )
    found = sa.Table(
        "makers",
        metadata,
        sa.Column("id", sa.Integer, primary_key=makers.get("key", True)),
        sa.Column("town", sa.String(makers.get("length", 9))),
        sa.Column("owner", sa.Integer, index=True),
        *more,
    )
    return {(None, "goods"): goods, (None, "makers"): found}


def planned(*operations: Operation, found: dict[TableName, sa.Table] | None = None) -> Phases:
    upgrade = upgrade_of(*operations, new="r")
    return plan(upgrade, found or tables())


def refusal(*operations: Operation, found: dict[TableName, sa.Table] | None = None) -> str:
    with pytest.raises(ProblemError) as caught:
        planned(*operations, found=found)
    return str(caught.value)


def copied(*sources: Source, column: sa.Column[Any] = PLACE, **more: Any) -> CopyColumn:
    return CopyColumn(table="goods", column=column, sources=sources or (BY_KEY,), **more)


@pytest.mark.parametrize(
    ("sources", "more", "said"),
    [
        ((), {}, "needs sources="),
        ((BY_KEY,), {"winner": "both"}, "winner= is 'old' or 'new'"),
        ((Source(table="makers", column="town", on={}),), {}, "needs on= for every table"),
        ((Source(table="goods", column="origin", on={"origin": "id"}),), {}, "comes by a table twice"),
        (
            (
                Source(
                    table="makers",
                    column="town",
                    on={"owner": "id"},
                    through=[Through(table="makers", on={"id": "owner"})],
                ),
            ),
            {},
            "comes by a table twice",
        ),
    ],
)
def test_a_contradiction(sources: tuple[Source, ...], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError, match="CF116") as caught:
        CopyColumn(table="goods", column=PLACE, sources=sources, **more)
    assert said in str(caught.value)


def test_an_unknown_table_or_column() -> None:
    for source in (
        Source(table="nobody", column="town", on={"maker": "id"}),
        Source(table="makers", column="nowhere", on={"maker": "id"}),
        Source(table="makers", column="town", on={"maker": "nothing"}),
        Source(table="makers", column="town", on={"nothing": "id"}),
    ):
        assert "CF101" in refusal(copied(source))


def test_a_column_that_is_there() -> None:
    assert "CF112" in refusal(copied(column=sa.Column("origin", sa.String(9))))


def test_a_path_without_an_index_must_be_accepted() -> None:
    by_origin = Source(table="makers", column="town", on={"origin": "id"})
    said = refusal(copied(by_origin))
    assert "no index begins with goods.origin" in said
    assert 'CreateIndex(table="goods"' in said
    assert planned(copied(by_origin, scans=True)).expand


def test_a_column_that_says_itself_what_it_holds() -> None:
    said = refusal(copied(column=sa.Column("place", sa.String(9), server_default="x")))
    assert "has a default" in said


def test_tables_and_columns_that_change_in_the_same_upgrade() -> None:
    renamed = RenameTable(table="makers", new="firms")
    town = Source(table="firms", column="town", on={"maker": "id"})
    assert "makers is renamed" in refusal(renamed, copied(town))
    said = refusal(
        RenameColumn(table="makers", old="town", new="city"),
        copied(Source(table="makers", column="city", on={"maker": "id"})),
    )
    assert "depends on makers.city" in said
    assert "depends on makers.town" in refusal(copied(), DropColumn(table="makers", column="town"))
    assert "makers is dropped or renamed" in refusal(copied(), DropTable(table="makers"))
    assert "goods is dropped" in refusal(copied(), DropTable(table="goods"))
    assert "is dropped again" in refusal(copied(), DropColumn(table="goods", column="place"))


def test_a_table_without_a_key() -> None:
    assert "makers has no primary key" in refusal(copied(scans=True), found=tables(key=False))


def test_constraints_on_the_column_wait_for_contract() -> None:
    """Before, they would refuse what the old release writes into the source."""
    phases = planned(
        copied(),
        AddUnique(table="goods", name="uq_place", columns=["place"]),
        AddForeignKey(table="goods", name="fk_place", columns=["place"], target="towns", target_columns=["name"]),
        AddCheck(table="goods", name="ck_place", columns=["place"], condition=lambda row: row.place != "x"),
    )
    (goods,) = [item for item in phases.installed if item.table == "goods"]
    assert [made.late for made in (*goods.built, *goods.constrained)] == [True, True, True]


def test_cockroachdb_is_refused_with_the_way_out() -> None:
    adapter = for_profile(Profile(product="cockroachdb", version=(25, 4, 0)))
    steps = [block.step for block in planned(copied()).migrate if isinstance(block, Online)]
    (copy,) = [step.copy for step in steps if isinstance(step, BackfillCopy)]
    with sa.create_engine("sqlite://", poolclass=sa.NullPool).connect() as unused:
        (problem,) = adapter.copy_problems(unused, copy)
    assert problem.code == "CF205"
    assert "AddColumn" in problem.instead


@pytest.mark.only_on("mariadb")
def test_a_cluster_is_refused(database: Database) -> None:
    adapter = for_profile(Profile(product="mariadb", version=(10, 11), settings={"wsrep_on": "ON"}))
    steps = [block.step for block in planned(copied()).migrate if isinstance(block, Online)]
    (copy,) = [step.copy for step in steps if isinstance(step, BackfillCopy)]
    with database.engine.connect() as connection:
        said = [problem.what for problem in adapter.copy_problems(connection, copy)]
    assert said == ["goods.place cannot follow other tables on this server."]


@pytest.mark.only_on("postgresql", "postgresql15", "mysql", "mariadb")
def test_texts_that_the_server_does_not_compare(database: Database) -> None:
    one, other = ("C", "POSIX") if "postgresql" in database.kind else ("utf8mb4_bin", "utf8mb4_general_ci")
    metadata = sa.MetaData()
    sa.Table(
        "makers",
        metadata,
        sa.Column("id", sa.String(9, collation=one), primary_key=True),
        sa.Column("town", sa.String(9)),
    )
    maker = sa.Column("maker", sa.String(9, collation=other), index=True)
    sa.Table("goods", metadata, sa.Column("id", sa.Integer, primary_key=True), maker)
    metadata.create_all(database.engine)
    with runner(database, copied()) as run:
        (problem,) = run.check()
    assert problem.code == "CF205"
    assert f"goods.maker has the collation {other}, and makers.id has {one}." in problem.what


def runner(database: Database, operation: CopyColumn) -> Runner:
    upgrade = upgrade_of(operation, new="r")
    return Runner(database.url, upgrade)


def test_a_column_too_narrow_for_its_source(database: Database) -> None:
    for table in tables(length=20).values():
        table.create(database.engine)
    with runner(database, copied()) as run:
        (problem,) = run.check()
        assert problem.code == "CF107"
        assert "goods.place" in problem.what


@pytest.mark.only_on("mysql", "mariadb")
def test_what_no_trigger_would_see_is_refused(database: Database) -> None:
    key = sa.ForeignKeyConstraint(["owner"], ["owners.id"], name="fk_owner", ondelete="CASCADE")
    found = tables(key)
    owners = sa.Table("owners", found[None, "makers"].metadata, sa.Column("id", sa.Integer, primary_key=True))
    for table in (owners, *found.values()):
        table.create(database.engine)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER mine AFTER INSERT ON goods FOR EACH ROW UPDATE makers SET owner = NULL WHERE id = NEW.maker"
        )
    with runner(database, copied()) as run:
        said = {problem.what for problem in run.check() if problem.code == "CF205"}
    assert said == {
        "the foreign key fk_owner of makers (ON DELETE CASCADE) changes by a cascade what goods.place is copied from.",
        "the trigger mine of goods uses makers.",
    }
    # The column keeps its last value, whatever becomes of the source.
    with runner(database, copied(column=sa.Column("place", sa.String(9), nullable=False))) as run:
        said = {problem.what for problem in run.check() if problem.code == "CF205"}
    assert said == {"the trigger mine of goods uses makers."}
