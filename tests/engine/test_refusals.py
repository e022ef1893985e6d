"""What a runner refuses, with which problem, and that nothing is half done then."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.engine import Heartbeat, Progress, Runner, State
from contraflow.engine.connect import unreachable
from contraflow.engine.journal import FORMAT, Journal, Tables
from contraflow.engine.lease import Identity
from contraflow.operations.columns import RenameColumn
from contraflow.operations.planning import Declared, Upgrade
from contraflow.operations.tables import CreateTable
from contraflow.problems import Problem, ProblemError
from tests.engine import service
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

USERS = ("users",)


@pytest.fixture
def users(database: Database) -> Database:
    service.make_tables(database.engine, tables=USERS)
    return database


def refused(runner: Runner, verb: str, **arguments: Any) -> list[Problem]:
    with pytest.raises(ProblemError) as raised:
        getattr(runner, verb)(**arguments)
    return list(raised.value.problems)


def send(database: Database, sql: str, **parameters: Any) -> None:
    with database.engine.begin() as connection:
        service.run(connection, sql, **parameters)


def disagree(database: Database) -> None:
    """Write the old side alone, as a writer without triggers would: the marker tells the sync to look away."""
    send(
        database,
        "UPDATE users SET full_name = 'Other Name', cf_marker = CASE WHEN cf_marker = 1 THEN 2 ELSE 1 END WHERE id = 3",
    )


# -- one runner at a time ---


def test_a_second_runner_is_told_who_the_first_is(users: Database) -> None:
    second = service.runner(users.url, service.upgrade(tables=USERS))
    problems: list[Problem] = []

    def while_the_first_works(_progress: Progress) -> None:
        problems.extend(refused(second, "expand"))
        assert f"process {Identity.mine().pid}" in str(second.status().runner)

    with second, service.runner(users.url, service.upgrade(tables=USERS), progress=while_the_first_works) as first:
        first.expand()
        assert {problem.code for problem in problems} == {"CF001"}
        assert str(Identity.mine().pid) in problems[0].what
        second.expand()
        assert second.status().state is State.EXPANDED


def hold_lease(database: Database, identity: Identity, *, expires_in: float) -> None:
    """Put a holder's row into the journal, as one leaves it that stops without a word."""
    tables = Tables()
    with service.runner(database.url) as runner, database.engine.connect() as connection:
        now = runner.adapter.server_time(connection)
        tables.create(connection)
        connection.execute(sa.delete(tables.lease))
        connection.execute(
            sa.insert(tables.lease).values(
                id=1, owner="somebody", expires=now + expires_in, acquired=now, verb="migrate", **vars(identity)
            )
        )
        connection.commit()


def test_a_living_holder_elsewhere_keeps_the_lock_until_it_runs_out(users: Database) -> None:
    elsewhere = dataclasses.replace(Identity.mine(), boot="another machine", host="elsewhere")
    hold_lease(users, elsewhere, expires_in=1000)
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        (problem,) = refused(runner, "expand")
        assert problem.code == "CF001"
        assert "elsewhere" in problem.what
        assert runner.status().runner is not None
        send(users, "UPDATE contraflow_lease SET expires = expires - 2000")
        runner.expand()
        assert runner.status().state is State.EXPANDED


def test_a_dead_holder_on_this_machine_is_taken_over_at_once(users: Database) -> None:
    mine = Identity.mine()
    hold_lease(users, dataclasses.replace(mine, pid=2**22 + 1, started="1"), expires_in=1000)
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        assert runner.status().runner is None
        runner.expand()
    # The same number, begun at another time: another process.
    hold_lease(users, dataclasses.replace(mine, started="1"), expires_in=1000)
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.migrate()


def test_a_runner_that_lost_the_lock_stops_before_its_next_statement(users: Database) -> None:
    sent_after: list[str] = []
    stolen = threading.Event()

    def after_the_theft(statement: Any) -> None:
        if stolen.is_set():
            sent_after.append(statement.sql)

    def steal(progress: Progress) -> None:
        if not stolen.is_set() and progress.done:
            send(users, "UPDATE contraflow_lease SET owner = 'a thief'")
            stolen.set()

    upgrade = service.upgrade(tables=USERS)
    with service.runner(users.url, upgrade) as runner:
        runner.expand()
    with service.runner(users.url, upgrade, before_statement=after_the_theft, progress=steal) as runner:
        (problem,) = refused(runner, "migrate")
    assert problem.code == "CF001"
    assert sent_after
    assert not [sql for sql in sent_after if sql.lstrip().startswith("UPDATE") and "contraflow_lease" not in sql]


# -- which upgrade ---


def test_a_changed_revision(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.expand()
    before = service.snapshot(users.engine)
    changed = Upgrade(
        old="r0",
        new="r3",
        changes=(
            Declared(revision="r1", operations=(RenameColumn(table="users", old="email", new="mail"),)),
            *service.changes(tables=USERS)[1:],
        ),
    )
    with service.runner(users.url, changed) as runner:
        for verb in ("expand", "migrate", "contract", "rollback", "status"):
            (problem,) = refused(runner, verb)
            assert problem.code == "CF002"
            assert "r1" in problem.what
    assert service.snapshot(users.engine) == before


def test_a_newer_journal(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.expand()
        before = service.snapshot(users.engine)
        send(users, "UPDATE contraflow_journal SET format = :format, library_version = '9.9'", format=FORMAT + 1)
        for verb in ("expand", "migrate", "verify", "contract", "rollback", "status", "plan"):
            (problem,) = refused(runner, verb)
            assert problem.code == "CF003"
            assert "9.9" in problem.instead
        assert [problem.code for problem in runner.check()] == ["CF003"]
    assert service.snapshot(users.engine) == before


def test_another_upgrade_is_open(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.expand()
    other = Upgrade(
        old="r3",
        new="r4",
        changes=(Declared(revision="r4", operations=(RenameColumn(table="users", old="email", new="mail"),)),),
    )
    with service.runner(users.url, other) as runner:
        (problem,) = refused(runner, "expand")
    assert problem.code == "CF005"
    assert "r0:r3" in problem.what


def test_revisions_added_too_late(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade(until=1)) as runner:
        runner.upgrade()
    with service.runner(database.url, service.upgrade(until=2)) as runner:
        (problem,) = refused(runner, "expand")
    assert problem.code == "CF007"
    assert "r2" in problem.what


def test_a_part_is_contracted_already(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade(until=1)) as runner:
        runner.run("contract")
    with service.runner(database.url, service.upgrade(until=2)) as runner:
        (problem,) = refused(runner, "expand")
    assert problem.code == "CF305"


def test_unknown_table_and_column(users: Database) -> None:
    for table, column in (("user", "full_name"), ("users", "fullname")):
        operation = RenameColumn(table=table, old=column, new="name")
        bad = upgrade_of(operation, old="r0")
        with service.runner(users.url, bad) as runner:
            assert [problem.code for problem in runner.check()] == ["CF101"]
            (problem,) = refused(runner, "expand")
            assert problem.code == "CF101"
            assert runner.status().due == "expand"
    assert sa.inspect(users.engine).get_columns("users")[-1]["name"] == "visits"


def test_a_view_is_not_a_table(users: Database) -> None:
    send(users, "CREATE VIEW people AS SELECT id, full_name FROM users")
    rename = RenameColumn(table="people", old="full_name", new="name")
    declared = upgrade_of(rename, old="r0")
    with service.runner(users.url, declared) as runner:
        (problem,) = runner.check()
        assert problem.code == "CF205"
        assert problem.what == "people is a view."
        assert refused(runner, "expand") == [problem]


def test_verbs_that_need_the_declaration(users: Database) -> None:
    with service.runner(users.url) as runner:
        for verb in ("check", "expand", "plan"):
            (problem,) = refused(runner, verb)
            assert problem.code == "CF004"


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_names_that_the_server_would_not_keep_whole(users: Database) -> None:
    with service.runner(users.url) as runner:
        limit, unit = runner.adapter.longest_name or (0, "")
    letter = "ü" if unit == "characters" else "x"
    for length, codes in ((limit + 1, ["CF118"]), (limit, [])):
        column = RenameColumn(table="users", old="visits", new=letter * length)
        declared = upgrade_of(column, old="r0")
        with service.runner(users.url, declared) as runner:
            assert [problem.code for problem in runner.check()] == codes
            if codes:
                assert [problem.code for problem in refused(runner, "expand")] == codes
            else:
                runner.run("contract")
                assert column.new in {found["name"] for found in sa.inspect(users.engine).get_columns("users")}


@pytest.mark.only_on("postgresql", "mysql")
def test_names_in_a_new_table_that_the_server_would_not_keep_whole(users: Database) -> None:
    long = "x" * 65
    columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column(f"{long}c", sa.Integer)
    unique = sa.UniqueConstraint(f"{long}c", name=f"{long}u")
    create = CreateTable(definition=sa.Table("people", sa.MetaData(), *columns, unique))
    declared = upgrade_of(create, old="r0")
    with service.runner(users.url, declared) as runner:
        found = [problem.what.split()[5] for problem in runner.check() if problem.code == "CF118"]
    assert found == ["column", "constraint"]


# -- rows that differ ---


@pytest.mark.parametrize(("side", "name"), [("old", "Other Name"), ("new", "First3 Last3")])
def test_drift_is_shown_refused_and_repaired(users: Database, side: Any, name: str) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.upgrade()
        disagree(users)
        for verb in ("verify", "contract"):
            (problem,) = refused(runner, verb)
            assert problem.code == "CF012"
            assert "1 row" in problem.what
            assert "Other Name" in problem.what
            assert runner.status().state is State.MIGRATED
        assert runner.repair("users", side) == 1
        assert runner.repair("users", side) == 0
        runner.verify()
        with users.engine.connect() as connection:
            row = connection.execute(sa.text("SELECT full_name, first_name, last_name FROM users WHERE id = 3")).one()
        assert tuple(row) == (name, *name.split(" "))
        runner.contract()


def test_repair_of_an_unknown_table(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        (problem,) = refused(runner, "repair", table="users", side="old")
        assert problem.code == "CF004"
        runner.upgrade()
        (problem,) = refused(runner, "repair", table="nobody", side="old")
        assert problem.code == "CF101"


def test_a_row_written_past_the_sync_is_found_and_filled(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.upgrade()
        send(users, "UPDATE users SET cf_marker = NULL, first_name = NULL, last_name = NULL WHERE id = 4")
        problems = refused(runner, "verify")
        assert [problem.code for problem in problems] == ["CF012", "CF013", "CF013"]
        assert "never synced" in problems[0].what
        runner.migrate()
        runner.verify()


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_null_behind_the_last_look_is_told_at_once(users: Database) -> None:
    """By the proof, which is no lock to be tried for again, and which leaves nothing that would refuse a row."""
    done: list[str] = []

    def told(progress: Progress) -> None:
        if progress.title.startswith("prove NOT NULL") and not done:
            done.append(progress.title)
            send(users, "UPDATE users SET first_name = NULL, cf_marker = 3 WHERE id = 3")

    with service.runner(users.url, service.upgrade(tables=USERS), progress=told) as runner:
        runner.upgrade()
        assert [problem.code for problem in refused(runner, "contract")] == ["CF012", "CF013"]
        assert done
        assert runner.status().pending is None
        with users.engine.connect() as connection:
            left = "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = CAST('users' AS regclass)"
            assert connection.execute(sa.text(left)).scalar() == 0
        send(users, "UPDATE users SET first_name = 'First3', cf_marker = 1 WHERE id = 3")
        runner.contract()
        assert runner.status().state is State.CONTRACTED


def test_a_missing_trigger(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.upgrade()
        with users.engine.begin() as connection:
            trigger = next(iter(runner.adapter.find(connection, "users", None).triggers))
            on = " ON users" if connection.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
        for verb in ("verify", "contract"):
            (problem,) = refused(runner, verb)
            assert problem.code == "CF008"
            assert trigger in problem.what
        runner.rollback()


# -- nodes ---


def announce(database: Database, release: str) -> None:
    with database.engine.begin() as connection:
        with service.runner(database.url) as runner:
            now = runner.adapter.server_time(connection)
        connection.execute(
            sa.insert(Tables().node).values(
                id=f"node-{release}",
                name=f"node of {release}",
                release=release,
                host="h",
                pid=1,
                started=now,
                seen=now,
                library_version="1",
            )
        )


@pytest.mark.parametrize("release", ["r0", "something else"])
def test_contract_waits_for_nodes_that_may_be_old(users: Database, release: str) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.upgrade()
        announce(users, "r3")
        assert runner.status().due == "contract"
        announce(users, release)
        assert (runner.status().due, runner.status().exit_code) == ("roll", 0)
        (problem,) = refused(runner, "contract")
        assert problem.code == "CF401"
        assert release in problem.what
        assert runner.status().pending is None
        runner.contract(force="it is a leftover of a test")
        assert runner.status().state is State.CONTRACTED
    journal = Journal(tables=Tables(), runner="")
    with users.engine.connect() as connection:
        events = journal.events(connection, journal.entries(connection)[0])
    (forced,) = [event for event in events if event.kind == "forced"]
    assert "leftover" in (forced.detail or "")


def test_rollback_waits_for_nodes_that_may_be_new(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.upgrade()
        announce(users, "r0")
        announce(users, "r3")
        (problem,) = refused(runner, "rollback")
        assert problem.code == "CF401"
        runner.forget_node("node-r3")
        (problem,) = refused(runner, "forget_node", node="node-r3")
        assert problem.code == "CF402"
        runner.rollback()


def test_a_node_whose_heartbeat_is_old_is_dead(users: Database) -> None:
    with service.runner(users.url, service.upgrade(tables=USERS)) as runner:
        runner.upgrade()
        announce(users, "r0")
        send(users, "UPDATE contraflow_node SET seen = seen - 31")
        (node,) = runner.nodes()
        assert (node.alive, node.side) == (False, "old")
        runner.contract()


# -- the way to the server ---


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://app:s3cret@127.0.0.1:1/x",
        "mysql+pymysql://app:s3cret@127.0.0.1:1/x",
        "sqlite:////nowhere/at/all.db",
    ],
)
def test_unreachable(url: str) -> None:
    with Runner(url) as runner:
        (problem,) = refused(runner, "status")
    assert problem.code == "CF201"
    assert "s3cret" not in str(problem)


@pytest.mark.parametrize(
    "reason",
    [
        'connection to server at "127.0.0.1", port 5432 failed: FATAL:  connection requires a valid client certificate',
        'connection to server at "127.0.0.1", port 5432 failed: FATAL:  certificate authentication failed for user "x"',
        "no certificate at all",
    ],
)
def test_a_certificate_that_is_not_carried_over(reason: str) -> None:
    """As PostgreSQL 15 and libpq 15 say it; an SSLContext of asyncpg shows its own certificate to nobody."""
    error = sa.exc.OperationalError("", None, Exception(reason))
    (problem,) = unreachable(sa.make_url("postgresql+asyncpg://x@127.0.0.1/x"), error).problems
    assert problem.code == "CF201"
    assert ("PGSSLCERT" in problem.instead) is reason.startswith("connection")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_memory(url: str) -> None:
    with pytest.raises(ProblemError) as raised:
        Runner(url)
    assert raised.value.problems[0].code == "CF203"
    Heartbeat(sa.create_engine("sqlite://"), release="r0").stop()


def test_not_a_url() -> None:
    with pytest.raises(ProblemError) as raised:
        Runner("s3cret at nowhere")
    assert raised.value.problems[0].code == "CF201"
    assert "s3cret" not in str(raised.value)
