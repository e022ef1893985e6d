"""Traps that real servers and SQLAlchemy lay for a sync; each would be noticed here."""

# ruff: noqa: E501
from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from contraflow import dialects
from contraflow import expressions as x
from contraflow.dialects.compiler import compiler_for
from contraflow.dialects.sync import trigger_statements
from contraflow.operations.columns import RenameColumn
from contraflow.operations.planning import plan
from contraflow.steps import Hold, InstallSync
from tests.servers.shared import Database, new_engine
from tests.sync.bench import Bench, create, expand, planned, scenario_upgrade
from tests.sync.scenarios import PREFIX, SCENARIOS, Scenario, by_name
from tests.sync.test_counter_examples import change, declared, expanded, row, sync_of
from tests.upgrades import upgrade_of

pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*does \\*not\\* support Decimal")
PRODUCTS = ["sqlite", "postgresql", "cockroachdb", "mysql", "mariadb"]


def portable() -> list[Scenario]:
    """The scenarios that plan on any server, without a connection."""
    return [found for found in SCENARIOS if found.kinds is None and len(found.products) > 1]


def texts_of(scenario: Scenario, product: str) -> list[str]:
    """The trigger and function texts of a scenario, compiled without a server."""
    table = sa.Table(
        scenario.table,
        sa.MetaData(),
        sa.Column("id", sa.Integer(), primary_key=scenario.keyed),
        *scenario.columns(product),
    )
    sync = sync_of(plan(scenario_upgrade(scenario), {(None, scenario.table): table}))
    found = trigger_statements(sync, product, compiler_for(product))
    return [part for text in found for part in (text.create, text.function) if part]


@pytest.mark.parametrize("product", PRODUCTS)
def test_no_parameter_is_left_in_a_trigger(product: str) -> None:
    """SQLAlchemy's own compilers lose ``literal_binds`` in IS DISTINCT FROM on some dialects, and double percent signs."""
    for scenario in portable():
        for text in texts_of(scenario, product):
            bare = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`", "", text)
            assert not re.search(r"(?<!:):\w|\?|%\(|%s|%%", bare), (scenario.name, bare)
            if "%" in text:
                assert "%%" not in text, scenario.name


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_sync_can_be_recognised(product: str) -> None:
    for scenario in portable():
        assert all("contraflow " in text or "EXECUTE FUNCTION" in text for text in texts_of(scenario, product))


def test_sqlite_triggers_name_no_columns_in_update_of() -> None:
    """SQLite accepts UPDATE OF a column that does not exist, and such a trigger never fires."""
    for scenario in portable():
        assert not any(re.search(r"UPDATE\s+OF", text) for text in texts_of(scenario, "sqlite"))


def test_names_fit_every_server(database: Database) -> None:
    """PostgreSQL cuts names at 63 bytes silently, MySQL and MariaDB refuse more than 64 characters: two tables stay apart."""
    stem = "t" * 50 + "é" * 5
    lens = change("o", sa.Column("n", sa.Integer()), lambda r: r.o, lambda r: r.n)
    names = set()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for end in ("a", "b"):
            metadata = sa.MetaData()
            table = sa.Table(
                stem + end, metadata, sa.Column("id", sa.Integer(), primary_key=True), sa.Column("o", sa.Integer())
            )
            metadata.create_all(connection)
            operation = type(lens)(**{**vars(lens), "table": stem + end})
            upgrade = upgrade_of(operation, old="0", new="1")
            phases = plan(upgrade, {(None, stem + end): table})
            expand(connection, phases)
            names.add(sync_of(phases).name)
            assert len(f"{sync_of(phases).name}_u".encode()) <= 63
            quoted = connection.dialect.identifier_preparer.quote(stem + end)
            connection.exec_driver_sql(f"INSERT INTO {quoted} (id, o) VALUES (1, 5)")
            assert connection.exec_driver_sql(f"SELECT n FROM {quoted}").scalar_one() == 5
    assert len(names) == 2


@pytest.mark.only_on("mysql", "mariadb")
def test_triggers_keep_a_strict_mode_of_their_own(database: Database) -> None:
    """A trigger keeps the sql_mode, character set and collation of the session that created it."""
    with expanded(database, "odd_literals") as bench:
        found = bench.connection.exec_driver_sql(
            "SELECT sql_mode, character_set_client FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        ).all()
        assert len(found) == 2
        for mode, charset in found:
            assert "STRICT_TRANS_TABLES" in mode or "STRICT_ALL_TABLES" in mode
            assert not {"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PIPES_AS_CONCAT"} & set(mode.split(","))
            assert charset == "utf8mb4"


SESSIONS = {
    "postgresql": [
        "SET standard_conforming_strings = off",
        "SET escape_string_warning = off",
        "SET TIME ZONE 'Asia/Kolkata'",
        "SET DateStyle = 'German'",
        "SET search_path = pg_catalog, public",
        "SET IntervalStyle = 'iso_8601'",
    ],
    "mysql": ["SET sql_mode = ''", "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'", "SET time_zone = '+05:30'"],
    "mariadb": ["SET sql_mode = ''", "SET sql_mode = 'ORACLE'", "SET time_zone = '+05:30'", "SET NAMES latin1"],
    "sqlite": ["PRAGMA case_sensitive_like = ON", "PRAGMA reverse_unordered_selects = ON"],
}


def test_a_writers_session_changes_nothing(database: Database) -> None:
    """Modes, zones and search paths of the sessions that write are not the sync's."""
    with expanded(database, "odd_literals") as bench:
        for place, statement in enumerate(SESSIONS[bench.product]):
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(statement)
                connection.exec_driver_sql(f"INSERT INTO things (id, name) VALUES ({place}, 'a')")
                connection.exec_driver_sql(f"UPDATE things SET tagged = 'b' WHERE id = {place}")
                connection.exec_driver_sql(f"UPDATE things SET name = 'c' WHERE id = {place}")
                connection.detach()
            assert row(bench, place) == {"name": "c", "tagged": PREFIX + "c"}, statement


@pytest.mark.only_on("postgresql", "postgresql15")
def test_times_with_a_zone_are_instants(database: Database) -> None:
    """timestamptz is read and written as UTC, whatever the session's zone."""
    lens = change(
        "at", sa.Column("micros", sa.BigInteger()), lambda r: x.epoch_us(r["at"]), lambda r: x.from_epoch_us(r.micros)
    )
    with expanded(database, declared(lambda: [sa.Column("at", sa.DateTime(timezone=True))], lens)) as bench:
        bench.connection.exec_driver_sql("SET TIME ZONE 'Asia/Kolkata'")
        moment = dt.datetime(2024, 3, 31, 2, 30, 0, 5, tzinfo=dt.timezone.utc)
        bench.insert([(1, {"at": moment})])
        assert row(bench)["micros"] == 1_711_852_200_000_005
        bench.update([1], {"micros": 1_711_852_200_000_006})
        assert row(bench)["at"] == moment.replace(microsecond=6)


@pytest.mark.only_on("postgresql", "postgresql15")
def test_types_without_equality_are_compared(database: Database) -> None:
    """json and point have no ``=``, and jsonb's would be right: an unrelated UPDATE must not fail on any of them."""
    types: dict[str, tuple[Any, str]] = {
        "json": (postgresql.JSON(), """'{"a": 1}'"""),
        "jsonb": (postgresql.JSONB(), """'{"a": 1}'"""),
        "uuid": (postgresql.UUID(), "'00000000-0000-0000-0000-00000000000a'"),
        "inet": (postgresql.INET(), "'10.0.0.1'"),
        "array": (postgresql.ARRAY(sa.Integer()), "'{1,2}'"),
        "chars": (sa.CHAR(5), "'a'"),
        "times": (sa.Time(), "'12:00:01.5'"),
    }
    scenario = declared(
        lambda: [sa.Column(f"o_{name}", type_) for name, (type_, _) in types.items()],
        [RenameColumn(table="things", old=f"o_{name}", new=f"n_{name}") for name in types],
    )
    with expanded(database, scenario) as bench:
        execute = bench.connection.exec_driver_sql
        given = ", ".join(value for _, value in types.values())
        execute(f"INSERT INTO things (id, {', '.join(f'o_{name}' for name in types)}) VALUES (1, {given})")
        execute("UPDATE things SET note = 'x'")
        for name in types:
            assert execute(f"SELECT n_{name}::text = o_{name}::text FROM things").scalar_one()
            execute(f"UPDATE things SET n_{name} = NULL")
            assert execute(f"SELECT o_{name} IS NULL FROM things").scalar_one(), name


@pytest.mark.only_on("mysql", "mariadb", "postgresql", "postgresql15")
def test_statements_that_name_no_columns_go_on(database: Database) -> None:
    """New columns are invisible where a server can hide them: a positional INSERT of the old release still fits."""
    with expanded(database, "rename_nullable") as bench:
        bench.connection.exec_driver_sql("INSERT INTO things VALUES (1, '-', 'a')")
        assert row(bench) == {"name": "a", "title": "a"}
        if bench.product in ("mysql", "mariadb"):
            assert len(bench.connection.exec_driver_sql("SELECT * FROM things").one()) == 3


@pytest.mark.only_on("mariadb")
def test_mariadb_behind_a_mysql_url_is_mariadb(database: Database) -> None:
    """SQLAlchemy's dialect name follows the URL; the adapter follows the server."""
    engine = new_engine(database.url.set(drivername="mysql+pymysql"))
    try:
        with engine.connect() as connection:
            assert connection.dialect.name == "mysql"
            assert dialects.choose(connection).profile.product == "mariadb"
    finally:
        engine.dispose()


@pytest.mark.only_on("mysql", "mariadb")
def test_unsigned_integers_may_be_subtracted(database: Database) -> None:
    """A difference of unsigned integers fails on these servers where it is negative."""
    lens = change("o", sa.Column("n", sa.BigInteger()), lambda r: r.o - 5, lambda r: r.n + 5)
    with expanded(database, declared(lambda: [sa.Column("o", mysql.INTEGER(unsigned=True))], lens)) as bench:
        bench.insert([(1, {"o": 3})])
        assert row(bench) == {"o": 3, "n": -2}


@pytest.mark.only_on("sqlite")
def test_sqlites_returning_is_too_early(database: Database) -> None:
    """A limit of AFTER triggers, pinned: RETURNING shows the row from before the sync; the stored row is right."""
    with expanded(database, "rename_nullable") as bench:
        shown = bench.connection.exec_driver_sql(
            "INSERT INTO things (id, name) VALUES (1, 'a') RETURNING title"
        ).scalar_one()
        assert shown is None
        assert row(bench) == {"name": "a", "title": "a"}


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb")
def test_returning_sees_the_synced_row(database: Database) -> None:
    with expanded(database, "rename_nullable") as bench:
        shown = bench.connection.exec_driver_sql("INSERT INTO things (id, name) VALUES (1, 'a') RETURNING title")
        assert shown.scalar_one() == "a"


def test_a_sync_survives_being_planned_from_reflection(database: Database) -> None:
    """What the server tells of a table in its old shape gives the same sync each time it is asked."""
    prints = []
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        scenario = by_name("many_groups")
        product = "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
        create(connection, scenario, product)
        for _ in range(2):
            phases = planned(connection, scenario)
            steps = [step for block in phases.expand if isinstance(block, Hold) for step in block.steps]
            prints.append([step.sync.fingerprint for step in steps if isinstance(step, InstallSync)])
    assert prints[0] == prints[1]
    assert len(prints[0]) == 1


def test_bench_is_not_blind(database: Database) -> None:
    """The harness reads what the server stores, not what was sent."""
    with expanded(database, "rename_nullable") as bench:
        bench.insert([(1, {"name": "a"})])
        bench.connection.exec_driver_sql("UPDATE things SET cf_marker = NULL, title = 'z'")
        values, synced = bench.read()[1]
        assert (values["name"], values["title"], synced) == ("a", "z", False)
        assert isinstance(bench, Bench)
