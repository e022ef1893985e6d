"""Every upgrade under load: no statement of either release fails because of it, and no value is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.load import State, record
from bench.report import RESULTS, Run
from contraflow import Runner
from tests.dialects.support import connected
from tests.operations.courses import COURSES, Course
from tests.operations.lives import TABLE
from tests.operations.load import Load, Result, carry
from tests.servers.shared import Database

REQUESTS = 20_000


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_an_upgrade_under_load(database: Database, course: Course, pytestconfig: pytest.Config) -> None:
    requests = pytestconfig.getoption("load_requests") or REQUESTS
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


def test_a_long_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    first, second = COURSES[:2]
    state = State.read(tmp_path / "load.json")
    assert not state.has(first, "sqlite", 1)
    result = Result(life=first.name, server="sqlite", requests=5200, seconds=2.0, worst=0.25, phase="expand")
    state.add(result, 5000)
    again = State.read(tmp_path / "load.json")
    assert again.has(first, "sqlite", 5000)
    assert not again.has(first, "sqlite", 5001)
    assert not again.has(first, "mysql", 5000)
    assert not again.has(second, "sqlite", 5000)
    result.lost.append("row 1")
    again.add(result, 5000)
    assert not State.read(tmp_path / "load.json").has(first, "sqlite", 5000)


def test_a_row_of_results_takes_the_place_of_an_earlier_one() -> None:
    run = Run.now([])
    text = RESULTS.read_text(encoding="utf-8")
    for name, requests in (("b", 10_000), ("a", 20_000), ("b", 30_000)):
        result = Result(life=name, server="none", requests=requests, seconds=2.0, worst=0.25, phase="expand")
        text = record(result, run, requests, text)
    rows = [line.split(" | ")[:4] for line in text.splitlines() if " | none | " in line]
    assert rows == [["| a", "none", "20 000", "0"], ["| b", "none", "30 000", "0"]]
    assert text.count(f"`python -m bench.load --requests 30000`, {run.machine}") == 1
