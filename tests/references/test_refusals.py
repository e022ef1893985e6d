"""References that cannot be made are refused before anything is changed, each with the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddCompanion,
    CopyColumn,
    CopyTable,
    CreateTable,
    Declared,
    DropTable,
    Options,
    ProblemError,
    ReferColumns,
    RenameColumn,
    RenameTable,
    Runner,
    Source,
    Upgrade,
)
from contraflow.dialects import for_profile
from contraflow.dialects.base import Profile
from contraflow.dialects.galera import GaleraAdapter
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from contraflow.steps import Backfill, Online
from tests.servers.shared import Database
from tests.upgrades import upgrade_of


def _text(name: str, length: int = 40, *, nullable: bool = False, **more: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable, **more)


def _users(*items: Any) -> sa.Table:
    return sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *items)


def _cities(*items: Any) -> sa.Table:
    return sa.Table("cities", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *items)


def refer(**more: Any) -> ReferColumns:
    wish: dict[str, Any] = {
        "table": "users",
        "columns": {"city": "name"},
        "column": sa.Column("city_id", sa.Integer, nullable=False),
        "to": "cities",
        "key": "id",
        "scans": True,
    }
    return ReferColumns(**{**wish, **more})


def problems(tables: Sequence[sa.Table], *operations: Operation) -> str:
    """What planning says."""
    declared = Declared(revision="r1", operations=operations)
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    with pytest.raises(ProblemError) as caught:
        plan(upgrade, {(None, table.name): table for table in tables})
    return str(caught.value)


NULLABLE = sa.Column("city_id", sa.Integer)
UNIQUE = sa.UniqueConstraint


@pytest.mark.parametrize(
    ("users", "cities", "more", "said"),
    [
        ([_text("city")], [_text("name")], {}, "CF116: cities has no unique key of exactly name."),
        (
            [_text("city")],
            [_text("name"), _text("land"), UNIQUE("name", "land")],
            {},
            "cities has no unique key of exactly name.",
        ),
        ([_text("city")], [_text("name", unique=True), sa.Column("no", sa.Integer)], {"key": "no"}, "no is not unique"),
        ([_text("city")], [_text("name", unique=True)], {"scans": False}, "no index begins with users.city_id."),
        ([_text("city")], [_text("name", unique=True)], {"scans": False}, "no index begins with users.city."),
        ([_text("city")], [_text("name", unique=True, nullable=True)], {}, "cities.name may be NULL, and users.city"),
        ([_text("city")], [_text("name", 41, unique=True)], {}, "cities.name holds longer texts than users.city."),
        (
            [_text("city")],
            [_text("name", unique=True)],
            {"column": NULLABLE},
            "users.city_id may be NULL, and users.city",
        ),
        (
            [_text("city", nullable=True)],
            [_text("name", unique=True)],
            {},
            "users.city_id is NOT NULL, and all of city may be NULL.",
        ),
        ([sa.Column("city", sa.Integer, nullable=False)], [_text("name", unique=True)], {}, "users.city is Integer()"),
        (
            [_text("city")],
            [_text("name", unique=True)],
            {"column": sa.Column("city_id", sa.Integer, nullable=False, server_default="1")},
            "users.city_id has a default.",
        ),
        (
            [_text("city", 41)],
            [_text("name", unique=True)],
            {"create": True},
            "users.city holds longer texts than cities.name.",
        ),
        (
            [_text("city"), _text("land", nullable=True)],
            [_text("name"), _text("land", nullable=True), UNIQUE("name", "land")],
            {"create": True, "columns": {"city": "name", "land": "land"}},
            "users.land may be NULL: no row of cities can be told by it.",
        ),
        (
            [_text("city")],
            [_text("name", unique=True), _text("mayor")],
            {"create": True},
            'say what it gets: values={"mayor": ...}.',
        ),
        (
            [_text("city")],
            [_text("name", unique=True), _text("code", unique=True)],
            {"create": True, "values": {"code": lambda row: row.city}},
            "CF109: cities has the unique constraint on code, too.",
        ),
        (
            [_text("city"), _text("street"), UNIQUE("street", "city", name="uq")],
            [_text("name", unique=True)],
            {},
            "CF111: users.city cannot be dropped: the unique constraint uq holds it.",
        ),
        (
            [_text("city"), _text("land"), UNIQUE("land", name="uq")],
            [_text("name"), _text("land"), UNIQUE("name", "land")],
            {"columns": {"city": "name", "land": "land"}},
            "CF109: users.land is computed from city_id, and the unique constraint uq stands on it.",
        ),
    ],
)
def test_a_reference_that_cannot_be_made(users: list[Any], cities: list[Any], more: dict[str, Any], said: str) -> None:
    copied = [item._copy() if isinstance(item, sa.Column) else item for item in users]
    there = [item._copy() if isinstance(item, sa.Column) else item for item in cities]
    assert said in problems([_users(*copied), _cities(*there)], refer(**more))


def test_what_changes_meanwhile() -> None:
    tables = [_users(_text("city")), _cities(_text("name", unique=True))]
    said = problems(tables, refer(), RenameTable(table="cities", new="towns"))
    assert "CF116: cities is renamed in the upgrade in which users comes to refer to cities." in said
    said = problems(tables, RenameColumn(table="cities", old="name", new="title"), refer(columns={"city": "title"}))
    assert "CF116: cities.title changes in the upgrade in which users comes to refer to cities by it." in said
    said = problems(tables, RenameColumn(table="users", old="city", new="town"), refer(columns={"town": "name"}))
    assert "CF116: users.town changes in the upgrade in which users comes to refer to cities." in said


def test_what_links_the_tables_otherwise() -> None:
    tables = [_users(_text("city"), _text("mail")), _cities(_text("name", unique=True), _text("mayor"))]
    said = problems(tables, refer(), DropTable(table="cities"))
    assert "CF116: cities is dropped in the upgrade in which users comes to refer to cities." in said
    source = Source(table="cities", column="mayor", on={"city": "name"})
    copy = CopyColumn(table="users", column=sa.Column("mayor", sa.String(40)), sources=[source], scans=True)
    said = problems(tables, copy, refer())
    assert "what users holds moves or is copied in the upgrade in which users comes to refer to cities." in said
    towns = sa.Table("towns", sa.MetaData(), *(column._copy() for column in tables[1].columns))
    said = problems(tables, CreateTable(definition=towns), CopyTable(table="cities", to="towns"), refer())
    assert "what cities holds moves or is copied in the upgrade in which users comes to refer to cities." in said
    key = sa.Column("mayor_id", sa.Integer, nullable=False)
    back = refer(table="cities", columns={"mayor": "mail"}, to="users", column=key)
    users = _users(_text("city"), _text("mail", unique=True))
    said = problems([users, tables[1]], refer(), back)
    assert "CF116: users and cities refer to each other." in said


def test_a_table_that_refers_to_itself() -> None:
    users = _users(_text("name", unique=True), _text("boss"))
    said = problems([users], refer(to="users", columns={"boss": "name"}))
    assert "CF116: users refers to itself." in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"columns": {}}, "names no columns"),
        ({"values": {"x": 1}}, "has values=, and makes no rows"),
    ],
)
def test_a_declaration_that_contradicts_itself(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError, match="CF116") as caught:
        refer(**more)
    assert said in str(caught.value)


def test_a_companion_that_contradicts_itself() -> None:
    wish: dict[str, Any] = {"table": "users", "column": NULLABLE, "to": "cities", "key": "id"}
    with pytest.raises(ProblemError, match="names no columns"):
        AddCompanion(**wish, columns={})
    with pytest.raises(ProblemError, match="matches name twice"):
        AddCompanion(**wish, columns={"id": "name"}, where={"name": "x"})
    tables = [_users(_text("city")), _cities(_text("name", unique=True))]
    said = problems(tables, AddCompanion(**wish, columns={"city": "name"}, values={"mayor": "x"}))
    assert "values= names mayor, which cities does not have." in said


def test_cockroachdb_is_refused() -> None:
    upgrade = upgrade_of(refer())
    phases = plan(upgrade, {(None, t.name): t for t in (_users(_text("city")), _cities(_text("name", unique=True)))})
    steps = [block.step for block in phases.migrate if isinstance(block, Online)]
    sync = next(step.sync for step in steps if isinstance(step, Backfill))
    adapter = for_profile(Profile(product="cockroachdb", version=(25, 4)))
    connection: Any = None  # nothing is asked
    assert {problem.code for problem in adapter.lookup_problems(connection, sync)} == {"CF205"}


@pytest.mark.only_on("mariadb")
def test_a_cluster_is_refused_what_its_nodes_do_not_agree_on(database: Database) -> None:
    tables = (_users(_text("city")), _cities(_text("name", unique=True)))
    for table in tables:
        table.create(database.engine)
    adapter = for_profile(Profile(product="mariadb", version=(10, 11), settings={"wsrep_on": "ON"}))
    assert isinstance(adapter, GaleraAdapter)
    companion = AddCompanion(table="users", column=NULLABLE, to="cities", key="id", columns={"city": "name"})
    for operation, wanted in (
        (refer(), ["rows of users cannot come to refer to cities on this server."]),
        (companion, []),
    ):
        upgrade = upgrade_of(operation)
        phases = plan(upgrade, {(None, table.name): table for table in tables})
        steps = [block.step for block in phases.migrate if isinstance(block, Online)]
        sync = next(step.sync for step in steps if isinstance(step, Backfill))
        with database.engine.connect() as connection:
            assert [problem.what for problem in adapter.lookup_problems(connection, sync)] == wanted


def found(database: Database, *operations: Operation) -> list[str]:
    """What a check says that only the server knows."""
    upgrade = upgrade_of(*operations)
    with Runner(database.url, upgrade, options=Options(lock_timeout=0.3)) as run:
        return [problem.what for problem in run.check() if problem.code == "CF205"]


@pytest.mark.only_on("mysql", "mariadb")
def test_collations_cascades_and_triggers(database: Database) -> None:
    with database.engine.begin() as connection:
        for statement in (
            "CREATE TABLE lands (id INTEGER NOT NULL PRIMARY KEY)",
            (
                "CREATE TABLE cities (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(40) CHARACTER SET utf8mb4 COLLATE"
                " utf8mb4_bin NOT NULL UNIQUE, land INTEGER, CONSTRAINT fk_land FOREIGN KEY (land)"
                " REFERENCES lands (id) ON DELETE CASCADE)"
            ),
            (
                "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, city VARCHAR(40) CHARACTER SET utf8mb4 COLLATE"
                " utf8mb4_unicode_ci NOT NULL)"
            ),
            "CREATE TRIGGER counted AFTER INSERT ON users FOR EACH ROW UPDATE cities SET land = 1 WHERE id = 0",
        ):
            connection.exec_driver_sql(statement)
    assert found(database, refer()) == [
        "the trigger counted of users uses cities.",
        "users.city has the collation utf8mb4_unicode_ci, and cities.name has utf8mb4_bin.",
        "the foreign key fk_land of cities changes or deletes rows by itself (ON DELETE CASCADE, ON UPDATE NO ACTION).",
    ]
    made = sa.Table("towns", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), _text("name", unique=True))
    (said, *others) = found(database, CreateTable(definition=made), refer(to="towns", create=True))
    assert said.startswith("users.city has the collation utf8mb4_unicode_ci, and towns.name has ")
    assert not others


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_late_unique_key_and_collations(database: Database) -> None:
    with database.engine.begin() as connection:
        for statement in (
            (
                'CREATE TABLE cities (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(40) COLLATE "C" NOT NULL,'
                " UNIQUE (name) DEFERRABLE)"
            ),
            "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, city VARCHAR(40) NOT NULL)",
        ):
            connection.exec_driver_sql(statement)
    assert found(database, refer()) == [
        "the unique key of cities over name is checked at the end of transactions.",
        "users.city has the collation of the database, and cities.name has C.",
    ]
