"""The runner's process tells its statements, waits where it was asked to, and can be killed there."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from contraflow.engine import Runner, State
from contraflow.rehearsal.runner_process import STAMP, Report, RunnerProcess, Source, Verb
from tests.alembic.project import two_changes
from tests.engine import service
from tests.rehearsal.stage import SOURCE
from tests.servers.shared import Database


def listen(process: RunnerProcess) -> Report:
    """The report that it waits after, or its last one."""
    *_, report = process.reports()
    return report


def finish(process: RunnerProcess, verb: Verb, url: sa.URL) -> list[Report]:
    """Carry out a verb; what it told."""
    process.begin(verb, url)
    reports = list(process.reports())
    assert (reports[-1].kind, reports[-1].problems) == ("ended", ()), reports[-1]
    return reports


def test_it_stops_before_a_statement_dies_there_and_the_next_one_goes_on(database: Database) -> None:
    service.make_tables(database.engine)
    with RunnerProcess(SOURCE) as process:
        process.begin("expand", database.url, stop_at={3, 6})
        assert (listen(process).number, process.kill()) == (3, 3)
        assert not psutil.pid_exists(process.pid)
        assert listen(process).kind == "died"
    with database.engine.connect() as connection:
        made = set(sa.inspect(connection).get_table_names())
    # The journal's tables come first, one a statement; two statements were sent.
    assert len({name for name in made if name.startswith("contraflow")}) <= 2
    with RunnerProcess(SOURCE) as process:
        process.begin("expand", database.url, stop_at={4, 6})
        assert listen(process).number == 4
        process.go()
        report = listen(process)
        assert (report.number, report.waits) == (6, True)
        process.go()
        assert listen(process).kind == "ended"
        told = finish(process, "migrate", database.url)
        statements = [report for report in told if report.kind == "statement"]
        assert [report.number for report in statements] == list(range(1, len(statements) + 1))
        assert not any(report.text.lstrip().startswith("SELECT") for report in statements)
        assert any(report.progress is not None and report.progress.title for report in told)
    with Runner(database.url) as runner:
        assert runner.status().state is State.MIGRATED


def test_problems_come_back_as_problems(database: Database) -> None:
    with RunnerProcess(SOURCE) as process:
        process.begin("expand", database.url)
        report = listen(process)
    assert {problem.code for problem in report.problems} == {"CF101"}  # there are no tables


@pytest.mark.only_on("sqlite")
def test_what_is_no_problem_is_told_with_its_traceback(database: Database) -> None:
    with RunnerProcess(Source(upgrade="tests.engine.service:snapshot", folder=SOURCE.folder)) as process:
        process.begin("expand", database.url)
        report = listen(process)
    assert report.kind == "crashed"
    assert "missing 1 required positional argument: 'engine'" in report.text


@pytest.mark.only_on("sqlite")
def test_it_ends_with_its_parent(database: Database) -> None:
    service.make_tables(database.engine)
    process = RunnerProcess(SOURCE)
    process.begin("expand", database.url, stop_at={2})
    assert listen(process).number == 2
    assert process._process.stdin is not None
    process._process.stdin.close()  # all that a parent's death is to it
    child = psutil.Process(process.pid)
    assert child.wait(300) == 0
    process.close()


@pytest.mark.only_on("sqlite")
def test_a_killed_process_says_so(database: Database) -> None:
    with RunnerProcess(SOURCE) as process:
        psutil.Process(process.pid).send_signal(signal.SIGKILL)
        process.begin("expand", database.url)
        assert listen(process).kind == "died"


def test_an_alembic_project_moves_its_version_too(database: Database, tmp_path: Path) -> None:
    project = two_changes(tmp_path, database.url)
    project.upgrade("0001")

    def version() -> str:
        with database.engine.connect() as connection:
            return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())

    with RunnerProcess(Source(config=str(project.ini), folder=str(tmp_path))) as process:
        finish(process, "expand", database.url)
        assert version() == "0001"
        assert finish(process, "migrate", database.url)[-2].text == STAMP
        assert version() == "0003"
        finish(process, "rollback", database.url)
        assert version() == "0001"
        for verb in ("expand", "migrate", "verify", "contract"):
            finish(process, verb, database.url)
    assert version() == "0003"
    with database.engine.connect() as connection:
        names = {column["name"] for column in sa.inspect(connection).get_columns("users")}
    assert names == {"id", "display_name", "email"}
