"""Columns that move between two tables, through the whole life of an upgrade, on every server."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    CreateTable,
    Declared,
    DropForeignKey,
    DropTable,
    DropUnique,
    MoveColumns,
    Options,
    ProblemError,
    Runner,
    State,
    Upgrade,
)
from contraflow.dialects.base import Statement
from contraflow.installed import Installed
from contraflow.operations.base import Operation
from tests.dialects.support import connected
from tests.engine.service import Killed
from tests.servers.shared import Database
from tests.upgrades import upgrade_of


def _text(name: str, *, nullable: bool = True, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(40), nullable=nullable, server_default=default)


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True, autoincrement=False)


def _table(name: str, *items: Any) -> sa.Table:
    return sa.Table(name, sa.MetaData(), *items)


@dataclass(frozen=True, kw_only=True)
class Life:
    """One upgrade of two tables, with statements of both releases and what each must read."""

    name: str
    old: Sequence[str | sa.Table]
    """Statements that make the old release's tables, and fill them."""
    operations: Sequence[Operation]
    tables: Sequence[str]
    """The old release's tables."""
    old_writes: Sequence[str]
    new_writes: Sequence[str]
    old_reads: Mapping[str, Sequence[tuple[Any, ...]]]
    """Query to rows, after both have written."""
    new_reads: Mapping[str, Sequence[tuple[Any, ...]]]


SPLIT = Life(
    name="a table is split in two",
    old=[
        (
            "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(40) NOT NULL, extra VARCHAR(40),"
            " lang VARCHAR(40) NOT NULL DEFAULT 'en', mail VARCHAR(40), CONSTRAINT uq_users_mail UNIQUE (mail))"
        ),
        "INSERT INTO users (id, name, lang, mail) VALUES (1, 'ada', 'en', NULL), (2, 'bob', 'de', 'x')",
    ],
    operations=[
        CreateTable(
            definition=_table(
                "local_users",
                _key("user_id"),
                _text("login", nullable=False),
                _text("lang", nullable=False, default="en"),
                _text("mail"),
                sa.UniqueConstraint("mail", name="uq_local_users_mail"),
                sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_local_users_user", ondelete="CASCADE"),
            )
        ),
        MoveColumns(
            table="users",
            to="local_users",
            on={"id": "user_id"},
            columns={"name": "login", "lang": "lang", "mail": "mail"},
            missing={"name": ""},
        ),
        DropUnique(table="users", columns=["mail"]),
    ],
    tables=["users"],
    old_writes=[
        "INSERT INTO users (id, name) VALUES (10, 'old')",
        "UPDATE users SET mail = 'os' WHERE id = 10",
        "UPDATE users SET mail = 's1' WHERE id = 1",
        "INSERT INTO users (id, name) VALUES (11, 'gone')",
        "DELETE FROM users WHERE id = 11",
    ],
    new_writes=[
        "INSERT INTO users (id, extra) VALUES (20, 'e')",
        "INSERT INTO local_users (user_id, login, mail) VALUES (20, 'new', 'ns')",
        "UPDATE local_users SET login = 'newer', lang = 'fr' WHERE user_id = 20",
        "UPDATE local_users SET mail = NULL WHERE user_id = 2",
        "INSERT INTO users (id) VALUES (21)",
        "INSERT INTO local_users (user_id, login) VALUES (21, 'twenty')",
        "DELETE FROM users WHERE id = 21",
    ],
    old_reads={
        "SELECT id, name, lang, mail FROM users ORDER BY id": [
            (1, "ada", "en", "s1"),
            (2, "bob", "de", None),
            (10, "old", "en", "os"),
            (20, "newer", "fr", "ns"),
        ]
    },
    new_reads={
        "SELECT user_id, login, lang, mail FROM local_users ORDER BY user_id": [
            (1, "ada", "en", "s1"),
            (2, "bob", "de", None),
            (10, "old", "en", "os"),
            (20, "newer", "fr", "ns"),
        ],
        "SELECT id, extra FROM users ORDER BY id": [(1, None), (2, None), (10, None), (20, "e")],
    },
)
JOIN = Life(
    name="two tables become one",
    old=[
        "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, extra VARCHAR(40))",
        _table(
            "profiles",
            sa.Column("number", sa.Integer, primary_key=True),
            sa.Column("user_id", sa.Integer, nullable=False),
            _text("bio", nullable=False),
            sa.Column("size", sa.Integer),
            sa.UniqueConstraint("user_id", name="uq_profiles_user"),
            sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_profiles_user"),
        ),
        "INSERT INTO users (id) VALUES (1), (2), (3)",
        "INSERT INTO profiles (user_id, bio, size) VALUES (1, 'ada', NULL), (3, '', 3)",
    ],
    operations=[
        MoveColumns(table="profiles", to="users", on={"user_id": "id"}, columns=["bio", "size"], missing={"bio": "?"}),
        DropTable(table="profiles", restricts=True),
    ],
    tables=["users", "profiles"],
    old_writes=[
        "INSERT INTO users (id) VALUES (10), (11), (12)",
        "INSERT INTO profiles (user_id, bio, size) VALUES (10, 'old', 1), (11, 'gone', 2)",
        "UPDATE profiles SET bio = 'older' WHERE user_id = 10",
        "DELETE FROM profiles WHERE user_id = 11",
        "UPDATE profiles SET user_id = 12 WHERE user_id = 10",
    ],
    new_writes=[
        "INSERT INTO users (id, bio, size) VALUES (20, 'new', NULL), (21, 'gone', 5), (22, NULL, NULL)",
        "UPDATE users SET bio = 'ADA' WHERE id = 1",
        "UPDATE users SET size = 9 WHERE id = 20",
        "DELETE FROM users WHERE id IN (2, 21)",
        "UPDATE users SET bio = NULL, size = NULL WHERE id = 3",
    ],
    old_reads={
        "SELECT user_id, bio, size FROM profiles ORDER BY user_id": [
            (1, "ADA", None),
            (12, "older", 1),
            (20, "new", 9),
        ],
    },
    new_reads={
        "SELECT id, bio, size FROM users ORDER BY id": [
            (1, "ADA", None),
            (3, None, None),
            (10, None, None),
            (11, None, None),
            (12, "older", 1),
            (20, "new", 9),
            (22, None, None),
        ],
    },
)
LIVES = (SPLIT, JOIN)


def send(engine: sa.Engine, statements: Sequence[str | sa.Table]) -> None:
    """Each statement in a transaction of its own."""
    for statement in statements:
        with engine.begin() as connection:
            if isinstance(statement, str):
                connection.exec_driver_sql(statement)
            else:
                _with_targets(statement).create(connection)


def _with_targets(table: sa.Table) -> sa.Table:
    """A copy whose foreign keys find their columns."""
    metadata = sa.MetaData()
    sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True))
    return table.to_metadata(metadata)


def read(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def runner(database: Database, life: Life, **more: Any) -> Runner:
    declared = Declared(revision="r1", operations=tuple(life.operations))
    upgrade = Upgrade(old=None, new="r1", changes=(declared,))
    return Runner(database.url, upgrade, options=Options(lock_timeout=0.3), **more)


def exact(engine: sa.Engine, life: Life) -> dict[str, Any]:
    """Everything that the server tells about the old release's tables, and all tables there are."""
    with connected(engine) as (connection, adapter):
        inspector = sa.inspect(connection)
        shown: dict[str, Any] = {
            "": sorted(name for name in inspector.get_table_names() if not name.startswith("contraflow"))
        }
        for table in life.tables:
            found = adapter.find(connection, table, None)
            volatile = ("schema_version", "functions")
            details = {name: value for name, value in found.details.items() if name not in volatile}
            details["create"] = re.sub(r" AUTO_INCREMENT=\d+", "", str(details.get("create")))
            keys = sorted(map(str, inspector.get_foreign_keys(table)))
            shown[table] = (found.columns, found.triggers, found.indexes, details, keys)
        if connection.dialect.name == "postgresql":
            functions = "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace ORDER BY 1"
            shown["functions"] = list(connection.exec_driver_sql(functions).scalars())
    return shown


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_life(database: Database, life: Life) -> None:
    engine = database.engine
    send(engine, life.old)
    start = exact(engine, life)
    rows = {table: read(engine, f"SELECT * FROM {table} ORDER BY 1") for table in life.tables}
    with runner(database, life) as run:
        assert run.check() == []
        run.expand()
        with engine.connect() as connection:
            (kept,) = connection.exec_driver_sql("SELECT installed FROM contraflow_journal").scalars()
            assert [Installed.from_dict(item).as_dict() for item in json.loads(kept)] == json.loads(kept)
            assert all(pair["triggers"] for item in json.loads(kept) for pair in item["pairs"])
        run.rollback()
        assert exact(engine, life) == start
        assert {table: read(engine, f"SELECT * FROM {table} ORDER BY 1") for table in life.tables} == rows
        run.expand()
        send(engine, life.old_writes)
        run.migrate()
        send(engine, life.new_writes)
        for query, wanted in (*life.old_reads.items(), *life.new_reads.items()):
            assert read(engine, query) == wanted, query
        run.verify()
        run.rollback()
        assert exact(engine, life) == start
        for query, wanted in life.old_reads.items():
            assert read(engine, query) == wanted, query

        run.expand()
        run.migrate()
        run.verify()
        for query, wanted in (*life.old_reads.items(), *life.new_reads.items()):
            assert read(engine, query) == wanted, query
        run.contract()
    for query, wanted in life.new_reads.items():
        assert read(engine, query) == wanted, query
    inspector = sa.inspect(engine)
    for table in inspector.get_table_names():
        if not table.startswith("contraflow"):
            names = [column["name"] for column in inspector.get_columns(table)]
            assert not [name for name in names if name.startswith("cf_")]


@dataclass(kw_only=True)
class Killer:
    """Lets some statements pass that make something of the tables last, then kills: no later one is sent."""

    left: int
    dead: bool = False
    within: bool = False
    touched: bool = False
    ours: tuple[str, ...] = ("users", "zcf_")
    """What the text of a statement names that is on the tables."""

    def __call__(self, statement: Statement) -> None:
        first = statement.sql.split(None, 1)[0].upper()
        if self.dead or not self.left:
            self.dead = True
            raise Killed
        ours = any(name in statement.sql for name in self.ours)
        touches = ours and first in ("CREATE", "ALTER", "DROP", "UPDATE")
        if first in ("BEGIN", "START"):
            self.within, self.touched = True, False
        elif first in ("COMMIT", "ROLLBACK"):
            self.left -= self.within and self.touched
            self.within = False
        elif self.within:
            self.touched = self.touched or touches
        else:
            self.left -= touches


def test_killed_at_every_statement_both_releases_go_on(database: Database) -> None:
    engine = database.engine
    send(engine, SPLIT.old)
    number = -100  # falling: the backfill, which lives for one batch, is not to find another one ahead
    wanted: dict[int, str | None] = {1: None, 2: "x"}
    for left in itertools.cycle((1, 2, 1, 3, 1, 4)):  # what a kill left half done is undone at times, and done anew
        killer = Killer(left=left)
        with runner(database, SPLIT, before_statement=killer) as run, contextlib.suppress(Killed):
            run.run("contract")
        with runner(database, SPLIT) as run:
            status = run.status()
        number -= 1
        if status.state is not State.CONTRACTED and status.pending != "contract":
            send(
                engine,
                [
                    f"INSERT INTO users (id, name, mail) VALUES ({number}, 'old', 'o{number}')",
                    f"UPDATE users SET mail = 'p{number}' WHERE id = {number}",
                    f"UPDATE users SET mail = 'q{number}' WHERE id = 1",
                ],
            )
            wanted |= {1: f"q{number}", number: f"p{number}"}
        number -= 1
        if status.state in (State.MIGRATED, State.VERIFIED, State.CONTRACTED):
            send(
                engine,
                [
                    f"INSERT INTO users (id) VALUES ({number})",
                    f"INSERT INTO local_users (user_id, login, mail) VALUES ({number}, 'new', 'n{number}')",
                    f"UPDATE local_users SET mail = 'm{number}' WHERE user_id = 2",
                ],
            )
            wanted |= {2: f"m{number}", number: f"n{number}"}
        if not killer.dead:
            break
        assert number > -300, "no end"
    assert status.state is State.CONTRACTED
    assert dict(read(engine, "SELECT user_id, mail FROM local_users")) == wanted


def test_drift_is_found_and_mended_from_either_side(database: Database) -> None:
    engine = database.engine
    send(engine, SPLIT.old)
    both = (
        "SELECT u.id, u.mail, u.name, l.mail, l.login FROM users u LEFT JOIN local_users l ON l.user_id = u.id"
        " ORDER BY u.id"
    )
    # As the sync's own writes: the other table does not hear of them.
    drift = [
        "UPDATE users SET mail = 'drifted', cf_pair = 2 WHERE id = 1",
        "DELETE FROM local_users WHERE user_id IN (SELECT user_id FROM (SELECT 3 AS user_id) three)",
        "UPDATE local_users SET cf_pair = 9 WHERE user_id = 2",
        "DELETE FROM local_users WHERE user_id = 2",
    ]
    with runner(database, SPLIT) as run:
        run.run("verify")
        send(engine, ["INSERT INTO users (id, name, mail) VALUES (3, 'eve', 'e')"])
        sound = read(engine, both)
        send(engine, drift[2:])
        send(engine, drift[:1])
        with pytest.raises(ProblemError, match="CF012") as caught:
            run.contract()
        assert "2 rows of users differ" in str(caught.value)
        assert run.repair("users", "old") >= 2
        assert read(engine, both) == [(1, "drifted", "ada", "drifted", "ada"), *sound[1:]]
        run.verify()

        send(engine, drift[2:])
        send(engine, drift[:1])
        send(engine, ["UPDATE local_users SET mail = 'right', cf_pair = 2 WHERE user_id = 1"])
        assert run.repair("local_users", "new") == 2
        assert read(engine, both) == [
            (1, "right", "ada", "right", "ada"),
            (2, None, "", None, None),
            (3, "e", "eve", "e", "eve"),
        ]
        run.verify()
        run.contract()


def test_a_trigger_that_somebody_dropped_is_missed(database: Database) -> None:
    engine = database.engine
    send(engine, SPLIT.old)
    with runner(database, SPLIT) as run:
        run.run("migrate")
        for table in ("users", "local_users"):
            with connected(engine) as (connection, adapter):
                names = sorted(name for name in adapter.find(connection, table, None).triggers if name[:4] == "zcf_")
                on = f" ON {table}" if adapter.product == "postgresql" else ""
                connection.exec_driver_sql(f"DROP TRIGGER {names[-1]}{on}")
            with pytest.raises(ProblemError, match="CF008") as caught:
                run.verify()
            assert f"{names[-1]} on {table}" in str(caught.value)


@pytest.mark.only_on("sqlite", "postgresql", "postgresql15")
def test_a_row_that_two_foreign_keys_change_and_delete(database: Database) -> None:
    """One action changes what moves, the other one deletes the row: a trigger that comes after both makes no other."""
    engine, metadata = database.engine, sa.MetaData()
    sa.Table("people", metadata, _key("id"))
    sa.Table(
        "users",
        metadata,
        _key("id"),
        _text("bio"),
        sa.Column("friend", sa.Integer),
        sa.Column("boss", sa.Integer),
        sa.ForeignKeyConstraint(["friend"], ["people.id"], name="fk_a", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["boss"], ["people.id"], name="fk_b", ondelete="CASCADE"),
    )
    metadata.create_all(engine)
    send(
        engine,
        ["INSERT INTO people (id) VALUES (1)", "INSERT INTO users (id, bio, friend, boss) VALUES (1, 'b', 1, 1)"],
    )
    profiles = _table(
        "profiles",
        _key("user_id"),
        _text("bio"),
        sa.Column("friend", sa.Integer),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_profile", ondelete="CASCADE"),
    )
    operations = (
        CreateTable(definition=profiles),
        MoveColumns(table="users", to="profiles", on={"id": "user_id"}, columns=["bio", "friend"]),
        DropForeignKey(table="users", columns=["friend"]),
    )
    upgrade = upgrade_of(*operations)
    with Runner(database.url, upgrade) as run:
        run.upgrade()
        assert read(engine, "SELECT user_id, friend FROM profiles") == [(1, 1)]
        with engine.begin() as connection:
            if database.kind == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.exec_driver_sql("DELETE FROM people WHERE id = 1")
        assert read(engine, "SELECT user_id FROM profiles") == []
        run.verify()
        run.contract()


@pytest.mark.only_on("postgresql", "postgresql15")
def test_an_application_needs_no_rights_on_a_table_it_does_not_know(database: Database) -> None:
    engine = database.engine
    send(engine, SPLIT.old)
    send(engine, ["CREATE ROLE cf_old_release", "GRANT SELECT, INSERT, UPDATE, DELETE ON users TO cf_old_release"])
    try:
        with runner(database, SPLIT) as run:
            run.expand()
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL ROLE cf_old_release")
            # A table of the same name in front of it, in the session's own schema, is not what the triggers write.
            connection.exec_driver_sql("CREATE TEMP TABLE local_users (user_id INTEGER PRIMARY KEY) ON COMMIT DROP")
            for statement in SPLIT.old_writes:
                connection.exec_driver_sql(statement)
        found = read(engine, "SELECT user_id, mail FROM local_users ORDER BY user_id")
        assert found == [(1, "s1"), (10, "os")]
    finally:
        send(engine, ["DROP OWNED BY cf_old_release", "DROP ROLE cf_old_release"])
