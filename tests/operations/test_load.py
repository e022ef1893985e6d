"""Every upgrade under load: no statement of either release fails because of it, and no value is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contraflow import Runner
from tests.dialects.support import connected
from tests.operations.courses import COURSES, Course
from tests.operations.lives import TABLE
from tests.operations.load import Load, carry
from tests.servers.shared import Database

REQUESTS = {"sqlite": 4_000}
"""SQLite has one writer at a time, and each request is a transaction: as many as it gives in the others' time."""
MOST = 20_000


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_an_upgrade_under_load(database: Database, course: Course, pytestconfig: pytest.Config) -> None:
    requests = pytestconfig.getoption("load_requests") or REQUESTS.get(database.kind, MOST)
    result = carry(database, course, requests)
    if where := pytestconfig.getoption("load_results"):
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(result.as_dict())}\n")
    assert result.failed == []
    assert result.lost == []
    assert result.requests >= requests


def test_the_load_notices_a_sync_that_is_gone(database: Database) -> None:
    course = COURSES[0]
    course.create(database.engine)
    load = Load(database, course)
    with Runner(database.url, course.upgrade) as run:
        run.expand()
        run.migrate()
    with connected(database.engine) as (connection, adapter):
        on = f" ON {TABLE}" if database.kind.startswith("postgresql") else ""
        for trigger in adapter.find(connection, TABLE, None).triggers:
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
    load.begin("new")
    try:
        load.until(200)
    finally:
        load.end("new")
    assert [loss for loss in load.result.lost if "gave" in loss] or load.result.failed
