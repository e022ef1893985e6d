"""Nodes of a Galera cluster are cut off, killed and started again while an upgrade runs. Runs where MariaDB does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.faults import Fault, parse, plan
from contraflow.rehearsal.reach import Way
from contraflow.rehearsal.servers.galera import GaleraCluster
from contraflow.rehearsal.strikes import Striking
from tests.engine import service
from tests.rehearsal.stage import Load, SmallStage
from tests.servers.misread import unless_triggers_are_misread

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[GaleraCluster]:
    with GaleraCluster.start() as started:
        yield started


def values(url: sa.URL, query: str) -> set[tuple[object, ...]]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        return {tuple(row) for row in connection.exec_driver_sql(query)}


def test_nodes_are_lost_and_come_back_while_others_go_on(cluster: GaleraCluster) -> None:
    unless_triggers_are_misread(functools.partial(upgrade_while_nodes_are_lost, cluster))


def upgrade_while_nodes_are_lost(cluster: GaleraCluster) -> None:
    way = Way(cluster, cluster.create_database(), proxy=True)
    engine = sa.create_engine(way.url, poolclass=sa.pool.NullPool)
    service.make_tables(engine, tables=("users",), rows=30)
    stage = SmallStage(
        server=cluster,
        url=way.url,
        urls=way.urls,
        proxies=way.proxies,
        workers=way.workers,
        tables=[(None, "users")],
        upgrade="tests.rehearsal.stage:users_only",
    )
    faults: list[Fault] = [
        parse("node-partitioned@migrate:2+1s"),
        parse("runner-killed@migrate:5"),
        parse("node-killed@migrate:9+1s"),
    ]
    with contextlib.closing(way), stage.injector(*faults) as injector:
        injector.carry_out("expand")
        assert all(values(url, "SELECT count(*) FROM users") == {(30,)} for url in way.urls)  # each has come so far
        with Load(stage=stage, workers=3).running() as load:
            for verb in ("migrate", "verify"):
                injector.carry_out(verb)
        injector.carry_out("contract")
    assert not load.failed, "\n".join(load.failed)
    assert sorted(fault.kind for fault in stage.faults) == sorted(fault.kind for fault in faults)
    assert all("until it is synced" in fault.detail for fault in stage.faults if fault.kind.startswith("node"))
    assert all(node.process is not None and node.process.running for node in cluster.nodes)
    expected = {(n, "Old", f"N{n}") for n in load.written}
    assert expected
    for url in way.urls:
        assert values(url, "SELECT id, first_name, last_name FROM users WHERE id >= 1000") == expected


def test_a_node_that_cannot_follow_makes_the_others_wait(cluster: GaleraCluster) -> None:
    way = Way(cluster, cluster.create_database(), proxy=False)
    engine = sa.create_engine(way.url, poolclass=sa.pool.NullPool)
    service.make_tables(engine, tables=("users",), rows=30)
    stage = SmallStage(server=cluster, url=way.url, urls=way.urls, workers=way.workers, tables=[(None, "users")])
    with contextlib.closing(way), Load(stage=stage, workers=3).running() as load:
        one = Striking(Fault(kind="flow-control", phase="both", share=0.0, seconds=0.7), stage, "0")
        one.join()
    assert load.failed == []
    (fault,) = stage.faults
    assert int(fault.detail.split()[-2]) > 0, fault


def test_what_is_planned_for_a_cluster() -> None:
    kinds = {fault.kind for fault in plan(1, server="galera")}
    assert {"node-killed", "node-partitioned", "commit-lost", "serialization-failed"} <= kinds
    assert "server-killed" not in kinds
