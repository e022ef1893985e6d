"""A node of a Galera cluster is cut off, and killed, while an upgrade runs on the others. Runs where MariaDB does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.faults import Fault, parse, plan
from contraflow.rehearsal.servers.galera import GaleraCluster
from tests.engine import service
from tests.rehearsal.stage import Load, SmallStage

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]


@pytest.fixture
def cluster() -> Iterator[GaleraCluster]:
    with GaleraCluster.start() as started:
        yield started


def values(url: sa.URL, query: str) -> set[tuple[object, ...]]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION wsrep_sync_wait = 15")
        return {tuple(row) for row in connection.exec_driver_sql(query)}


def test_a_node_is_cut_off_and_comes_back_and_then_is_killed(cluster: GaleraCluster) -> None:
    urls = cluster.create_database()
    engine = sa.create_engine(urls[0], poolclass=sa.pool.NullPool)
    service.make_tables(engine, tables=("users",), rows=30)
    stage = SmallStage(
        server=cluster.nodes[0],
        url=urls[0],
        nodes=cluster.nodes,
        elsewhere=urls[1],
        tables=[(None, "users")],
        upgrade="tests.rehearsal.stage:users_only",
    )
    faults: list[Fault] = [
        parse("node-partitioned@expand:2+1s"),
        parse("runner-killed@migrate:5"),
        parse("node-killed@migrate:9"),
    ]
    with stage.injector(*faults) as injector:
        with Load(stage=stage, workers=2).running() as load:
            injector.carry_out("expand")
            written = set(load.written)
            # What was written while it was cut off has reached the node since.
            assert written
            assert {(n,) for n in written} <= values(urls[2], "SELECT id FROM users")
            injector.carry_out("migrate")
            injector.carry_out("verify")
        injector.carry_out("contract")
    assert load.failed == []
    assert [fault.kind for fault in stage.faults] == [fault.kind for fault in faults]
    assert "until it is synced again" in stage.faults[0].detail
    assert cluster.nodes[2].process is not None
    assert not cluster.nodes[2].process.running
    expected = {(n, "Old", f"N{n}") for n in load.written}
    for url in urls[:2]:
        assert values(url, "SELECT id, first_name, last_name FROM users WHERE id >= 1000") == expected


def test_what_is_planned_for_a_cluster() -> None:
    kinds = {fault.kind for fault in plan(1, server="galera")}
    assert {"node-killed", "node-partitioned", "commit-lost"} <= kinds
    assert "server-killed" not in kinds
