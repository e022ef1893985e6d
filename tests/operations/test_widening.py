"""A column's type becomes wider under its own name: the whole life, what stays as it is, and what is refused."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from contraflow import (
    AddColumn,
    ChangeDefault,
    Declared,
    LoosenNotNull,
    RenameColumn,
    Runner,
    Upgrade,
    WidenColumn,
    run_transaction,
)
from contraflow.dialects.base import Statement
from contraflow.dialects.kinds import Kind, kind_of, misfit
from contraflow.operations.base import Operation
from contraflow.operations.widening import is_widening
from contraflow.problems import ProblemError
from tests.operations.lives import Killed, exact, send, writing
from tests.servers.shared import Database, new_engine
from tests.upgrades import runner_of, upgrade_of

POSTGRESQL = ("postgresql", "postgresql15")
MYSQL = ("mariadb", "mysql")


def widen(column: str, type_: Any, *, replans: bool = True) -> WidenColumn:
    return WidenColumn(table="users", column=column, type=type_, replans=replans)


def codes(database: Database, *operations: Operation) -> list[str]:
    with runner_of(database, *operations) as run:
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
    with runner_of(database, *wider) as run:
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
    with runner_of(database, *wide, WidenColumn(table="strict", column="n", type=sa.BigInteger)) as run:
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
        "TEXT": ("c", "mysql mariadb", sa.Text()),
        "BIGINT": ("n", "mysql mariadb", sa.BigInteger()),
        "longer": ("w", "mysql mariadb", sa.VARBINARY(300)),
    }
    for name, (column, rebuilt, type_) in wishes.items():
        text = type_.compile(database.engine.dialect)
        if database.kind in rebuilt:
            with pytest.raises(sa.exc.OperationalError, match="1846"):
                send(
                    database.engine, [f"ALTER TABLE users MODIFY COLUMN {column} {text}, ALGORITHM=INPLACE, LOCK=NONE"]
                )
        with runner_of(database, widen(column, type_)) as run:
            run.expand()
            found = sa.inspect(database.engine).get_columns("users")
            assert (f"cf_{column}" in {one["name"] for one in found}) is (database.kind in rebuilt), name
            run.rollback()


# --- by a shadow column and one swap ----------------------------------------------------------------------------------


def rebuilt_table(database: Database, rows: int = 300) -> list[Operation]:
    """A table of types that no server but SQLite widens in place, and what widens them."""
    comment = "COMMENT 'it''s'" if database.kind in MYSQL else ""
    send(
        database.engine,
        [
            f"CREATE TABLE users (id INT NOT NULL PRIMARY KEY, n INT DEFAULT 5 NOT NULL {comment})",
            "ALTER TABLE users ADD m INT",
            "ALTER TABLE users ADD rest VARCHAR(9)",
            "ALTER TABLE users ADD price DECIMAL(6, 2) DEFAULT 1.5",
            "ALTER TABLE users ADD nick VARCHAR(20) DEFAULT 'Ada' NOT NULL",
            *(["COMMENT ON COLUMN users.n IS 'it''s'"] if database.kind in POSTGRESQL else []),
            f"INSERT INTO users (id, n, price) VALUES {', '.join(f'({n}, {n}, {n}.25)' for n in range(1, rows))}",
            "INSERT INTO users (id, n, m, nick) VALUES (1000, -2147483648, 2147483647, 'a ')",
        ],
    )
    wider: list[Operation] = [widen("n", sa.BigInteger), widen("m", sa.BigInteger), widen("price", sa.Numeric(8, 4))]
    return [*wider, widen("nick", sa.Text if database.kind == "mariadb" else sa.String(90))]


def columns(database: Database) -> dict[str, tuple[str, bool]]:
    found = sa.inspect(database.engine).get_columns("users")
    return {column["name"]: (str(column["type"]), column["nullable"]) for column in found}


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_a_rebuild(database: Database) -> None:
    """Rows from before, rows of both releases meanwhile, and everything else of the columns; nobody waits or fails."""
    wider = rebuilt_table(database)
    engine = database.engine
    start, before = exact(engine), columns(database)
    old = [
        "INSERT INTO users (id, n) VALUES (2000, 7)",
        "INSERT INTO users (id) VALUES (2001)",
        "UPDATE users SET n = n + 1, m = n, nick = 'old' WHERE id = 2000",
        "UPDATE users SET rest = 'x' WHERE id < 20",
        "DELETE FROM users WHERE id > 1999",
    ]
    large = "INSERT INTO users (id, n, m, price, nick) VALUES (3000, 3000000000, -3000000000, 9999.0001, 'n')"
    with runner_of(database, *wider) as run:
        assert run.check() == []
        planned = [one.statement.sql for one in run.plan().phases["migrate"]]
        assert any("RENAME COLUMN" in sql or "CHANGE COLUMN" in sql for sql in planned)
        run.expand()
        send(engine, old)
        run.rollback()
        assert exact(engine) == start
        run.expand()
        with writing(engine, old):
            run.migrate()
            run.verify()
        assert {name: columns(database)[name][0] for name in ("n", "m")} == dict.fromkeys(("n", "m"), "BIGINT")
        send(engine, [*old, large])
        with pytest.raises(ProblemError, match="CF015"):
            run.rollback()
        send(engine, ["DELETE FROM users WHERE id = 3000"])
        with writing(engine, old):
            run.rollback()
        assert exact(engine) == start
        run.upgrade()
        send(engine, [large])
        with writing(engine, [*old[:4], "DELETE FROM users WHERE id IN (2000, 2001)"]):
            run.contract()
    after = columns(database)
    assert set(after) == set(before)
    assert [nullable for _, (_, nullable) in sorted(after.items())] == [
        nullable for _, (_, nullable) in sorted(before.items())
    ]
    send(engine, ["INSERT INTO users (id) VALUES (4000)"])
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT n, m, price, nick FROM users WHERE id IN (1000, 3000) ORDER BY id"
        ).all()
        assert [tuple(row) for row in rows] == [
            (-2147483648, 2147483647, decimal.Decimal("1.5"), "a "),
            (3000000000, -3000000000, decimal.Decimal("9999.0001"), "n"),
        ]
        row = connection.exec_driver_sql("SELECT n, m, price, nick FROM users WHERE id = 4000").one()
        assert tuple(row) == (5, None, decimal.Decimal("1.5"), "Ada")
        total = connection.exec_driver_sql("SELECT sum(n), count(*) FROM users WHERE id < 1000").one()
        assert tuple(total) == (sum(range(1, 300)), 299)
    comments = {column["name"]: column["comment"] for column in sa.inspect(engine).get_columns("users")}
    assert comments["n"] == "it's"
    assert list(after)[:2] == ["id", "n"] or database.kind in POSTGRESQL, "a positional INSERT would go astray"


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_a_rebuild_is_killed_anywhere(database: Database) -> None:
    """Before each statement of each phase; what is written between two tries is in both columns."""
    wider = rebuilt_table(database, rows=3)[:1]
    engine = database.engine
    start = exact(engine)
    value = itertools.count(10)

    def survive(*verbs: str) -> None:
        for at in itertools.count():
            sent = itertools.count()

            def die(statement: Statement, at: int = at, sent: Iterator[int] = sent) -> None:
                ours = statement.sql.startswith(("ALTER", "CREATE TRIGGER", "CREATE OR", "DROP", "UPDATE `users`"))
                if ours and next(sent) == at:
                    raise Killed

            with Runner(database.url, upgrade_of(*wider), before_statement=die) as run:
                try:
                    for verb in verbs:
                        getattr(run, verb)()
                except Killed:
                    pass
                else:
                    return
            send(engine, [f"UPDATE users SET n = {next(value)}, m = n WHERE id = 1"])

    survive("expand")
    survive("migrate")
    survive("rollback")
    assert exact(engine) == start
    survive("expand", "migrate", "verify", "contract")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM users WHERE id = 1").scalar() == next(value) - 1
    assert columns(database)["n"][0] == "BIGINT"


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_a_rollback_loses_nothing_that_comes_late(database: Database) -> None:
    """Between the look at the rows and the swap back, a value that would be lost is refused."""
    rebuilt_table(database, rows=3)
    seen: list[str] = []
    with runner_of(database, widen("n", sa.BigInteger)) as run:
        run.upgrade()
        send(database.engine, ["UPDATE users SET n = 3000000000 WHERE id = 1"])
        entry = run.status()
        with pytest.raises(ProblemError, match="CF015"):
            run.rollback()
        assert run.status().state == entry.state
        send(database.engine, ["UPDATE users SET n = 3 WHERE id = 1"])

    def late(statement: Statement) -> None:
        if seen or not statement.sql.startswith("LOCK TABLE"):
            return
        triggers = str(exact(database.engine)["triggers"])
        if "contraflow guard" not in triggers and "_w_g_" not in triggers:
            return
        seen.append(statement.sql)
        with pytest.raises(sa.exc.DBAPIError, match="out of the range"):
            send(database.engine, ["UPDATE users SET n = 3000000000 WHERE id = 1"])

    with Runner(database.url, upgrade_of(widen("n", sa.BigInteger)), before_statement=late) as run:
        run.rollback()
    assert seen
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM users WHERE id = 1").scalar() == 3


@pytest.mark.only_on(*POSTGRESQL, *MYSQL)
def test_what_stands_on_a_column_that_would_be_rebuilt(database: Database) -> None:
    engine = database.engine
    send(
        engine,
        [
            "CREATE TABLE users (id INT PRIMARY KEY, n INT, cf_m INT, m INT)",
            "CREATE TABLE bare (n INT)",
            "CREATE INDEX ix ON users (m, n)",
        ],
    )
    # On PostgreSQL it goes over to the second column: see test_wider_keys.py.
    held = [] if database.kind in POSTGRESQL else ["CF111"]
    assert codes(database, widen("n", sa.BigInteger)) == held
    assert codes(database, widen("id", sa.BigInteger)) == held
    assert codes(database, WidenColumn(table="bare", column="n", type=sa.BigInteger, replans=True)) == ["CF111"]
    send(engine, ["DROP INDEX ix ON users" if database.kind in MYSQL else "DROP INDEX ix"])
    assert codes(database, widen("n", sa.BigInteger)) == []
    assert codes(database, widen("m", sa.BigInteger)) == ["CF112"]
    if database.kind in MYSQL:
        send(engine, ["ALTER TABLE users ADD t VARCHAR(20) DEFAULT 'x'"])
        assert codes(database, widen("t", sa.Text)) == (["CF205"] if database.kind == "mysql" else [])
        send(engine, ["ALTER TABLE users ADD g INT AS (n + 1)"])
        # MariaDB gives a table with such a column new ones at its end only.
        only_there = ["CF205"] if database.kind == "mariadb" else []
        assert codes(database, widen("n", sa.BigInteger)) == [*only_there, "CF111"]


@pytest.mark.only_on(*POSTGRESQL)
def test_what_reads_the_column_on_postgresql(database: Database) -> None:
    """Each of these would fail, or be done for as long as the table takes."""
    engine = database.engine
    send(engine, ["CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20), n INT)"])
    wider = widen("name", sa.String(40))
    assert codes(database, wider) == []
    assert codes(database, widen("name", sa.String(40), replans=False)) == ["CF119"]
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
    with runner_of(database, widen("name", sa.String(60)), RenameColumn(table="users", old="name", new="nick")) as run:
        problems = run.check()
    assert [problem.code for problem in problems if problem.code != "CF111"] == ["CF116"]
    for other in (
        LoosenNotNull(table="users", column="name", value=lambda _row: ""),
        ChangeDefault(table="users", column="name", default="y", omitted="old"),
    ):
        assert codes(database, widen("name", sa.String(60)), other) == ["CF116"]


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


def test_a_column_stays_widened_when_the_upgrade_grows(database: Database) -> None:
    send(
        database.engine,
        ["CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, points INTEGER)", "INSERT INTO users VALUES (1, 7)"],
    )
    first = Declared(
        revision="r1", operations=(WidenColumn(table="users", column="points", type=sa.BigInteger, replans=True),)
    )
    more = AddColumn(table="users", column=sa.Column("city", sa.String(9)))
    whole = (first, Declared(revision="r2", operations=(more,)))
    for changes in (whole[:1], whole):
        with Runner(database.url, Upgrade(old=None, new=changes[-1].revision, changes=changes)) as run:
            assert run.check() == []
            run.expand()
    with Runner(database.url, Upgrade(old=None, new="r2", changes=whole)) as run:
        run.run()
    send(database.engine, ["UPDATE users SET points = 3000000000, city = 'Rom'"])
    columns = {column["name"] for column in sa.inspect(database.engine).get_columns("users")}
    assert columns == {"id", "points", "city"}
