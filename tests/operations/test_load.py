"""Every life under load: no statement of either release fails because of an upgrade, and no value is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.dialects.support import connected
from tests.operations.lives import LIVES, TABLE, Life, create, runner, send
from tests.operations.load import Load
from tests.servers.shared import Database

REQUESTS = {"sqlite": 4_000}
"""SQLite has one writer at a time, and each request is a transaction: as many as it gives in the others' time."""
MOST = 20_000


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_life_under_load(database: Database, life: Life, pytestconfig: pytest.Config) -> None:
    requests = pytestconfig.getoption("load_requests") or REQUESTS.get(database.kind, MOST)
    create(database.engine, life.old, life.parents)
    send(database.engine, life.seed)
    load = Load(database, life)
    began = time.monotonic()
    try:
        with runner(database, life) as run:
            load.begin("old")
            load.until(requests * 0.1)
            with load.during("expand"):
                run.expand()
            load.until(requests * 0.25)
            with load.during("migrate"):
                run.migrate()
            load.both_shapes = True
            load.begin("new")
            load.until(requests * 0.5)
            with load.during("verify"):
                run.verify()
            load.until(requests * 0.7)
            load.end("old")
            load.check("old", {name: name for name in load.shapes["old"]})
            load.check("old", load.renamed)
            load.read_new_shape_only()
            with load.during("contract"):
                run.contract()
            load.until(requests)
    finally:
        for release in ("old", "new"):
            load.end(release)
    load.check("old", load.renamed)
    load.check("new", {name: name for name in load.shapes["new"]})
    result = load.result
    result.requests = sum(writer.requests for writer in load.writers)
    result.seconds = time.monotonic() - began
    if where := pytestconfig.getoption("load_results"):
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(result.as_dict())}\n")
    assert result.failed == []
    assert result.lost == []
    assert result.requests >= requests


def test_the_load_notices_a_sync_that_is_gone(database: Database) -> None:
    life = LIVES[0]
    create(database.engine, life.old, life.parents)
    load = Load(database, life)
    with runner(database, life) as run:
        run.expand()
        run.migrate()
    with connected(database.engine) as (connection, adapter):
        on = f" ON {TABLE}" if database.kind.startswith("postgresql") else ""
        for trigger in adapter.find(connection, TABLE, None).triggers:
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
    load.both_shapes = True
    load.begin("new")
    try:
        load.until(200)
    finally:
        load.end("new")
    assert [loss for loss in load.result.lost if "gave" in loss] or load.result.failed
