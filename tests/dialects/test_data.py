"""The backfill's ranges and the verification's counts, over every kind of key."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.dialects.base import Adapter
from contraflow.steps import Backfill, Probe
from tests.dialects.support import MARKER, RENAME, Case, connected, fill, probe, rows, run, send
from tests.servers.shared import Database

KEYS: dict[str, tuple[list[sa.Column[Any]], list[tuple[Any, ...]]]] = {
    "integer": ([sa.Column("id", sa.Integer)], [(number,) for number in (-5, 0, 1, 2, 7, 100, 101)]),
    "text": ([sa.Column("code", sa.String(20))], [(text,) for text in ("", "Ab", "b", "c:d", "e%f", "ä", "zz")]),
    "pair": (
        [sa.Column("a", sa.Integer), sa.Column("b", sa.String(20))],
        [(number, text) for number in (1, 2, 3) for text in ("x", "y", "z")],
    ),
    "triple": (
        [sa.Column("a", sa.Integer), sa.Column("b", sa.Integer), sa.Column("c", sa.Integer)],
        list(itertools.product((1, 2), (1, 2), (1, 2, 3))),
    ),
    "time": ([sa.Column("at", sa.DateTime)], [(dt.datetime(2026, 1, day),) for day in range(1, 8)]),  # noqa: DTZ001
    "none": ([], [() for _ in range(7)]),
}


def make(connection: sa.Connection, kind: str) -> tuple[Case, int]:
    """A table with that key and its rows."""
    columns, keys = KEYS[kind]
    metadata = sa.MetaData()
    table = sa.Table(
        "users",
        metadata,
        *(sa.Column(column.name, column.type, primary_key=True, autoincrement=False) for column in columns),
        sa.Column("fullname", sa.String(60), nullable=False),
    )
    metadata.create_all(connection)
    names = [column.name for column in columns]
    for key in keys:
        connection.execute(table.insert(), {**dict(zip(names, key, strict=True)), "fullname": f"name {key}"})
    return Case(lens=RENAME, key=tuple(names)), len(keys)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_batches_cover_every_row_once(database: Database, kind: str, limit: int) -> None:
    with connected(database.engine) as (connection, adapter):
        case, count = make(connection, kind)
        run(connection, adapter, case.expand)
        written = fill(connection, adapter, case, limit)
        assert sum(written) == count
        assert max(written) <= limit
        found = rows(connection, adapter, case, ("fullname", "display_name"))
        assert len(found) == count
        assert all(old == new for old, new in found)
        assert set(probe(connection, adapter, case).values()) == {0}
        # Rows that are synced are passed over.
        assert sum(fill(connection, adapter, case, limit)) == 0


@pytest.mark.parametrize("kind", ["integer", "pair", "none"])
def test_an_empty_table_needs_no_batch(database: Database, kind: str) -> None:
    with connected(database.engine) as (connection, adapter):
        case, _ = make(connection, kind)
        send(connection, "DELETE FROM users")
        run(connection, adapter, case.expand)
        assert sum(fill(connection, adapter, case)) == 0


def test_a_range_reads_the_index_from_where_it_begins(database: Database) -> None:
    """Not a scan of the whole table for each batch, which would make the backfill quadratic."""
    with connected(database.engine) as (connection, adapter):
        metadata = sa.MetaData()
        table = sa.Table(
            "users",
            metadata,
            sa.Column("a", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("b", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("fullname", sa.String(60), nullable=False),
        )
        metadata.create_all(connection)
        # A first column that tells little, as the tenant in a key.
        values = [{"a": number // 4000, "b": number % 4000, "fullname": "x"} for number in range(5000)]
        connection.execute(table.insert(), values)
        send(
            connection, {"sqlite": "ANALYZE", "postgresql": "ANALYZE users"}.get(adapter.product, "ANALYZE TABLE users")
        )
        case = Case(lens=RENAME, key=("a", "b"))
        run(connection, adapter, case.expand)
        text = adapter.backfill(Backfill(sync=case.sync), adapter.find(connection, "users", None))
        assert text.bound is not None
        parameters = {"k0": 0, "k1": 3500, "u0": 0, "u1": 3510}
        assert _rows_read(connection, adapter, text.bound, {**parameters, "limit": 10}) <= 200
        assert _rows_read(connection, adapter, text.fill, parameters) <= 200


def _rows_read(connection: sa.Connection, adapter: Adapter, sql: str, parameters: dict[str, int]) -> int:
    """How many rows the server looks at, or for SQLite 0 for a search of the index and a million for a scan."""
    for name in sorted(parameters, reverse=True):
        sql = sql.replace(f":{name}", str(parameters[name]))
    if adapter.product == "sqlite":
        plan = " ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
        return 0 if "SEARCH users USING" in plan and "(a,b)" in plan else 1_000_000
    if adapter.product == "postgresql":
        send(connection, "BEGIN")
        plans = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}").scalar_one()
        send(connection, "ROLLBACK")
        return _read_by(plans[0]["Plan"])
    send(connection, "FLUSH STATUS", "START TRANSACTION", sql.replace("\\:", ":"))
    handlers = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
    send(connection, "ROLLBACK")
    return sum(int(value) for name, value in handlers if name != "Handler_read_rnd_next" or int(value) > 100)


def _read_by(plan: dict[str, Any]) -> int:
    own = 0
    if "Relation Name" in plan:
        own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return int(own + sum(_read_by(child) for child in plan.get("Plans", [])))


def test_a_verification_counts_and_shows_what_is_wrong(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        case, count = make(connection, "integer")
        run(connection, adapter, case.expand)
        title = "fullname -> display_name"
        assert probe(connection, adapter, case) == {"unsynced": count, title: 0, "display_name": count}
        fill(connection, adapter, case)
        # Drift, by a writer that the triggers do not see: the marker changes with it, as if the sync had written.
        send(connection, f"UPDATE users SET display_name = 'NAME', {MARKER} = 2 WHERE id IN (1, 2)")
        send(connection, f"UPDATE users SET display_name = NULL, {MARKER} = 2 WHERE id = 7")
        assert probe(connection, adapter, case) == {"unsynced": 0, title: 3, "display_name": 1}
        text = adapter.probe(Probe(sync=case.sync))
        shown = connection.execute(sa.text(dict(text.show)[title]), {"limit": 2}).mappings().all()
        assert len(shown) == 2
        assert set(shown[0]) == {"id", "fullname", "display_name"}
        assert {row["id"] for row in shown} <= {1, 2, 7}


def test_a_difference_in_case_or_in_trailing_spaces_is_one(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        case, _ = make(connection, "integer")
        run(connection, adapter, case.expand)
        fill(connection, adapter, case)
        send(
            connection,
            f"UPDATE users SET display_name = upper(display_name), {MARKER} = 2 WHERE id = 1",
            f"UPDATE users SET display_name = concat(display_name, ' '), {MARKER} = 2 WHERE id = 2"
            if adapter.product != "sqlite"
            else f"UPDATE users SET display_name = display_name || ' ', {MARKER} = 2 WHERE id = 2",
        )
        assert probe(connection, adapter, case)["fullname -> display_name"] == 2


def test_the_estimate_is_a_number(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        case, count = make(connection, "integer")
        run(connection, adapter, case.expand)
        text = adapter.backfill(Backfill(sync=case.sync), adapter.find(connection, "users", None))
        if adapter.product == "postgresql":
            assert connection.execute(sa.text(text.estimate)).scalar_one() >= 0  # -1 before the first ANALYZE
            send(connection, "ANALYZE users")
        if adapter.product in ("mysql", "mariadb"):
            send(connection, "ANALYZE TABLE users")
            send(connection, *(["SET information_schema_stats_expiry = 0"] if adapter.product == "mysql" else []))
        assert connection.execute(sa.text(text.estimate)).scalar_one() == count
        assert connection.execute(sa.text(text.remaining)).scalar_one() == count


def test_the_clock_is_the_servers_and_in_utc(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        now = dt.datetime.now(dt.timezone.utc).timestamp()
        if adapter.product == "postgresql":
            send(connection, "SET timezone = 'Asia/Tokyo'")
        elif adapter.product != "sqlite":
            send(connection, "SET time_zone = '+09:00'")
        assert abs(adapter.server_time(connection) - now) < 600  # a zone would be hours


def test_the_backfill_leaves_alone_what_the_server_would_change_by_itself(database: Database) -> None:
    if database.kind not in ("mysql", "mariadb"):
        statement = "changed TIMESTAMP NULL"
    else:
        statement = "changed TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP"
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            f"CREATE TABLE users (id INTEGER PRIMARY KEY, fullname VARCHAR(60) NOT NULL, {statement})",
            "INSERT INTO users VALUES (1, 'Ada', '2001-02-03 04:05:06')",
        )
        case = Case(lens=RENAME)
        run(connection, adapter, case.expand)
        assert fill(connection, adapter, case) == [1]
        ((changed, name),) = rows(connection, adapter, case, ("changed", "display_name"))
        assert str(changed).startswith("2001-02-03 04:05:06")
        assert name == "Ada"


def test_a_batch_waits_for_a_row_no_longer_than_the_timeout(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        case, count = make(connection, "integer")
        run(connection, adapter, case.expand)
        with database.engine.begin() as other:
            if adapter.product == "sqlite":
                other.exec_driver_sql("BEGIN IMMEDIATE")
            other.exec_driver_sql("UPDATE users SET fullname = 'held' WHERE id = 1")
            with pytest.raises(Exception) as caught:  # noqa: PT011 - asked below
                fill(connection, adapter, case, 100)
            assert adapter.is_lock_timeout(caught.value)
        assert sum(fill(connection, adapter, case, 100)) == count - 1
