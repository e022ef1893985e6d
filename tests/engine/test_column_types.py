"""Columns of less usual types and defaults, through a whole upgrade; or refused before anything is changed."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.engine import Options, Progress, State
from contraflow.operations.columns import AddColumn, RenameColumn
from contraflow.operations.moves import MoveColumns
from contraflow.operations.tables import CreateTable
from contraflow.problems import Interrupted
from tests.engine import service
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

RENAME = RenameColumn(table="things", old="a", new="b")


def make(database: Database, type_: str, value: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE things (id INTEGER PRIMARY KEY, a {type_})"))
        connection.execute(sa.text(f"INSERT INTO things VALUES (1, {value})"))


def renamed(database: Database, type_: str, value: str, other: str) -> Any:
    """What the new release reads of ``value`` after it was filled, and of ``other`` that the old one wrote later."""
    make(database, type_, value)
    with service.runner(database.url, upgrade_of(RENAME)) as runner:
        assert runner.check() == []
        runner.upgrade()
        with database.engine.begin() as connection:
            connection.execute(sa.text(f"INSERT INTO things (id, a) VALUES (2, {other})"))
        runner.contract()
    with database.engine.connect() as connection:
        return connection.execute(sa.text("SELECT b FROM things ORDER BY id")).scalars().all()


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_numbers_of_more_digits_than_pythons_default_context(database: Database) -> None:
    big = "12345678901234567890.0123456789"
    found = renamed(database, "NUMERIC(30, 10) NOT NULL", big, f"-{big}")
    assert [str(value) for value in found] == [big, f"-{big}"]


@pytest.mark.only_on("postgresql", "postgresql15")
def test_an_enumerated_type(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("CREATE TYPE mood AS ENUM ('sad', 'ok')"))
    assert renamed(database, "mood NOT NULL", "'sad'", "'ok'") == ["sad", "ok"]


KEYS = {
    "inet": ["10.0.0.2", "10.0.0.10", "::1"],
    "integer[]": ["{}", "{2}", "{10}"],
    "timestamptz": ["-infinity", "0044-03-15 12:00:00+00 BC", "infinity"],
    "jsonb": ["[]", '{"a": 1}', "10"],
    "char(4)": ["a", "b ", "B"],
}


def migrated(url: sa.URL, *, batches: int) -> bool:
    """Whether a runner that is stopped after so many batches, of one row each, came to the end."""
    told: list[Progress] = []

    def should_stop() -> bool:
        return sum(not one.finished for one in told) >= batches

    options = Options(batch_size=1, max_batch_size=1)
    with service.runner(url, options=options, progress=told.append, should_stop=should_stop) as runner:
        try:
            runner.migrate()
        except Interrupted:
            return False
    return True


@pytest.mark.only_on("postgresql", "postgresql15")
def test_keys_that_no_driver_takes_as_it_reads_them(database: Database) -> None:
    """A range of the key ends with a value that was read, and kept in the journal if the runner is stopped."""
    with database.engine.begin() as connection:
        for place, (type_, keys) in enumerate(KEYS.items()):
            connection.exec_driver_sql(f"CREATE TABLE t{place} (id {type_} PRIMARY KEY, a text NOT NULL)")
            for key in keys:
                connection.exec_driver_sql(f"INSERT INTO t{place} VALUES ('{key}', 'x')")
    declared = upgrade_of(*(RenameColumn(table=f"t{place}", old="a", new="b") for place in range(len(KEYS))))
    stops = 0
    with service.runner(database.url, declared) as runner:
        runner.expand()
    while stops < 100 and not migrated(database.url, batches=2):
        stops += 1
    assert len(KEYS) <= stops < 100
    with service.runner(database.url, declared) as runner:
        runner.verify()
        runner.contract()
    with database.engine.connect() as connection:
        filled = [connection.exec_driver_sql(f"SELECT b FROM t{place}").scalars().all() for place in range(len(KEYS))]
    assert filled == [["x"] * 3] * len(KEYS)


COLLATIONS = {
    "sqlite": "NOCASE",
    "postgresql": '"POSIX"',
    "postgresql15": '"POSIX"',
    "mysql": "utf8mb4_bin",
    "mariadb": "utf8mb4_bin",
}


def test_a_collation_of_its_own(database: Database) -> None:
    """It decides what is alike and what comes first, for an index too: a renamed column keeps it."""
    collation = COLLATIONS[database.kind]
    assert renamed(database, f"VARCHAR(20) COLLATE {collation} NOT NULL", "'b'", "'Ada'") == ["b", "Ada"]
    with database.engine.connect() as connection:
        alike, first = (
            connection.execute(sa.text(query)).scalar()
            for query in ("SELECT count(*) FROM things WHERE b = 'ADA'", "SELECT b FROM things ORDER BY b LIMIT 1")
        )
        if database.kind.startswith("postgresql"):
            (column,) = [c for c in sa.inspect(connection).get_columns("things") if c["name"] == "b"]
            assert column["type"].collation == "POSIX"  # type: ignore[attr-defined]
    assert (alike, first) == (1 if database.kind == "sqlite" else 0, "Ada")


@pytest.mark.only_on("sqlite")
def test_a_collation_in_a_strict_table(database: Database) -> None:
    strict = " STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
    create = "CREATE TABLE things (id INTEGER PRIMARY KEY, a TEXT NOT NULL COLLATE NOCASE DEFAULT ('x' COLLATE RTRIM))"
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"{create}{strict}")
    with service.runner(database.url, upgrade_of(RENAME)) as runner:
        runner.run("contract")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO things (b) VALUES ('Ada')")
        assert connection.exec_driver_sql("SELECT count(*) FROM things WHERE b = 'ADA'").scalar() == 1


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_domain_that_refuses_null(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("CREATE DOMAIN given AS text NOT NULL"))
        connection.execute(sa.text("CREATE DOMAIN taken AS text CHECK (VALUE <> '')"))
    make(database, "given", "'x'")
    with service.runner(database.url, upgrade_of(RENAME)) as runner:
        (problem,) = runner.check()
        assert problem.code == "CF116"
        assert "the domain given, which is NOT NULL" in problem.what
    with database.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE things"))
    assert renamed(database, "taken", "'x'", "'y'") == ["x", "y"]


@pytest.mark.only_on("mariadb", "mysql")
@pytest.mark.parametrize(("type_", "value", "other"), [("SET('x', 'y')", "x,y", "y"), ("ENUM('x', 'yy')", "x", "yy")])
def test_a_set_and_an_enum(database: Database, type_: str, value: str, other: str) -> None:
    found = renamed(database, f"{type_} NOT NULL", f"'{value}'", f"'{other}'")
    assert [",".join(sorted(one)) if isinstance(one, set) else one for one in found] == [value, other]


@pytest.mark.filterwarnings("ignore:Did not recognize type:sqlalchemy.exc.SAWarning")
def test_a_type_that_sqlalchemy_does_not_know(database: Database) -> None:
    make(database, {"sqlite": ""}.get(database.kind, "POINT"), "NULL")
    refused(database, "CF116", "of a type that SQLAlchemy does not know")


@pytest.mark.only_on("mariadb", "mysql")
def test_a_timestamp_that_the_server_sets_on_update(database: Database) -> None:
    make(database, "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP", "'2020-01-01'")
    refused(database, "CF110", "ON UPDATE")


def refused(database: Database, code: str, what: str) -> None:
    with service.runner(database.url, upgrade_of(RENAME)) as runner:
        (problem,) = runner.check()
        assert problem.code == code
        assert what in problem.what
        assert runner.status().state is State.PENDING
    assert [column["name"] for column in sa.inspect(database.engine).get_columns("things")] == ["id", "a"]


def test_constant_defaults_as_revisions_write_them(database: Database) -> None:
    make(database, "INTEGER", "1")
    columns: list[sa.Column[Any]] = [
        sa.Column("price", sa.Numeric(10, 2), server_default="1.50", nullable=False),
        sa.Column("open", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("visits", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("word", sa.String(9), server_default=sa.text("'it''s'"), nullable=False),
    ]
    declared = upgrade_of(*(AddColumn(table="things", column=column) for column in columns))
    with service.runner(database.url, declared) as runner:
        assert runner.check() == []
        runner.upgrade()
        with database.engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO things (id, a) VALUES (2, 5)"))
        runner.contract()
        with database.engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO things (id, a) VALUES (3, 6)"))
    with database.engine.connect() as connection:
        table = sa.table("things", *(sa.column(column.name, column.type) for column in columns))
        rows = connection.execute(sa.select(table)).all()
    assert [(str(row.price), row.open, row.visits, row.word) for row in rows] == [("1.50", True, 0, "it's")] * 3


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(("key", "codes"), [("INTEGER PRIMARY KEY", []), ("INTEGER PRIMARY KEY DESC", ["CF116"])])
def test_a_key_that_is_never_null_without_saying_so(database: Database, key: str, codes: list[str]) -> None:
    """It is if it is the row's own number (https://www.sqlite.org/lang_createtable.html#rowid)."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE things (id {key}, a TEXT)")
    other = sa.Table(
        "others",
        sa.MetaData(),
        sa.Column("id", sa.Integer, sa.ForeignKey("things.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("a", sa.Text),
    )
    moved = MoveColumns(table="things", columns={"a": "a"}, to="others", on={"id": "id"})
    with service.runner(database.url, upgrade_of(CreateTable(definition=other), moved)) as runner:
        assert [problem.code for problem in runner.check()] == codes
