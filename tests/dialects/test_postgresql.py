"""What only PostgreSQL has: one lock for a hold, proofs of NOT NULL, roles and row-level security."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow.dialects.base import Violated
from contraflow.problems import ProblemError
from contraflow.steps import Hold, RemoveSync
from tests.dialects.support import RENAME, TIMEOUT, Case, connected, fill, rows, run, run_online, send
from tests.servers.shared import Database

pytestmark = pytest.mark.only_on("postgresql", "postgresql15")

CASE = Case(lens=RENAME)
CREATE = "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, fullname VARCHAR(60) NOT NULL)"


def test_a_hold_takes_the_strongest_lock_first(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        with adapter.holding(connection, CASE.expand, TIMEOUT):
            held = connection.exec_driver_sql(
                "SELECT mode FROM pg_locks WHERE relation = CAST('users' AS regclass) AND granted"
            ).scalars()
            assert set(held) == {"AccessExclusiveLock"}
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == f"{int(TIMEOUT * 1000)}ms"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"


def test_no_statement_of_an_online_step_keeps_writers_out(database: Database) -> None:
    with connected(database.engine) as (connection, adapter), database.engine.connect() as writer:
        send(connection, CREATE, "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        run(connection, adapter, CASE.expand)
        fill(connection, adapter, CASE)
        add, validate = adapter.online(CASE.enforce, adapter.find(connection, "users", None))
        adapter.send(connection, add)
        # A row that the constraint was added beside, and an open writer: neither disturbs the validation.
        writer.exec_driver_sql("UPDATE users SET fullname = 'Ada!'")
        with adapter.running_online(connection, TIMEOUT):
            adapter.send(connection, validate)
        writer.commit()
        assert adapter.online(CASE.enforce, adapter.find(connection, "users", None)) == []
        proven, *_ = adapter.hold(CASE.contract, adapter.find(connection, "users", None))
        assert "SET NOT NULL" in proven.sql
        assert "whole table" not in proven.lock
        send(connection, f"ALTER TABLE users DROP CONSTRAINT {validate.sql.rpartition(' ')[2]}")
        unproven, *_ = adapter.hold(CASE.contract, adapter.find(connection, "users", None))
        assert "whole table" in unproven.lock


def test_an_online_step_gone_on_with_after_each_statement(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        for count in range(3):
            send(connection, "DROP TABLE IF EXISTS users", "DROP FUNCTION IF EXISTS cf_users", CREATE)
            run(connection, adapter, CASE.expand)
            for statement in adapter.online(CASE.enforce, adapter.find(connection, "users", None))[:count]:
                adapter.send(connection, statement)
            run_online(connection, adapter, CASE.enforce)
            run(connection, adapter, CASE.contract)
            left = connection.exec_driver_sql(
                "SELECT conname FROM pg_constraint WHERE conrelid = CAST('users' AS regclass) AND contype = 'c'"
            ).all()
            assert left == []


def test_a_null_is_found_by_the_proof_and_not_by_the_hold(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE, "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        run(connection, adapter, CASE.expand)
        with pytest.raises(Violated):
            run_online(connection, adapter, CASE.enforce)
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"


def test_limits_that_a_role_sets_for_applications_do_not_hold(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, "SET statement_timeout = '1h'", "SET standard_conforming_strings = off")
        adapter.prepare(connection)
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert connection.exec_driver_sql("SHOW standard_conforming_strings").scalar() == "on"
        assert connection.exec_driver_sql("SHOW timezone").scalar() == "UTC"


def test_a_function_without_triggers_is_replaced(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        run(connection, adapter, CASE.expand)
        send(connection, "DROP TRIGGER cf_users_i ON users", "DROP TRIGGER cf_users_u ON users")
        run(connection, adapter, CASE.expand)
        send(connection, "INSERT INTO users (id, fullname) VALUES (1, 'Ada')")
        assert rows(connection, adapter, CASE, ("display_name",)) == [("Ada",)]
        send(connection, "DROP TRIGGER cf_users_i ON users", "DROP TRIGGER cf_users_u ON users")
        run(connection, adapter, CASE.rollback)
        assert "cf_users" not in adapter.find(connection, "users", None).details["functions"]


def test_a_partitioned_table_is_upgraded_as_one(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            f"{CREATE} PARTITION BY RANGE (id)",
            "CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE users_2 PARTITION OF users FOR VALUES FROM (10) TO (20)",
            "INSERT INTO users (id, fullname) VALUES (1, 'Ada'), (11, 'Cher')",
        )
        assert adapter.preflight(connection, [(None, "users")]) == []
        assert [problem.code for problem in adapter.preflight(connection, [(None, "users_1")])] == ["CF205"]
        run(connection, adapter, CASE.expand)
        send(connection, "INSERT INTO users_2 (id, fullname) VALUES (12, 'Direct')")
        assert sum(fill(connection, adapter, CASE)) == 2
        run_online(connection, adapter, CASE.enforce)
        run(connection, adapter, CASE.contract)
        assert rows(connection, adapter, CASE, ("id", "display_name")) == [(1, "Ada"), (11, "Cher"), (12, "Direct")]


def test_preflight_names_what_cannot_work(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        role = f"few_{database.url.database}"
        send(
            connection,
            CREATE,
            "CREATE TABLE parent (id INTEGER)",
            "CREATE TABLE child () INHERITS (parent)",
            "CREATE VIEW seen AS SELECT id FROM users",
            "CREATE TABLE secret (id INTEGER)",
            "ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            f"CREATE ROLE {role}",
            f"ALTER TABLE secret OWNER TO {role}",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        )
        try:
            assert adapter.preflight(connection, [(None, "users"), (None, "missing"), (None, "child")]) == []
            for table in ("parent", "seen"):
                assert [problem.code for problem in adapter.preflight(connection, [(None, table)])] == ["CF205"]
            send(connection, "SET default_transaction_read_only = on")
            assert [problem.code for problem in adapter.preflight(connection)] == ["CF205"]
            send(connection, "SET default_transaction_read_only = off")
            send(
                connection, f"CREATE ROLE {role}_owner", f"ALTER TABLE child OWNER TO {role}_owner", f"SET ROLE {role}"
            )
            (owned, *_) = map(str, adapter.preflight(connection, [(None, "child")]))
            found = [str(problem) for problem in adapter.preflight(connection, [(None, "users"), (None, "secret")])]
            send(connection, "RESET ROLE")
        finally:
            send(connection, "RESET ROLE", f"DROP OWNED BY {role}, {role}_owner", f"DROP ROLE {role}, {role}_owner")
        assert f'GRANT "{role}_owner" TO "{role}"' in owned
        assert [text[:5] for text in found] == ["CF202"] * 4
        assert "does not own users" in found[0]
        # The owner is a superuser, whose role nobody should be granted.
        assert f'ALTER TABLE "users" OWNER TO "{role}"' in found[0]
        assert "GRANT" not in found[0]
        assert "may not create functions in the schema public" in found[1]
        assert "BYPASSRLS" in found[3]


def test_a_comment_is_kept(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        expand = CASE.expand
        expand.steps[0].columns[0].column.comment = "it's \\ 100%"  # type: ignore[union-attr]
        run(connection, adapter, expand)
        comment = connection.exec_driver_sql(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute"
            " WHERE attrelid = CAST('users' AS regclass) AND attname = 'display_name'"
        ).scalar()
        assert comment == "it's \\ 100%"


def test_an_empty_removal_leaves_a_foreign_function_alone(database: Database) -> None:
    with connected(database.engine) as (connection, adapter):
        send(
            connection,
            CREATE,
            "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        )
        found = adapter.find(connection, "users", None)
        removal = RemoveSync(table="users", name="other", marker="m")
        assert adapter.hold(Hold(title="remove", table="users", steps=(removal,)), found) == []


def test_a_column_of_an_enumerated_type_needs_the_type(database: Database) -> None:
    case = Case(lens=RENAME, types={"display_name": sa.Enum("Ada", "Grace", name="people")})
    with connected(database.engine) as (connection, adapter):
        send(connection, CREATE)
        with pytest.raises(ProblemError, match="CF116"):
            run(connection, adapter, case.expand)
        send(connection, "CREATE TYPE people AS ENUM ('Ada', 'Grace')")
        run(connection, adapter, case.expand)
        assert adapter.find(connection, "users", None).columns["display_name"] is True
        run(connection, adapter, case.rollback)
