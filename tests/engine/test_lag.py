"""A backfill that watches its replicas."""

from __future__ import annotations

import contextlib
import time

import pytest
import sqlalchemy as sa

from contraflow.engine import Options, Progress, State
from contraflow.engine.lag import Replicas
from contraflow.problems import ProblemError
from contraflow.rehearsal import servers
from tests.engine import service
from tests.servers.shared import Database

USERS = ("users",)


@pytest.mark.only_on("sqlite")
def test_a_backfill_pauses_while_replication_is_behind(database: Database) -> None:
    service.make_tables(database.engine, tables=USERS)
    lags = [30.0, float("inf"), 5.1, 5.0]
    slept: list[float] = []
    told: list[Progress] = []
    options = Options(lock_timeout=0.2, batch_size=4, max_batch_size=4, max_lag=5)
    with service.runner(
        database.url,
        service.upgrade(tables=USERS),
        options=options,
        sleep=slept.append,
        progress=told.append,
        lag=lambda: lags.pop(0) if len(lags) > 1 else lags[0],
    ) as runner:
        runner.expand()
        assert len(lags) == 4  # only data phases look
        runner.migrate()
        assert runner.status().state is State.MIGRATED
    assert len(slept) == 3
    waits = [progress for progress in told if progress.title == "wait for replication"]
    assert [wait.message for wait in waits[:3]] == [
        "a replica is 30 s behind",
        "a replica does not answer or replicate",
        "a replica is 5 s behind",
    ]
    assert [wait.finished for wait in waits] == [False, False, False, True]


def test_a_server_that_is_no_replica(database: Database) -> None:
    url = database.url.render_as_string(hide_password=False)
    replicas = Replicas([url])
    with pytest.raises(ProblemError, match=r"CF205: .* is not a replica"):
        replicas.lag()
    replicas.close()
    service.make_tables(database.engine, tables=USERS)
    options = Options(replicas=(url,))
    assert url not in repr(options)
    with service.runner(database.url, service.upgrade(tables=USERS), options=options) as runner:
        runner.expand()
        with pytest.raises(ProblemError, match="CF205"):
            runner.migrate()


REPLICATE = {
    "mariadb": (
        "SHOW MASTER STATUS",
        (
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='copy', MASTER_PASSWORD='pw',"
            " MASTER_LOG_FILE='{File}', MASTER_LOG_POS={Position}"
        ),
    ),
    "mysql": (
        "SHOW BINARY LOG STATUS",
        (
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='copy',"
            " SOURCE_PASSWORD='pw', GET_SOURCE_PUBLIC_KEY=1, SOURCE_LOG_FILE='{File}', SOURCE_LOG_POS={Position}"
        ),
    ),
}


@pytest.mark.only_on("mariadb", "mysql")
def test_a_replica_tells_how_far_it_is_behind(server: servers.Server) -> None:
    show, change = REPLICATE[server.kind]
    log = {"mariadb": "on", "mysql": "binlog"}[server.kind]
    with contextlib.ExitStack() as stack:
        settings = {"server_id": "1", "log_bin": log}, {"server_id": "2"}
        urls = [stack.enter_context(servers.start(server.kind, settings=one)).create_database() for one in settings]
        primary, replica = (
            stack.enter_context(sa.create_engine(url, isolation_level="AUTOCOMMIT").connect()) for url in urls
        )
        primary.exec_driver_sql("CREATE USER copy@'127.0.0.1' IDENTIFIED BY 'pw'")
        primary.exec_driver_sql("GRANT REPLICATION SLAVE ON *.* TO copy@'127.0.0.1'")
        place = primary.exec_driver_sql(show).mappings().one()
        replica.exec_driver_sql(change.format(port=urls[0].port, **place))
        replicas = Replicas([urls[1].render_as_string(hide_password=False)])
        assert replicas.lag() == float("inf")  # it does not replicate
        replica.exec_driver_sql("START REPLICA")
        deadline = time.monotonic() + 300
        while replicas.lag() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert replicas.lag() == 0
        replica.exec_driver_sql("STOP REPLICA")
        assert replicas.lag() == float("inf")
        replicas.close()


def test_a_replica_that_was_never_reached() -> None:
    with pytest.raises(ProblemError, match="CF201"):
        Replicas(["postgresql+psycopg://app:s3cret@127.0.0.1:1/x"]).lag()
    assert Replicas([]).lag() == 0
