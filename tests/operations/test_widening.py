"""A column's type becomes wider under its own name: the whole life, what stays as it is, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from contraflow import Declared, Options, RenameColumn, Runner, Upgrade, WidenColumn, run_transaction
from contraflow.dialects.kinds import Kind, kind_of, misfit
from contraflow.operations.base import Operation
from contraflow.operations.widening import is_widening
from contraflow.problems import ProblemError
from tests.operations.lives import exact, send
from tests.servers.shared import Database, new_engine

POSTGRESQL = ("postgresql", "postgresql15")
MYSQL = ("mariadb", "mysql")


def upgrade(*operations: Operation) -> Upgrade:
    return Upgrade(old=None, new="r1", changes=(Declared(revision="r1", operations=operations),))


@contextlib.contextmanager
def running(database: Database, *operations: Operation) -> Iterator[Runner]:
    with Runner(database.url, upgrade(*operations), options=Options(lock_timeout=0.3)) as run:
        yield run


def widen(column: str, type_: Any, *, replans: bool = True) -> WidenColumn:
    return WidenColumn(table="users", column=column, type=type_, replans=replans)


def codes(database: Database, *operations: Operation) -> list[str]:
    with running(database, *operations) as run:
        return [problem.code for problem in run.check()]


def old_table(database: Database) -> None:
    """Everything that must outlast a change of type: nullability, default, collation, comment, keys, an index."""
    collation = {"postgresql": 'COLLATE "C"', "sqlite": "COLLATE NOCASE"}.get(
        database.kind.removesuffix("15"), "CHARACTER SET ascii COLLATE ascii_bin"
    )
    rest = "DEFAULT 'x' NOT NULL" + (" COMMENT 'it''s'" if database.kind in MYSQL else "")
    send(
        database.engine,
        [
            f"CREATE TABLE users (id Integer NOT NULL PRIMARY KEY, name VarChar (20) {collation} {rest})",
            "ALTER TABLE users ADD mail varchar(20)",
            "ALTER TABLE users ADD price Decimal(6, 2)",
            "CREATE UNIQUE INDEX ux_users_mail ON users (mail)",
            "CREATE INDEX ix_users_name ON users (name)",
            *(["COMMENT ON COLUMN users.name IS 'it''s'"] if database.kind in POSTGRESQL else []),
            "INSERT INTO users (id, name, mail, price) VALUES (1, 'ada', 'a', 1.25), (2, 'bob', 'b', NULL)",
        ],
    )


def test_everything_else_stays(database: Database) -> None:
    old_table(database)
    engine = database.engine
    before, start = files(database), exact(engine)
    wider: list[Operation] = [widen("name", sa.String(60)), widen("mail", sa.String(40))]
    if database.kind not in MYSQL:
        wider.append(widen("price", sa.Numeric(9, 2)))
    with running(database, *wider) as run:
        assert run.check() == []
        run.upgrade()
        assert files(database) == before, "the table was written anew"
        send(engine, [f"INSERT INTO users (id, name) VALUES (3, '{'y' * 60}')"])
        with pytest.raises(ProblemError, match="CF015") as caught:
            run.rollback()
        assert "1 rows do not fit" in str(caught.value)
        assert run.status().pending is None
        send(engine, ["UPDATE users SET name = 'y' WHERE id = 3"])
        run.rollback()
        assert exact(engine) == start
        run.upgrade()
        run.contract()
    columns: dict[str, Any] = {column["name"]: column for column in sa.inspect(engine).get_columns("users")}
    assert [columns[name]["type"].length for name in ("name", "mail")] == [60, 40]
    assert not columns["name"]["nullable"]
    assert "x" in str(columns["name"]["default"])
    if database.kind != "sqlite":
        assert columns["name"]["comment"] == "it's"
    if database.kind in MYSQL or database.kind == "postgresql":
        assert columns["name"]["type"].collation == ("ascii_bin" if database.kind in MYSQL else "C")
    send(engine, ["INSERT INTO users (id) VALUES (4)"])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM users WHERE id = 4").scalar() == "x"
        # The old release's own cast of a value to a type must not matter to a comparison of another case.
        same = connection.exec_driver_sql("SELECT count(*) FROM users WHERE name = 'ADA'").scalar()
        assert same == (1 if database.kind == "sqlite" else 0)


def files(database: Database) -> object:
    """What changes when a table or an index is written anew; nothing on servers that refuse to do so."""
    if database.kind not in POSTGRESQL:
        return None
    with database.engine.connect() as connection:
        return connection.exec_driver_sql(
            "SELECT pg_relation_filenode('users'), array_agg(file ORDER BY file) FROM (SELECT"
            " pg_relation_filenode(indexrelid) AS file FROM pg_index WHERE indrelid = CAST('users' AS regclass)) AS i"
        ).one()


@pytest.mark.only_on("sqlite")
def test_types_that_sqlite_knows_by_other_names(database: Database) -> None:
    engine = database.engine
    send(
        engine,
        [
            "CREATE TABLE users (id INTEGER PRIMARY KEY, n integer /* n */ , m)",
            "CREATE TABLE strict (id INTEGER PRIMARY KEY, n INTEGER) STRICT",
        ],
    )
    start = exact(engine)
    wide = [widen("id", sa.BigInteger), widen("n", sa.BigInteger)]
    with running(database, *wide, WidenColumn(table="strict", column="n", type=sa.BigInteger)) as run:
        run.upgrade()
        with engine.begin() as connection:
            text = connection.exec_driver_sql("SELECT group_concat(sql) FROM sqlite_schema WHERE name = 'users'")
            assert text.scalar() == "CREATE TABLE users (id INTEGER PRIMARY KEY, n BIGINT /* n */ , m)"
            connection.exec_driver_sql("INSERT INTO users (n) VALUES (5)")
            assert connection.exec_driver_sql("SELECT rowid = id FROM users").scalar() == 1
        send(engine, ["INSERT INTO strict (n) VALUES (5)"])
        run.rollback()
    assert exact(engine) == start


@pytest.mark.only_on(*MYSQL)
def test_what_mysql_does_not_widen_in_place(database: Database) -> None:
    """The rule is the server's own: what is said to be possible is done, and what is not would be refused."""
    send(
        database.engine,
        [
            "CREATE TABLE users (id INT PRIMARY KEY) CHARACTER SET utf8mb4",
            "ALTER TABLE users ADD (a VARCHAR(20), b VARCHAR(60), c VARCHAR(100))",
            "ALTER TABLE users ADD (n INT, d DECIMAL(6, 2), v VARBINARY(20), w VARBINARY(200))",
        ],
    )
    wishes: dict[str, tuple[str, str, Any]] = {
        "VARCHAR(63)": ("a", "", sa.String(63)),
        "VARCHAR(64)": ("a", "mysql", sa.String(64)),
        "more": ("b", "mysql mariadb", sa.String(200)),
        "two": ("c", "", sa.String(300)),
        "TEXT": ("c", "mysql mariadb", sa.Text()),
        "BIGINT": ("n", "mysql mariadb", sa.BigInteger()),
        "DECIMAL": ("d", "mysql mariadb", sa.Numeric(8, 2)),
        "VARBINARY": ("v", "mysql", sa.VARBINARY(300)),
        "longer": ("w", "mysql mariadb", sa.VARBINARY(300)),
    }
    for name, (column, refused, type_) in wishes.items():
        wish = [widen(column, type_)]
        assert codes(database, *wish) == (["CF205"] if database.kind in refused else []), name
        text = type_.compile(database.engine.dialect)
        change = f"ALTER TABLE users MODIFY COLUMN {column} {text}, ALGORITHM=INPLACE, LOCK=NONE"
        if database.kind in refused:
            with pytest.raises(sa.exc.OperationalError, match="1846"):
                send(database.engine, [change])
        else:
            with running(database, *wish) as run:
                run.expand()
                run.rollback()


@pytest.mark.only_on(*POSTGRESQL)
def test_what_reads_the_column_on_postgresql(database: Database) -> None:
    """Each of these would fail, or be done for as long as the table takes."""
    engine = database.engine
    send(engine, ["CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20), n INT)"])
    wider = widen("name", sa.String(40))
    assert codes(database, wider) == []
    assert codes(database, widen("name", sa.String(40), replans=False)) == ["CF119"]
    assert codes(database, widen("n", sa.BigInteger)) == ["CF205"]
    for make, drop in (
        ("CREATE VIEW v AS SELECT name FROM users", "DROP VIEW v"),
        ("CREATE INDEX ix ON users (lower(name))", "DROP INDEX ix"),
        ("CREATE INDEX ix ON users (id) WHERE name > 'x'", "DROP INDEX ix"),
        ("ALTER TABLE users ADD g TEXT GENERATED ALWAYS AS (name) STORED", "ALTER TABLE users DROP g"),
        ("CREATE POLICY p ON users USING (name = 'x')", "DROP POLICY p ON users"),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (name > '')", "ALTER TABLE users DROP CONSTRAINT c"),
    ):
        send(engine, [make])
        assert codes(database, wider) == ["CF111"], make
        send(engine, [drop])
    send(engine, ["CREATE INDEX ix ON users (name, id)", "ALTER TABLE users ADD UNIQUE (name)"])
    assert codes(database, wider) == []


@pytest.mark.only_on(*POSTGRESQL)
def test_statements_prepared_before(database: Database) -> None:
    """They fail once on each connection; psycopg forgets them with the rollback. A transaction is run again."""
    send(
        database.engine,
        ["CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20))", "INSERT INTO users VALUES (1, 'a')"],
    )
    engine = new_engine(database.url, pool_size=1)

    def read(connection: sa.Connection) -> object:
        return connection.execute(sa.text("SELECT name FROM users WHERE id = :id"), {"id": 1}).scalar_one()

    for length in (40, 60):
        for _ in range(7):
            with engine.begin() as connection:
                read(connection)
        send(database.engine, [f"ALTER TABLE users ALTER COLUMN name TYPE VARCHAR({length})"])
        if length == 40:
            with engine.connect() as connection:
                with pytest.raises(sa.exc.DBAPIError, match="cached plan"):
                    read(connection)
                connection.rollback()
                assert read(connection) == "a"
        else:
            assert run_transaction(engine, read) == "a"
    engine.dispose()


def test_what_is_no_widening(database: Database) -> None:
    old_table(database)
    for wish in (widen("name", sa.String(10)), widen("name", sa.Integer), widen("price", sa.Numeric(9, 1))):
        assert codes(database, wish) == ["CF113"]
    with running(database, widen("name", sa.String(60)), RenameColumn(table="users", old="name", new="nick")) as run:
        problems = run.check()
    assert [problem.code for problem in problems if problem.code != "CF111"] == ["CF116"]


def test_an_upgrade_grows(database: Database) -> None:
    """A revision that widens the same column further is planned as if there had been one."""
    send(database.engine, ["CREATE TABLE users (id INT NOT NULL PRIMARY KEY, name VARCHAR(100))"])
    start = exact(database.engine)
    first = Declared(revision="r1", operations=(widen("name", sa.String(200)),))
    second = Declared(revision="r2", operations=(widen("name", sa.String(300)),))
    with Runner(database.url, Upgrade(old=None, new="r1", changes=(first,))) as run:
        run.expand()
    with Runner(database.url, Upgrade(old=None, new="r2", changes=(first, second))) as run:
        run.expand()
        assert sa.inspect(database.engine).get_columns("users")[1]["type"].length == 300  # type: ignore[attr-defined]
        run.rollback()
    assert exact(database.engine) == start


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (sa.Integer(), sa.BigInteger(), True),
        (sa.BigInteger(), sa.Integer(), False),
        (mysql.INTEGER(unsigned=True), sa.Integer(), False),
        (mysql.INTEGER(unsigned=True), sa.BigInteger(), True),
        (mysql.TINYINT(display_width=1), sa.Integer(), False),
        (sa.Integer(), sa.Numeric(20), False),
        (sa.String(20), sa.Text(), True),
        (sa.Text(), sa.String(20), False),
        (sa.String(20), sa.CHAR(40), False),
        (sa.CHAR(20), sa.CHAR(40), False),
        (sa.String(20, collation="x"), sa.String(40), True),
        (sa.String(20), sa.String(40, collation="x"), False),
        (sa.Enum("a", native_enum=False), sa.String(40), False),
        (mysql.MEDIUMTEXT(), sa.Text(), False),
        (mysql.TEXT(), mysql.LONGTEXT(), True),
        (sa.Numeric(6, 2), sa.Numeric(8, 4), True),
        (sa.Numeric(6, 2), sa.Numeric(7, 4), False),
        (sa.Numeric(6, 2), sa.Numeric(), False),
        (sa.Float(), sa.Double(), False),
        (sa.VARBINARY(10), sa.VARBINARY(20), True),
        (sa.BINARY(10), sa.BINARY(20), False),
        (sa.Boolean(), sa.Integer(), False),
        (sa.PickleType(), sa.LargeBinary(), False),
    ],
    ids=repr,
)
def test_widenings(old: sa.types.TypeEngine[Any], new: sa.types.TypeEngine[Any], *, expected: bool) -> None:
    assert is_widening(old, new) is expected


def test_kinds() -> None:
    assert kind_of("int(11) unsigned", "mariadb") == Kind(family="integer", size=32, unsigned=True)
    assert kind_of('character varying(20) COLLATE "C"', "postgresql") == Kind(family="text", size=20)
    assert kind_of("numeric(10, 2)", "postgresql") == Kind(family="decimal", size=10, scale=2)
    assert kind_of("longtext", "mysql") == Kind(family="text", in_bytes=True, large=True)
    assert misfit(kind_of("text", "postgresql"), "c", "postgresql") is None
    assert misfit(kind_of("int unsigned", "mysql"), "c", "mysql") == "(c < 0 OR c > 4294967295)"
    assert misfit(kind_of("tinytext", "mysql"), "c", "mysql") == "length(c) > 255"
    assert misfit(kind_of("decimal(6,2)", "mysql"), "c", "mysql") == "(abs(c) >= 10000 OR round(c, 2) <> c)"
