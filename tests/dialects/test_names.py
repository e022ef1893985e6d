"""Names and literals that quoting, parameters, percent signs, backslashes and colons could spoil."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import dialects
from contraflow.dialects.base import Adapter
from contraflow.expressions import concat, recode
from contraflow.lens import Lens
from tests.dialects.support import (
    RENAME,
    Case,
    connected,
    fill,
    probe,
    rows,
    run,
    run_online,
    send,
    shape,
)
from tests.servers.shared import Database

NASTY = """a%s b%%c :d ::e \\:f \\n ' " ` ? $1 {g} $contraflow$ */ ü"""


def lens_between(old: str, new: str) -> Lens:
    """A lens whose literals have all that could be taken for something else."""
    return Lens(
        old=[old],
        new=[new],
        forward=lambda row: {new: recode(row[old], {"plain": NASTY, NASTY: "plain"}, default="other")},
        backward=lambda row: {old: recode(row[new], {NASTY: "plain", "plain": NASTY}, default="others")},
    )


def names_for(adapter: Adapter) -> list[tuple[str, str, str]]:
    """Table, old and new column."""
    named = [
        ("order", "select", "table"),
        ("Users", "fullName", "displayName"),
        ('we"ird', "o'ld", 'n"ew'),
        ("col:on", "o:ld", "n::ew"),
        ("tick`s", "back\\slash", "tick`"),
        ("per%cent", "old%s", "new%%"),
        ("t" * 63, "o" * 63, "n" * 63),
        ("ü" * 31, "ö" * 31, "ä" * 31),
    ]
    if adapter.product in ("mysql", "mariadb"):
        named.append(("t" * 64, "o" * 64, "ä" * 64))
    return named


def test_any_name_that_the_server_takes_may_be_upgraded(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        for place, (table, old, new) in enumerate(names_for(adapter)):
            case = Case(
                lens=lens_between(old, new),
                table=table,
                name=f"cf_{place}_" + "x" * 43,
                types={old: sa.String(80), new: sa.String(80)},
            )
            quote = adapter.compiler.quote
            send(
                connection,
                f"CREATE TABLE {quote(table)} (id INTEGER NOT NULL PRIMARY KEY, {quote(old)} VARCHAR(80) NOT NULL)",
                f"INSERT INTO {quote(table)} (id, {quote(old)}) VALUES (1, 'plain'), (2, 'more')",
            )
            start = shape(connection, adapter, case)
            run(connection, adapter, case.expand)
            insert = sa.text(f"INSERT INTO {quoted(adapter, table)} (id, {quoted(adapter, new)}) VALUES (3, :value)")
            connection.execute(insert, {"value": NASTY})
            assert fill(connection, adapter, case) == [2]
            assert set(probe(connection, adapter, case).values()) == {0}
            assert rows(connection, adapter, case, ("id", old, new)) == [
                (1, "plain", NASTY),
                (2, "more", "other"),
                (3, "plain", NASTY),
            ]
            run(connection, adapter, case.rollback)
            assert shape(connection, adapter, case) == start
            run(connection, adapter, case.expand)
            fill(connection, adapter, case)
            run_online(connection, adapter, case.enforce)
            run(connection, adapter, case.contract)
            assert rows(connection, adapter, case, ("id", new)) == [(1, NASTY), (2, "other"), (3, NASTY)]


def quoted(adapter: Adapter, name: str) -> str:
    """For ``sqlalchemy.text``."""
    return adapter.compiler.quote(name).replace(":", "\\:")


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_schema_that_is_not_in_the_search_path(database: Database) -> None:
    case = Case(lens=RENAME, schema="Other one", table="Us ers")
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            'CREATE SCHEMA "Other one"',
            'CREATE TABLE "Other one"."Us ers" (id INTEGER PRIMARY KEY, fullname VARCHAR(60) NOT NULL)',
            # One of the same name where unqualified names are looked for.
            'CREATE TABLE "Us ers" (id INTEGER PRIMARY KEY)',
        )
        start = shape(connection, adapter, case)
        run(connection, adapter, case.expand)
        send(connection, """INSERT INTO "Other one"."Us ers" (id, fullname) VALUES (1, 'Ada')""")
        assert rows(connection, adapter, case, ("id", "display_name")) == [(1, "Ada")]
        run(connection, adapter, case.rollback)
        assert shape(connection, adapter, case) == start
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        run_online(connection, adapter, case.enforce)
        run(connection, adapter, case.contract)
        assert adapter.find(connection, "Us ers", "Other one").columns == {"id": False, "display_name": False}
        assert adapter.find(connection, "Us ers", None).columns == {"id": False}
        functions = connection.exec_driver_sql("SELECT count(*) FROM pg_proc WHERE proname = 'cf_users'").scalar()
        assert functions == 0


@pytest.mark.only_on("mariadb", "mysql")
def test_a_table_of_another_database(database: Database) -> None:
    other = database.server.create_database()
    try:
        case = Case(lens=RENAME, schema=other.database)
        with connected(database.engine) as (connection, adapter):
            table = adapter.compiler.table("users", other.database)
            send(connection, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, fullname VARCHAR(60) NOT NULL)")
            start = shape(connection, adapter, case)
            run(connection, adapter, case.expand)
            send(connection, f"INSERT INTO {table} (id, fullname) VALUES (1, 'Ada')")
            assert rows(connection, adapter, case, ("id", "display_name")) == [(1, "Ada")]
            run(connection, adapter, case.rollback)
            assert shape(connection, adapter, case) == start
    finally:
        database.server.drop_database(other)


@pytest.mark.only_on("sqlite")
def test_a_table_of_an_attached_file(database: Database) -> None:
    case = Case(lens=RENAME, schema="aux1")
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            f"ATTACH '{database.url.database}-2' AS aux1",
            "CREATE TABLE aux1.users (id INTEGER PRIMARY KEY, fullname VARCHAR(60) NOT NULL)",
        )
        start = shape(connection, adapter, case)
        run(connection, adapter, case.expand)
        send(connection, "INSERT INTO aux1.users (id, display_name) VALUES (1, 'Ada')")
        assert rows(connection, adapter, case, ("id", "fullname")) == [(1, "Ada")]
        run(connection, adapter, case.rollback)
        assert shape(connection, adapter, case) == start


def test_other_peoples_triggers_indexes_and_views_survive(database: Database) -> None:
    case = Case(lens=RENAME)
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, fullname VARCHAR(60) NOT NULL, age INTEGER)",
            "CREATE INDEX users_age ON users (age)",
            "CREATE VIEW grown AS SELECT id, age FROM users WHERE age > 17",
            *OTHER_TRIGGER[adapter.product],
        )
        start = shape(connection, adapter, case)
        assert len(start["found"].triggers) == 1
        run(connection, adapter, case.expand)
        send(connection, "INSERT INTO users (id, fullname, age) VALUES (1, 'Ada', -1)")
        assert rows(connection, adapter, case, ("id", "display_name", "age")) == [(1, "Ada", 0)]
        run(connection, adapter, case.rollback)
        assert shape(connection, adapter, case) == start
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        run_online(connection, adapter, case.enforce)
        run(connection, adapter, case.contract)
        send(connection, "INSERT INTO users (id, display_name, age) VALUES (2, 'Grace', -1)")
        assert rows(connection, adapter, case, ("id", "age")) == [(1, 0), (2, 0)]
        end = shape(connection, adapter, case)
        assert (end["indexes"], end["views"], set(end["found"].triggers)) == (
            start["indexes"],
            start["views"],
            set(start["found"].triggers),
        )


_MYSQL_TRIGGER = ("CREATE TRIGGER theirs BEFORE INSERT ON users FOR EACH ROW SET NEW.age = GREATEST(NEW.age, 0)",)
_POSTGRESQL_TRIGGER = (
    "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.age := abs(NEW.age) - 1; RETURN NEW; END'",
    "CREATE TRIGGER theirs BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION theirs()",
)
_SQLITE_TRIGGER = (
    "CREATE TRIGGER theirs AFTER INSERT ON users WHEN NEW.age < 0 BEGIN UPDATE users SET age = 0 WHERE id = NEW.id; END"
)
OTHER_TRIGGER = {
    "mysql": _MYSQL_TRIGGER,
    "mariadb": _MYSQL_TRIGGER,
    "postgresql": _POSTGRESQL_TRIGGER,
    "sqlite": (_SQLITE_TRIGGER,),
}


def test_the_literals_of_a_lens_are_escaped_for_text_too(database: Database) -> None:
    lens = Lens(
        old=["fullname"],
        new=["display_name"],
        forward=lambda row: {"display_name": concat(row.fullname, NASTY)},
    )
    case = Case(lens=lens, types={"display_name": sa.String(100)})
    with connected(database.engine) as (connection, adapter):
        send(connection, "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, fullname VARCHAR(60) NOT NULL)")
        run(connection, adapter, case.expand)
        text = adapter.expression(case.sync, case.sync.groups[0].forward["display_name"], "u")
        query = sa.text(f"SELECT {text.replace(':', chr(92) + ':')} FROM (SELECT 'x' AS fullname) u")
        assert connection.execute(query).scalar() == f"x{NASTY}"


def test_the_adapter_comes_from_the_server_and_again_from_its_profile(database: Database) -> None:
    with connected(database.engine) as (_, adapter):
        assert adapter.product == database.kind.removesuffix("15")
        profile = adapter.profile
        again = dialects.for_profile(dialects.Profile.from_dict(profile.as_dict()))
        assert type(again) is type(adapter)
        assert profile.version >= adapter.floor
        assert again.hold(Case(lens=RENAME).rollback, None) == adapter.hold(Case(lens=RENAME).rollback, None)
