"""What of a rehearsal on CockroachDB its double can answer: PostgreSQL behind CockroachDB's manners."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from contraflow.rehearsal import servers
from contraflow.rehearsal.faults import Fault, left_out
from contraflow.rehearsal.reach import Way, find, flavour
from contraflow.rehearsal.strikes import Striking
from tests.engine import service
from tests.faults.cockroachdb_double import RETRY, VERSION, CockroachDouble
from tests.rehearsal.stage import Load, SmallStage
from tests.rehearsal.test_strikes import eventually

pytestmark = pytest.mark.only_on("postgresql")
WORDS = {
    b"pg_catalog.version()": b"'" + VERSION + b"'",
    b"version()": b"'" + VERSION + b"'",
    b" CASCADE": b" WITH (FORCE)",
}


@pytest.fixture
def double(server: servers.Server) -> Iterator[CockroachDouble]:
    with CockroachDouble(server.address, WORDS) as started:
        yield started


def url_of(server: servers.Server, double: CockroachDouble) -> str:
    url = server.address.set(drivername="cockroachdb+psycopg", port=double.port)
    return url.render_as_string(hide_password=False)


def test_it_is_known_by_what_it_says_and_its_databases_are_made_and_dropped(
    server: servers.Server, double: CockroachDouble
) -> None:
    found = find("cockroachdb", url_of(server, double), print)
    assert (found.kind, found.version) == ("cockroachdb", "25.2.2")
    made = found.create_database()
    found.drop_database(made)
    assert double.log[-1] == f"DROP DATABASE IF EXISTS {made.database} CASCADE"
    assert set(left_out(["server-killed", "worker-cut", "node-killed"], server=found.kind, ours=False)) == {
        "server-killed",
        "node-killed",
    }


def test_commits_that_lose_a_conflict_are_made_again(server: servers.Server, double: CockroachDouble) -> None:
    found = find("cockroachdb", url_of(server, double), print)
    url = found.create_database()
    plain = sa.create_engine(server.url(str(url.database)), poolclass=sa.pool.NullPool)
    service.make_tables(plain, tables=("users",), rows=5)
    # What CockroachDB's crdb_internal.force_error does.
    double.refuse(r"crdb_internal\.force_error\('40001'", "40001", RETRY + "(injected)", times=10_000)
    way = Way(found, url, proxy=True)
    stage = SmallStage(server=found, url=url, proxies=way.proxies, workers=way.workers, tables=[(None, "users")])
    assert flavour(found, url) == "cockroachdb"
    try:
        with Load(stage=stage).running() as load:
            eventually(lambda: len(load.written) >= 3, "they work")
            one = Striking(Fault(kind="serialization-failed", phase="both", share=0.0, seconds=600.0), stage, "0")
            # The server behind, too, may refuse some: the sessions are SERIALIZABLE.
            eventually(lambda: min(load.retried["serialization"], double.refused) > 2, "commits are refused")
            one.stop()
            more = len(load.written)
            eventually(lambda: len(load.written) > more + 3, "they go on")
    finally:
        way.close()
    assert load.failed == []
    with plain.connect() as connection:
        rows = connection.exec_driver_sql("SELECT id FROM users WHERE id >= 1000").scalars().all()
    assert sorted(rows) == sorted(load.written)
    found.drop_database(url)
