"""Comments of tables and columns: changed beside the writers, and all else of a column left as it is."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddSurrogateKey,
    ChangeComment,
    CreateIndex,
    CreateTable,
    DropTable,
    Options,
    ProblemError,
    RenameColumn,
    RenameTable,
    Runner,
    State,
)
from contraflow.dialects import Profile, Statement, for_profile
from contraflow.dialects.mysql_text import recommented
from contraflow.installed import Comment, Installed
from contraflow.operations.planning import plan
from contraflow.steps import AddColumns, MakeTable, Online
from tests.operations.lives import Killed, exact, send, writing
from tests.servers.shared import Database
from tests.upgrades import runner_of, upgrade_of

POSTGRESQL = ("postgresql", "postgresql15")
MYSQL = ("mariadb", "mysql")
ODD = "it's \\ 100 %\n:x"


def comments(database: Database, table: str) -> dict[str | None, str]:
    """The comments that stand, that of the table under None.

    As the adapter finds them: SQLAlchemy 2.1.9 finds none of a column whose default it cannot read.
    """
    details = exact(database.engine, table)["details"]
    return {**details.get("comments", {}), **({None: details["comment"]} if details.get("comment") else {})}


def test_comments_change_at_contract(database: Database) -> None:
    """Of a table that is renamed, and of one that is not; nothing else changes, and no writer notices."""
    engine = database.engine
    metadata = sa.MetaData()
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="old")
    sa.Table("users", metadata, key, sa.Column("name", sa.String(20)), comment="old")
    sa.Table("words", metadata, key._copy(), sa.Column("name", sa.String(20), comment="old"))
    metadata.create_all(engine)
    start = exact(engine), exact(engine, "words")
    operations = (
        ChangeComment(table="users", column="name", comment=ODD),
        RenameTable(table="users", new="people"),
        ChangeComment(table="people", comment=ODD),
        ChangeComment(table="people", column="id", comment=""),
        ChangeComment(table="words", comment="new"),
        ChangeComment(table="words", column="name", comment=None),
    )
    writes = ["INSERT INTO words (id, name) VALUES (9, 'x')", "DELETE FROM words WHERE id = 9"]
    with runner_of(database, *operations) as run:
        assert run.check() == []
        run.upgrade()
        if database.kind != "sqlite":
            assert comments(database, "words") == {"id": "old", "name": "old"}
        run.rollback()
        assert (exact(engine), exact(engine, "words")) == start
        run.upgrade()
        with writing(engine, writes):
            run.contract()
        assert run.status().state is State.CONTRACTED
    if database.kind == "sqlite":
        assert exact(engine, "words") == start[1]
        return
    assert comments(database, "people") == {None: ODD, "name": ODD}
    assert comments(database, "words") == {None: "new", "id": "old"}


def test_a_new_table_has_its_comments_from_the_beginning() -> None:
    made = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), comment="first")
    users = sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    operations = (
        CreateTable(definition=made),
        ChangeComment(table="notes", comment="second"),
        ChangeComment(table="notes", column="id", comment="the key"),
        AddColumn(table="users", column=sa.Column("age", sa.Integer, nullable=True)),
        ChangeComment(table="users", column="age", comment="in years"),
    )
    phases = plan(upgrade_of(*operations), {(None, "users"): users})
    steps = [step for block in phases.expand for step in getattr(block, "steps", ())]
    (table,) = (step.definition for step in steps if isinstance(step, MakeTable))
    (added,) = (step.columns for step in steps if isinstance(step, AddColumns))
    assert (table.comment, table.c.id.comment, added[0].column.comment) == ("second", "the key", "in years")
    assert not any(isinstance(block, Online) for block in phases.contract)


# What MySQL and MariaDB can say of a column: it is defined anew as a whole.
COLUMNS = {
    "id": "INT NOT NULL AUTO_INCREMENT",
    "latin": "VARCHAR(60) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL DEFAULT 'it''s, COMMENT'",
    "at": "TIMESTAMP(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)",
    "doc": "JSON NOT NULL",
    "hidden": "INT DEFAULT 5 INVISIBLE",
    "kind": "ENUM('a', 'b''COMMENT') DEFAULT 'a' COMMENT 'old '' \\\\ one'",
    "virtual": "INT AS (`hidden` + 1) VIRTUAL COMMENT 'old'",
    "price": "DECIMAL(10, 2) UNSIGNED NULL",
    "called": "VARCHAR(9) DEFAULT (concat('a', 'COMMENT'))",
    "some": "INT CHECK (`some` > 0)",
    "bits": "BIT(3) NOT NULL DEFAULT b'101'",
    "mail": "VARCHAR(20) UNIQUE",
}
STORED = "INT AS (`hidden` + 2) STORED"


def created(database: Database, table: str) -> list[str]:
    """The lines of SHOW CREATE TABLE, but for the comments; MySQL may come to name a character set by itself."""
    with database.engine.connect() as connection:
        text = str(connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1])
    text = re.sub(r" COMMENT[ =]'(?:[^'\\]|\\.|'')*'(?!,?COMMENT)", "", text)
    return text.replace(" CHARACTER SET utf8mb4 COLLATE", " COLLATE").splitlines()


def stored_as(database: Database, table: str) -> object:
    """What changes when the server stores the table anew."""
    name = "innodb_tables" if database.kind == "mysql" else "innodb_sys_tables"
    query = f"SELECT table_id, space FROM information_schema.{name} WHERE name = concat(database(), '/{table}')"
    with database.engine.connect() as connection:
        return tuple(connection.exec_driver_sql(query).one())


@pytest.mark.only_on(*MYSQL)
@pytest.mark.parametrize("options", ["", "ROW_FORMAT=COMPRESSED", "COLLATE utf8mb4_bin"])
def test_nothing_of_a_column_is_lost(database: Database, options: str) -> None:
    columns = {**COLUMNS, **({"kept": STORED} if database.kind == "mysql" else {})}
    lines = [f"`{name}` {text}" for name, text in columns.items()]
    lines += ["PRIMARY KEY (id)", *([] if options else ["FULLTEXT KEY ft (latin)"])]
    send(database.engine, [f"CREATE TABLE users ({', '.join(lines)}) {options}"])
    before, place = created(database, "users"), stored_as(database, "users")
    operations = [ChangeComment(table="users", column=name, comment=ODD) for name in columns]
    with runner_of(database, *operations, ChangeComment(table="users", comment=ODD)) as run:
        assert run.check() == []
        run.run()
    assert created(database, "users") == before
    assert comments(database, "users") == dict.fromkeys([None, *columns], ODD)
    assert stored_as(database, "users") == place
    gone = [ChangeComment(table="users", column=name, comment=None) for name in (None, *columns)]
    again = upgrade_of(*gone, old="r1", new="r2")
    with Runner(database.url, again, options=Options(lock_timeout=0.3)) as run:
        run.run()
    assert (created(database, "users"), comments(database, "users")) == (before, {})
    assert stored_as(database, "users") == place


@pytest.mark.only_on(*MYSQL)
def test_what_the_server_would_copy_or_change_is_refused(database: Database) -> None:
    indexed = "INT AS (`hidden` + 1) VIRTUAL"
    columns = f"id INT PRIMARY KEY, hidden INT, kept {STORED}, text VARCHAR(99) CHECK (json_valid(text))"
    columns = f"{columns}, looked {indexed}, free {indexed}, KEY free (looked)"
    send(database.engine, [f"CREATE TABLE users ({columns})"])

    def codes(column: str | None, comment: str) -> list[str]:
        with runner_of(database, ChangeComment(table="users", column=column, comment=comment)) as run:
            return [problem.code for problem in run.check()]

    copied = ["CF205"] if database.kind == "mariadb" else []
    assert codes("kept", "x") == codes("text", "x") == codes("looked", "x") == copied
    assert codes("free", "x") == []
    index = CreateIndex(table="users", name="ix_users_free", columns=["free"])
    with runner_of(database, index, ChangeComment(table="users", column="free", comment="x")) as run:
        assert [problem.code for problem in run.check()] == copied
    assert codes("id", "ü" * 1024) == codes(None, "ü" * 2048) == []
    assert codes("id", "ü" * 1025) == codes(None, "ü" * 2049) == ["CF205"]
    assert codes("id", "\U0001f600") == codes(None, "\U0001f600") == ["CF205"]
    # The server itself: if it comes to do better, so shall this.
    for place in ("MODIFY id INT COMMENT", "COMMENT ="):
        with pytest.raises(sa.exc.DBAPIError, match=r"16(28|29)"):
            send(database.engine, [f"ALTER TABLE users {place} '{'ü' * 2049}'"])
    if database.kind == "mariadb":
        virtual = f"looked {indexed} COMMENT 'x'"
        for change in (f"kept {STORED} COMMENT 'x'", virtual, "text VARCHAR(99) COMMENT 'x' CHECK (json_valid(text))"):
            with pytest.raises(sa.exc.DBAPIError, match=r"184[56]"):
                send(database.engine, [f"ALTER TABLE users MODIFY {change}, ALGORITHM=INSTANT"])


@pytest.mark.only_on(*MYSQL)
def test_comments_of_what_is_new_fit_too(database: Database) -> None:
    send(database.engine, ["CREATE TABLE users (id INT PRIMARY KEY)", "CREATE TABLE words (word INT PRIMARY KEY)"])

    def operations(text: str) -> list[Any]:
        column = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment=text)
        return [
            AddColumn(table="users", column=sa.Column("name", sa.String(9), comment=text)),
            CreateTable(definition=sa.Table("rooms", sa.MetaData(), column, comment=text * 2)),
            AddSurrogateKey(
                table="words", column=sa.Column("id", sa.BigInteger, comment=text), unique="uq_words", copies=True
            ),
        ]

    new = {"users.name", "rooms", "rooms.id", "words.id"}
    for wrong in ("ü" * 1025, "\U0001f600"):
        with runner_of(database, *operations(wrong)) as run:
            found = run.check()
        assert {problem.code for problem in found} == {"CF205"}
        assert {problem.what.split()[3] for problem in found} == new
    with runner_of(database, *operations("ü" * 1024)) as run:
        run.run("contract")
    assert comments(database, "users") == {"name": "ü" * 1024}
    assert comments(database, "words") == {"id": "ü" * 1024}
    assert comments(database, "rooms") == {"id": "ü" * 1024, None: "ü" * 2048}


@pytest.mark.only_on(*MYSQL)
def test_a_comment_that_sqlalchemy_does_not_find_goes_with_the_name(database: Database) -> None:
    columns = "id INT PRIMARY KEY, a INT DEFAULT 5 INVISIBLE COMMENT 'old', b BIT(3) DEFAULT b'101' COMMENT 'old'"
    send(database.engine, [f"CREATE TABLE users ({columns})"])
    with runner_of(database, RenameColumn(table="users", old="a", new="c", omitted="new")) as run:
        assert run.check() == []
        run.run()
    assert comments(database, "users") == {"b": "old", "c": "old"}


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_contract_is_killed_before_each_statement(database: Database) -> None:
    send(database.engine, ["CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(9))", "CREATE TABLE words (id INT)"])
    operations = (
        *(ChangeComment(table="users", column=name, comment="new") for name in (None, "id", "name")),
        ChangeComment(table="words", comment="new"),
    )
    with runner_of(database, *operations) as run:
        run.upgrade()
    killed = 0
    for place in range(5):
        sent = 0

        def die(statement: Statement, place: int = place) -> None:
            nonlocal sent
            if "COMMENT" in statement.sql:
                sent += 1
                if sent > (1 if place else 0):
                    raise Killed

        with Runner(database.url, upgrade_of(*operations), before_statement=die) as run:
            try:
                run.contract()
            except Killed:
                killed += 1
                assert run.status().pending == "contract"
    assert killed >= 3
    assert comments(database, "users") == {None: "new", "id": "new", "name": "new"}
    assert comments(database, "words") == {None: "new"}


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_what_is_half_done_is_not_taken_back(database: Database) -> None:
    """A lock that is not had leaves the way back open as long as no comment has changed."""
    tables = ["CREATE TABLE users (id INT PRIMARY KEY)", "CREATE TABLE words (id INT PRIMARY KEY)"]
    send(database.engine, [*tables, "CREATE TABLE zones (id INT PRIMARY KEY)"])
    busy = "LOCK TABLE {} IN ROW EXCLUSIVE MODE; LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE"
    if database.kind in MYSQL:
        busy = "SELECT * FROM {}"
    operations = [ChangeComment(table=table, comment="new") for table in ("users", "words")]
    with runner_of(database, *operations, DropTable(table="zones"), lock_timeout=0.2, lock_patience=0.5) as run:
        run.upgrade()
        with database.engine.connect() as reader:
            reader.exec_driver_sql(busy.format("zones", "zones"))
            with pytest.raises(ProblemError, match="CF006"):
                run.contract()
        run.rollback()
        run.upgrade()
        assert comments(database, "users") == {}
    with runner_of(database, *operations, DropTable(table="zones")) as run:
        run.rollback()
    with runner_of(database, *operations, lock_timeout=0.2, lock_patience=0.5) as run:
        run.upgrade()
        with database.engine.connect() as reader:
            reader.exec_driver_sql(busy.format("words", "words"))
            with pytest.raises(ProblemError, match="CF006"):
                run.contract()
            assert comments(database, "users") == {None: "new"}
            with pytest.raises(ProblemError, match="CF004"):
                run.rollback()
        run.contract()
    assert comments(database, "words") == {None: "new"}


def test_the_journal_keeps_the_comments() -> None:
    table = sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("name", sa.Text, comment="old"))
    operations = (
        ChangeComment(table="users", comment="all"),
        ChangeComment(table="users", column="name", comment="first"),
        ChangeComment(table="users", column="name", comment=""),
    )
    phases = plan(upgrade_of(*operations), {(None, "users"): table})
    (installed,) = phases.installed
    assert Installed.from_dict(installed.as_dict()) == installed
    assert installed.commented == (Comment(column=None, text="all"), Comment(column="name", text=None))
    assert (phases.expand, phases.migrate, phases.verify, phases.rollback) == ((), (), (), ())
    earlier = {key: value for key, value in installed.as_dict().items() if key != "commented"}
    assert Installed.from_dict(earlier).commented == ()


SENT = {
    "postgresql": [
        "COMMENT ON TABLE users IS 'it''s \\ 100 %\n:x'",
        "COMMENT ON COLUMN users.name IS NULL",
    ],
    "mysql": [
        "ALTER TABLE users MODIFY COLUMN name <its definition> COMMENT '', ALGORITHM=INSTANT",
        "ALTER TABLE users COMMENT = 'it''s \\\\ 100 %\n:x', ALGORITHM=INPLACE, LOCK=NONE",
    ],
    "mariadb": [
        "ALTER TABLE users MODIFY COLUMN name <its definition> COMMENT '', ALGORITHM=INSTANT",
        "ALTER TABLE users COMMENT = 'it''s \\\\ 100 %\n:x', ALGORITHM=INSTANT",
    ],
    "sqlite": [],
}
SENT["cockroachdb"] = SENT["postgresql"]
VERSIONS = {"postgresql": (18, 0), "cockroachdb": (25, 4, 0), "mysql": (9, 7), "mariadb": (10, 11), "sqlite": (3, 40)}


@pytest.mark.parametrize("product", SENT)
def test_what_is_sent_of_which_nothing_is_known(product: str) -> None:
    adapter = for_profile(Profile(product=product, version=VERSIONS[product]))
    table = sa.Table("users", sa.MetaData(), sa.Column("name", sa.Text))
    operations = (
        ChangeComment(table="users", comment=ODD),
        ChangeComment(table="users", column="name", comment=None),
    )
    (block,) = plan(upgrade_of(*operations), {(None, "users"): table}).contract
    assert isinstance(block, Online)
    sent = adapter.online(block, None)
    assert [re.sub(r"[`\"]", "", statement.sql) for statement in sent] == SENT[product]
    if product == "cockroachdb":
        assert {statement.lock for statement in sent} == {"none: an online schema change job"}


@pytest.mark.parametrize(
    ("column", "changed"),
    [
        ("int DEFAULT NULL", "int DEFAULT NULL COMMENT 'x'"),
        ("text COMMENT 'a''b\\\\', COMMENT'", "text COMMENT 'x'"),
        ("int DEFAULT 5 COMMENT 'old' CHECK (`n` > 0)", "int DEFAULT 5 COMMENT 'x' CHECK (`n` > 0)"),
        ("int DEFAULT '5' /*!80023 INVISIBLE */ COMMENT 'old'", "int DEFAULT '5' /*!80023 INVISIBLE */ COMMENT 'x'"),
        ("int COMMENT 'old' /*!80021 ENGINE_ATTRIBUTE '{}' */", "int /*!80021 ENGINE_ATTRIBUTE '{}' */ COMMENT 'x'"),
        (
            "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (json_valid(`n`))",
            "json NOT NULL COMMENT 'x'",
        ),
        ("longtext NOT NULL CHECK (json_valid(`n`))", "longtext NOT NULL COMMENT 'x' CHECK (json_valid(`n`))"),
        ("int GENERATED ALWAYS AS (`a` + 1) VIRTUAL", "int GENERATED ALWAYS AS (`a` + 1) VIRTUAL COMMENT 'x'"),
    ],
)
def test_a_definition_with_another_comment(column: str, changed: str) -> None:
    create = f"CREATE TABLE `t` (\n  `a` int COMMENT 'n',\n  `n` {column},\n  KEY (`a`)\n) COLLATE=utf8mb4_general_ci"
    assert recommented(create, "n", "x") == changed
    assert recommented(create, "n", None) == changed.replace(" COMMENT 'x'", "")


def test_what_is_refused() -> None:
    columns: dict[str, sa.Column[Any]] = {"id": sa.Column("id", sa.Integer)}
    for wrong in (ChangeComment(table="none", comment="x"), ChangeComment(table="users", column="none", comment="x")):
        with pytest.raises(ProblemError, match="CF101"):
            wrong.plan({(None, "users"): columns})
    with pytest.raises(ProblemError, match="CF116"):
        ChangeComment(table="users", comment="a\0b")
    strange = sa.Column("name", sa.String(9), comment="a\0b")
    with pytest.raises(ProblemError, match=r"CF116: the comment of words\.name"):
        CreateTable(definition=sa.Table("words", sa.MetaData(), strange))
    users = sa.Table("users", sa.MetaData(), *columns.values())
    with pytest.raises(ProblemError, match=r"CF116: the comment of users\.name"):
        plan(upgrade_of(AddColumn(table="users", column=strange._copy())), {(None, "users"): users})
