"""Moves that cannot be made are refused before anything is changed, each with the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    CreateTable,
    Declared,
    DropTable,
    MoveColumns,
    Options,
    ProblemError,
    RenameTable,
    Runner,
    Upgrade,
)
from contraflow.dialects import for_profile
from contraflow.dialects.base import Profile
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from contraflow.steps import BackfillPair, Online
from tests.servers.shared import Database
from tests.upgrades import upgrade_of


def _users(*items: Any) -> sa.Table:
    return sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *items)


def _profiles(*items: Any, key: bool = True, tie: bool = True) -> sa.Table:
    target = [sa.ForeignKey("users.id", ondelete="CASCADE")] if tie else []
    user = sa.Column("user_id", sa.Integer, *target, primary_key=key, nullable=False, autoincrement=False)
    return sa.Table("profiles", sa.MetaData(), user, *items)


def _text(name: str, **more: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(40), **more)


MOVE: dict[str, Any] = {"table": "users", "to": "profiles", "on": {"id": "user_id"}, "columns": ["bio"]}


def problems(tables: Sequence[sa.Table], *operations: Operation) -> str:
    """What planning says."""
    declared = Declared(revision="r1", operations=operations)
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    with pytest.raises(ProblemError) as caught:
        plan(upgrade, {(None, table.name): table for table in tables})
    return str(caught.value)


@pytest.mark.parametrize(
    ("users", "profiles", "more", "said"),
    [
        (_users(_text("bio")), _profiles(_text("bio"), tie=False), {}, "CF116: no foreign keys tie the rows together"),
        (
            _users(_text("bio")),
            _profiles(_text("bio"), key=False),
            {},
            "CF116: profiles may have several rows with the",
        ),
        (_users(_text("bio")), _profiles(), {}, "CF116: the new table profiles has no column bio"),
        (
            _users(_text("bio")),
            _profiles(_text("bio"), _text("x", nullable=False)),
            {},
            "CF116: profiles.x is NOT NULL",
        ),
        (_users(_text("bio", nullable=False)), _profiles(_text("bio")), {}, 'missing={"bio": ...}'),
        (
            _users(_text("bio", server_default="a")),
            _profiles(_text("bio")),
            {},
            "CF106: an INSERT into users that leaves",
        ),
        (
            _users(_text("bio", server_default=sa.text("current_user"))),
            _profiles(_text("bio")),
            {},
            "drop the default of users.bio in an upgrade of its own",
        ),
        (
            _users(_text("bio"), sa.UniqueConstraint("bio", name="uq")),
            _profiles(_text("bio")),
            {},
            "CF111: users.bio cannot be dropped: the unique constraint uq holds it.",
        ),
        (
            _users(_text("bio")),
            _profiles(_text("bio", unique=True)),
            {},
            "CF109: profiles has the unique constraint on bio",
        ),
        (
            _users(_text("bio", nullable=False), sa.UniqueConstraint("bio", name="uq")),
            _profiles(_text("bio")),
            {"missing": {"bio": ""}},
            "CF109: users.bio would hold '' in all rows without a companion",
        ),
    ],
)
def test_a_split_that_cannot_be_made(users: sa.Table, profiles: sa.Table, more: dict[str, Any], said: str) -> None:
    assert said in problems([users], CreateTable(definition=profiles), MoveColumns(**MOVE, **more))


def test_both_tables_stay() -> None:
    said = problems([_users(_text("bio")), _profiles()], MoveColumns(**MOVE))
    assert "CF116: both releases know profiles." in said
    assert "CreateTable before MoveColumns" in said


def test_a_name_that_is_taken() -> None:
    tables = [_users(_text("bio")), _profiles(_text("bio"))]
    move = MoveColumns(table="profiles", to="users", on={"user_id": "id"}, columns=["bio"])
    assert "CF112: table users has a column bio already." in problems(tables, move, DropTable(table="profiles"))


def test_a_table_that_is_renamed_meanwhile() -> None:
    create = CreateTable(definition=_profiles(_text("bio")))
    said = problems([_users(_text("bio"))], create, MoveColumns(**MOVE), RenameTable(table="users", new="people"))
    assert "CF116: users is renamed in the upgrade in which its columns move." in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"columns": []}, "needs columns= and on="),
        ({"columns": ["id"]}, "users.id is to move, and tells which rows belong together"),
        ({"missing": {"other": 1}}, "missing= names other, which does not move"),
    ],
)
def test_a_declaration_that_contradicts_itself(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError, match="CF116") as caught:
        MoveColumns(**{**MOVE, **more})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "profile",
    [
        Profile(product="cockroachdb", version=(25, 4)),
        Profile(product="mariadb", version=(10, 11), settings={"wsrep_on": "ON"}),
    ],
    ids=["cockroachdb", "galera"],
)
def test_servers_that_refuse(profile: Profile) -> None:
    operations = (CreateTable(definition=_profiles(_text("bio"))), MoveColumns(**MOVE))
    upgrade = upgrade_of(*operations)
    phases = plan(upgrade, {(None, "users"): _users(_text("bio"))})
    steps = [block.step for block in phases.migrate if isinstance(block, Online)]
    pair = next(step.pair for step in steps if isinstance(step, BackfillPair))
    adapter = for_profile(profile)
    connection: Any = None  # nothing is asked
    assert [problem.code for problem in adapter.pair_problems(connection, pair)] == ["CF205"]


@pytest.mark.only_on("mysql", "mariadb")
def test_what_fires_no_triggers_or_uses_both_tables(database: Database) -> None:
    with database.engine.begin() as connection:
        for statement in (
            "CREATE TABLE realms (id INTEGER NOT NULL PRIMARY KEY)",
            (
                "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, realm INTEGER, bio VARCHAR(40),"
                " CONSTRAINT fk_realm FOREIGN KEY (realm) REFERENCES realms (id) ON DELETE CASCADE)"
            ),
            (
                "CREATE TABLE profiles (user_id INTEGER NOT NULL PRIMARY KEY, size INTEGER,"
                " CONSTRAINT fk_user FOREIGN KEY (user_id) REFERENCES users (id))"
            ),
            "CREATE TRIGGER counted AFTER INSERT ON users FOR EACH ROW UPDATE profiles SET size = 1 WHERE user_id = 0",
        ):
            connection.exec_driver_sql(statement)
    move = MoveColumns(table="profiles", to="users", on={"user_id": "id"}, columns=["size"])
    declared = Declared(revision="r1", operations=(move, DropTable(table="profiles", restricts=True)))
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    with Runner(database.url, upgrade, options=Options(lock_timeout=0.3)) as run:
        found = [problem.what for problem in run.check() if problem.code == "CF205"]
    assert found == [
        "the foreign key fk_realm of users (ON DELETE CASCADE) changes rows of users or profiles by a cascade.",
        "the trigger counted of users uses profiles.",
    ]
