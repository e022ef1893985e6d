"""What only SQLite has: texts that are edited, a file that others have open, tables without a rowid."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from contraflow.dialects import sqlite_text
from contraflow.dialects.base import Adapter, LockTimeout
from tests.dialects.support import RENAME, Case, connected, fill, rows, run, run_online, send
from tests.servers.shared import Database

pytestmark = pytest.mark.only_on("sqlite")

CASE = Case(lens=RENAME)
TABLES = [
    "CREATE TABLE users (id INTEGER PRIMARY KEY, fullname VARCHAR(60) NOT NULL)",
    "CREATE TABLE users(id INTEGER PRIMARY KEY,fullname not\n null)",
    "create table 'users' (id integer primary key, `fullname` text NOT /* why */ NULL CHECK (age <> 'NOT NULL'), age)",
    'CREATE TABLE users ("fullname" TEXT CONSTRAINT "n*/n%2A" NOT NULL ON CONFLICT FAIL, id INT NOT NULL UNIQUE)',
    "CREATE TABLE users ([fullname] TEXT COLLATE NOCASE NOT NULL ON CONFLICT ROLLBACK, id INTEGER PRIMARY KEY)",
    "CREATE TABLE users (id INTEGER PRIMARY KEY, -- a comment, with NOT NULL\n fullname TEXT NOT NULL -- last, (\n)",
    "CREATE TABLE users (id INTEGER, fullname TEXT NOT NULL, age DECIMAL(5, 2), PRIMARY KEY (id), CHECK (age > 0))",
    # The key first: of any other order SQLite 3.40's integrity_check says wrongly that there is a NULL.
    "CREATE TABLE users (id TEXT NOT NULL PRIMARY KEY, fullname TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE users (id INTEGER PRIMARY KEY, fullname TEXT NOT NULL) STRICT",
]


def integrity(connection: sa.Connection) -> object:
    return connection.exec_driver_sql("PRAGMA integrity_check").scalar()


def sql_of(connection: sa.Connection) -> list[tuple[str, str]]:
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema ORDER BY name").all()
    return [(str(name), str(sql)) for name, sql in found]


@pytest.mark.parametrize("create", TABLES)
def test_rollback_gives_back_the_texts_byte_for_byte(database: Database, create: str) -> None:
    if "STRICT" in create and sqlite3.sqlite_version_info < (3, 37):
        create = create.removesuffix(" STRICT")
    with connected(database.engine) as (connection, adapter):
        send(connection, create, "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        start = sql_of(connection)
        run(connection, adapter, CASE.expand)
        # The new release leaves the old column out; the old one still may not.
        send(connection, "INSERT INTO users (id, display_name) VALUES (2, 'Grace')")
        with pytest.raises(sa.exc.IntegrityError):
            send(connection, "INSERT INTO users (id, fullname) VALUES (3, NULL)")
        assert rows(connection, adapter, CASE, ("fullname",)) == [("Ada",), ("Grace",)]
        assert integrity(connection) == "ok"
        run(connection, adapter, CASE.rollback)
        assert sql_of(connection) == start
        assert integrity(connection) == "ok"
        with pytest.raises(sa.exc.IntegrityError):
            send(connection, "INSERT INTO users (id) VALUES (4)")


@pytest.mark.parametrize("create", TABLES)
def test_contract_leaves_a_sound_file(database: Database, create: str) -> None:
    if "STRICT" in create and sqlite3.sqlite_version_info < (3, 37):
        create = create.removesuffix(" STRICT")
    case = Case(lens=RENAME, defaults={"display_name": "'no one'"}, types={"display_name": sa.Text()})
    with connected(database.engine) as (connection, adapter):
        send(connection, create, "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        run_online(connection, adapter, case.enforce)
        run(connection, adapter, case.contract)
        assert integrity(connection) == "ok"
        send(connection, "INSERT INTO users (id) VALUES (2)")
        assert rows(connection, adapter, case, ("id", "display_name")) in (
            [(1, "Ada"), (2, "no one")],
            [("1", "Ada"), ("2", "no one")],
        )
        with pytest.raises(sa.exc.IntegrityError):
            send(connection, "UPDATE users SET display_name = NULL")


def test_contract_does_not_hide_a_null(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, TABLES[0], "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        run(connection, adapter, CASE.expand)
        before = sql_of(connection)
        with pytest.raises(sa.exc.IntegrityError, match="NOT NULL"):
            run(connection, adapter, CASE.contract)  # the row was never filled
        assert sql_of(connection) == before
        assert integrity(connection) == "ok"


def test_a_connection_that_was_open_before_goes_on(database: Database) -> None:
    with connected(database.engine) as (connection, adapter), database.engine.connect() as other:
        send(connection, TABLES[0])
        other.exec_driver_sql("INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        other.commit()
        for hold, column in ((CASE.expand, "display_name"), (CASE.rollback, "fullname"), (CASE.expand, "fullname")):
            run(connection, adapter, hold)
            if hold.title == "expand":
                fill(connection, adapter, CASE)
            other.exec_driver_sql(f"UPDATE users SET {column} = {column} || '!'")
            other.commit()
        assert other.exec_driver_sql("SELECT fullname FROM users").scalar() == "Ada!!!"
        assert other.exec_driver_sql("SELECT display_name FROM users").scalar() == "Ada!!!"


def test_a_failed_hold_leaves_no_switch_on(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, TABLES[0])
        with contextlib.suppress(ZeroDivisionError), adapter.holding(connection, CASE.expand, 0.1):
            adapter.send(connection, adapter.hold(CASE.expand, adapter.find(connection, "users", None))[0])
            assert connection.exec_driver_sql("PRAGMA writable_schema").scalar() == 1
            raise ZeroDivisionError
        assert connection.exec_driver_sql("PRAGMA writable_schema").scalar() == 0


@pytest.mark.parametrize("mode", ["legacy", "deferred", "autocommit"])
def test_the_modes_of_pythons_driver_do_not_matter(database: Database, mode: str) -> None:
    arguments: dict[str, object] = {"legacy": {}, "deferred": {"isolation_level": "DEFERRED"}}.get(mode, {})  # type: ignore[assignment]
    if mode == "autocommit":
        if sys.version_info < (3, 12):
            arguments = {"isolation_level": None}
        else:
            arguments = {"autocommit": False}
    engine = sa.create_engine(database.url, connect_args=arguments, poolclass=sa.NullPool)
    with connected(engine) as (connection, adapter):
        send(connection, TABLES[0], "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        run(connection, adapter, CASE.expand)
        assert sum(fill(connection, adapter, CASE)) == 1
    with connected(engine) as (connection, adapter):
        assert rows(connection, adapter, CASE, ("display_name",)) == [("Ada",)]


def test_preflight_names_what_cannot_work(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, TABLES[0], "CREATE VIRTUAL TABLE words USING fts5(word)")
        assert adapter.preflight(connection, [(None, "users"), (None, "missing")]) == []
        assert [problem.code for problem in adapter.preflight(connection, [(None, "words")])] == ["CF205"]
        send(connection, "PRAGMA query_only = 1")
        assert [problem.code for problem in adapter.preflight(connection)] == ["CF205"]


def test_preflight_names_rows_that_would_not_be_found(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            "CREATE TABLE plain (id INTEGER PRIMARY KEY, word TEXT)",
            "CREATE TABLE pairs (a TEXT, b INTEGER NOT NULL, word TEXT, PRIMARY KEY (a, b))",
            "CREATE TABLE strict (a TEXT, _rowid_ TEXT, PRIMARY KEY (a)) WITHOUT ROWID",
            "CREATE TABLE shadowed (id INTEGER PRIMARY KEY, _RowId_ TEXT)",
            "INSERT INTO plain (word) VALUES ('x')",
            "INSERT INTO pairs VALUES ('x', 1, NULL)",
        )
        tables = [(None, name) for name in ("plain", "pairs", "strict")]
        assert adapter.preflight(connection, tables) == []
        send(connection, "INSERT INTO pairs VALUES (NULL, 1, NULL), (NULL, 2, NULL)")
        (unnamed,) = adapter.preflight(connection, tables)
        assert (unnamed.code, unnamed.what) == ("CF205", "2 rows of pairs have NULL in their primary key.")
        (shadowed,) = adapter.preflight(connection, [(None, "shadowed")])
        assert (shadowed.code, shadowed.what) == ("CF205", "shadowed has a column _RowId_.")


def test_preflight_notices_defensive_mode(database: Database) -> None:
    def refuse(action: int, table: str | None, *_more: object) -> int:
        schema = action == sqlite3.SQLITE_UPDATE and table in ("sqlite_master", "sqlite_schema")
        return sqlite3.SQLITE_DENY if schema else sqlite3.SQLITE_OK

    with connected(database.engine) as (connection, adapter):
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.set_authorizer(refuse)  # as SQLITE_DBCONFIG_DEFENSIVE does; Python sets that from 3.12 on only
        assert [problem.code for problem in adapter.preflight(connection)] == ["CF205"]


def test_a_database_that_is_locked_is_a_lock_timeout_on_every_python(database: Database) -> None:
    with connected(database.engine) as (_, adapter):
        assert _timeout(adapter, "database is locked")
        assert _timeout(adapter, "database table is locked")
        assert not _timeout(adapter, "no such table: locked")


def _timeout(adapter: Adapter, message: str) -> bool:
    return adapter.is_lock_timeout(sqlite3.OperationalError(message))


# --- the texts alone ----------------------------------------------------------------------------

_GAP = st.sampled_from([" ", "\n", "\t ", " /* NOT NULL, ( */ ", " -- it's, NOT NULL )\n"])
_NAME = st.sampled_from(["name", '"na""me"', "[na,me]", "`n(ame`", "Név"])
_TYPE = st.sampled_from(
    ["TEXT", "DECIMAL(3,\n2)", "", "VARCHAR(10) DEFAULT ('NOT NULL')", "INT CHECK (id IS NOT NULL)"]
)
_NOT_NULL = st.sampled_from(["NOT NULL", "not null", 'CONSTRAINT "x/*" NOT NULL', "NOT NULL ON CONFLICT ABORT"])


@given(data=st.data())
def test_an_edit_is_taken_back_byte_for_byte(data: st.DataObject) -> None:
    name = data.draw(_NAME)
    word = data.draw(_NOT_NULL).replace(" ", "\0")
    column = " ".join([name, data.draw(_TYPE), word, data.draw(st.sampled_from(["", "DEFAULT 'x,('", "UNIQUE"]))])
    others = ["id INTEGER PRIMARY KEY", "other TEXT NOT NULL"]
    place = data.draw(st.integers(0, 2))
    parts = [*others[:place], column, *others[place:]]
    gap = data.draw(_GAP)
    sql = f"CREATE TABLE t ({gap}{f',{gap}'.join(parts)}{gap})".replace("\0", data.draw(_GAP))
    plain = name.strip('`"[]').replace('""', '"') if name[0] in '`"[' else name
    relaxed = sqlite_text.relax(sql, [plain])
    assert relaxed != sql
    assert sqlite_text.relax(relaxed, [plain]) == relaxed
    assert sqlite_text.restore(relaxed, [plain]) == sql
    for text, nullable in ((sql, False), (relaxed, True)):
        with sqlite3.connect(":memory:") as connection:
            connection.execute(text)
            found = {row[1]: not row[3] for row in connection.execute("PRAGMA table_info(t)")}
        connection.close()
        assert found[plain] is nullable
        assert found["other"] is False


def test_a_final_shape_is_appended_once() -> None:
    sql = "CREATE TABLE t (a INT, b TEXT DEFAULT NULL /* b */ , PRIMARY KEY (a))"
    text = sqlite_text.set_final(sql, not_null=["b"], defaults={"a": "1 + 1"})
    assert text == "CREATE TABLE t (a INT DEFAULT (1 + 1), b TEXT DEFAULT NULL NOT NULL /* b */ , PRIMARY KEY (a))"
    assert sqlite_text.set_final(text, not_null=["b"], defaults={}) == text
    for default in ("(1)", "'a'", "CURRENT_TIMESTAMP", "-1.5"):
        assert f"DEFAULT {default}," in sqlite_text.set_final(sql, not_null=[], defaults={"a": default})
    assert "DEFAULT ((1) + (2))," in sqlite_text.set_final(sql, not_null=[], defaults={"a": "(1) + (2)"})
    with pytest.raises(ValueError, match="no column 'c'"):
        sqlite_text.set_final(sql, not_null=["c"], defaults={})


def test_the_options_of_a_table_stand_at_its_end() -> None:
    options = sqlite_text.options
    assert options("CREATE TABLE t (a INT PRIMARY KEY) STRICT, WITHOUT /* x */ rowid") == ["STRICT", "WITHOUT", "ROWID"]
    assert options("CREATE TABLE t (a TEXT DEFAULT 'WITHOUT ROWID', strict TEXT)") == []


def test_a_reader_without_a_write_ahead_log_delays_the_commit_and_nothing_is_left(database: Database) -> None:
    url = database.url.set(database=f"{database.url.database}-journal")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with connected(engine) as (connection, adapter), connected(engine) as (reader, _):
        assert adapter.profile.settings["journal_mode"] == "delete"
        send(connection, TABLES[0], "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        start = sql_of(connection)
        send(reader, "BEGIN")
        assert reader.exec_driver_sql("SELECT fullname FROM users").all()
        with pytest.raises(LockTimeout):
            run(connection, adapter, CASE.expand)
        assert sql_of(connection) == start
        send(reader, "COMMIT")
        run(connection, adapter, CASE.expand)
        assert sum(fill(connection, adapter, CASE)) == 1
