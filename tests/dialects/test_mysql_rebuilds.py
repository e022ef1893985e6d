"""Tables that MySQL and MariaDB do not alter beside writers, or not instantly: known beforehand, and told."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import (
    AddPrimaryKey,
    AddUnique,
    DropColumn,
    DropPrimaryKey,
    DropUnique,
    LoosenNotNull,
    RenameColumn,
    TightenNotNull,
    WidenColumn,
)
from contraflow.engine import State
from contraflow.operations.base import Operation
from tests.servers.shared import Database
from tests.upgrades import runner_of

pytestmark = [
    pytest.mark.only_on("mysql", "mariadb"),
    pytest.mark.filterwarnings("ignore:Did not recognize type 'geometry'"),
]

FEATURES = {
    "fulltext": "more TEXT, FULLTEXT KEY k (more)",
    "spatial": "more GEOMETRY NOT NULL, SPATIAL INDEX k (more)",
    "stored": "more INT GENERATED ALWAYS AS (number + 1) STORED",
    "virtual": "more INT GENERATED ALWAYS AS (number + 1) VIRTUAL",
    "indexed": "more INT GENERATED ALWAYS AS (number + 1) VIRTUAL, KEY k (more)",
    "dated": "more DATE, CONSTRAINT ck_more CHECK (more > '1980-01-01')",
}
COPIED = {"mysql": {"fulltext", "spatial", "dated"}, "mariadb": {"fulltext", "spatial", "stored", "indexed"}}
"""Which tables are copied for NOT NULL."""
NO_KEY = {"mysql": {"fulltext", "spatial"}, "mariadb": {"fulltext", "spatial", "indexed"}}
NOT_WIDER = {
    "mysql": {"fulltext", "spatial", "dated"},
    "mariadb": {"fulltext", "spatial", "stored", "virtual", "indexed"},
}
CHANGES: tuple[Operation, ...] = (
    RenameColumn(table="t", old="word", new="term"),
    TightenNotNull(table="t", column="name"),
    LoosenNotNull(table="t", column="place", value=lambda _row: ""),
)


def make(database: Database, feature: str) -> None:
    columns = "word VARCHAR(9) NOT NULL, name VARCHAR(9), place VARCHAR(9) NOT NULL, number INT NOT NULL"
    send(database, f"CREATE TABLE t (id INT NOT NULL PRIMARY KEY, {columns}, {FEATURES[feature]})")


def send(database: Database, *statements: str) -> None:
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("feature", FEATURES)
def test_columns_of_every_table_get_their_final_shape(database: Database, feature: str) -> None:
    make(database, feature)
    if feature != "spatial":
        send(database, "INSERT INTO t (id, word, name, place, number) VALUES (1, 'one', 'a', 'b', 1)")
    with runner_of(database, *CHANGES) as run:
        assert run.check() == []
        assert ("CF508" in [notice.code for notice in run.notices()]) is (feature in COPIED[database.kind])
        run.upgrade()
        run.rollback()
        run.upgrade()
        run.contract()
        assert run.status().state is State.CONTRACTED
    nullable = {column["name"]: column["nullable"] for column in sa.inspect(database.engine).get_columns("t")}
    assert (nullable["term"], nullable["name"], nullable["place"]) == (False, False, True)


@pytest.mark.parametrize("feature", FEATURES)
def test_what_would_stop_half_way_is_refused_before(database: Database, feature: str) -> None:
    make(database, feature)
    changes: tuple[tuple[set[str], tuple[Operation, ...]], ...] = (
        (NO_KEY[database.kind], (DropPrimaryKey(table="t"), AddPrimaryKey(table="t", columns=["id", "number"]))),
        (NOT_WIDER[database.kind], (WidenColumn(table="t", column="place", type=sa.Text()),)),
    )
    for refused, operations in changes:
        with runner_of(database, *operations) as run:
            assert [problem.code for problem in run.check()] == (["CF205"] if feature in refused else [])
            if feature not in refused:
                run.upgrade()
                run.rollback()


def test_a_column_that_is_numbered_neither_goes_nor_is_renamed(database: Database) -> None:
    send(database, "CREATE TABLE t (id INT PRIMARY KEY, number INT NOT NULL AUTO_INCREMENT, UNIQUE KEY uq (number))")
    drop = (DropUnique(table="t", columns=["number"]), DropColumn(table="t", column="number", value=lambda _row: 0))
    unique = AddUnique(table="t", name="uq_count", columns=["count"])
    rename = (drop[0], RenameColumn(table="t", old="number", new="count"), unique)
    for operations in (drop, rename):
        with runner_of(database, *operations) as run:
            assert "CF110" in [problem.code for problem in run.check()]
    send(database, "ALTER TABLE t MODIFY number INT NOT NULL")
    with runner_of(database, *rename) as run:
        run.run()
