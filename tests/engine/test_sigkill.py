"""A runner's process is killed for real: the server cleans up after it, and the next runner goes on at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.engine import State
from tests.engine import service
from tests.servers.shared import Database

ROOT = Path(__file__).parents[2]


def kill_before(database: Database, verb: str, beginning: str, pass_by: int) -> None:
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.engine.killed", url, verb, beginning, str(pass_by)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "here\n"
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("verb", "beginning", "pass_by"),
    [("expand", "CREATE TRIGGER", 0), ("expand", "CREATE TRIGGER", 1), ("contract", "ALTER TABLE", 0)],
)
def test_killed_inside_a_hold(database: Database, verb: str, beginning: str, pass_by: int) -> None:
    upgrade = service.upgrade(tables=("users",))
    service.make_tables(database.engine, tables=("users",))
    writers = service.Writers(engine=database.engine, items=False)
    if verb == "contract":
        with service.runner(database.url, upgrade) as runner:
            runner.upgrade()
    kill_before(database, verb, beginning, pass_by)
    if verb == "contract":
        writers.new()
    else:
        writers.old()
    with service.runner(database.url, upgrade) as runner:
        assert runner.status().pending == verb
        runner.run("contract")
        assert runner.status().state is State.CONTRACTED
    writers.new()
    writers.check_new()


def test_killed_inside_a_batch_of_the_backfill(database: Database) -> None:
    upgrade = service.upgrade(tables=("users",))
    service.make_tables(database.engine, tables=("users",))
    with service.runner(database.url, upgrade) as runner:
        runner.expand()
    # The second batch has written its rows, and is about to write its checkpoint.
    kill_before(database, "migrate", "UPDATE contraflow_checkpoint", 2)
    with database.engine.connect() as connection:
        filled = connection.execute(sa.text("SELECT count(*) FROM users WHERE cf_marker IS NOT NULL")).scalar_one()
        done = connection.execute(sa.text("SELECT done FROM contraflow_checkpoint")).scalar_one()
    assert filled == done  # a batch and its checkpoint, or neither
    assert 0 < filled < 10
    writers = service.Writers(engine=database.engine, items=False)
    writers.old()
    with service.runner(database.url, upgrade) as runner:
        runner.run("contract")
    writers.check_new()


def test_a_holder_killed_with_the_lock_is_taken_over_at_once(database: Database) -> None:
    service.make_tables(database.engine, tables=("users",))
    kill_before(database, "expand", "INSERT INTO contraflow_journal", 0)
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT owner FROM contraflow_lease")).scalar_one() is not None
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        assert runner.status().runner is None
        runner.expand()
