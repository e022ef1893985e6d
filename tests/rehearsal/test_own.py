"""Rehearsals with rows, workloads and interpreters of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.problems import ProblemError
from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.script import statements
from contraflow.rehearsal.servers import Server
from tests.alembic.project import two_changes
from tests.cli.commandline import contraflow
from tests.rehearsal.test_rehearse import SERVING, drop_triggers, explain, rehearse, until_apart, until_written

WORK = """
from sqlalchemy import text


def old(engine, random):
    with engine.begin() as connection:
        name = {"id": random.randint(1, 2), "name": f"Old {random.random()}"}
        connection.execute(text("UPDATE users SET fullname = :name WHERE id = :id"), name)


def new(engine, random):
    with engine.begin() as connection:
        name = {"id": random.randint(1, 2), "name": f"New {random.random()}"}
        connection.execute(text("UPDATE users SET display_name = :name WHERE id = :id"), name)


def broken(engine, random):
    raise LookupError("no such thing")
"""


def workloads(folder: Path, old: str = "old", new: str = "new") -> dict[str, Workload]:
    (folder / "service_work.py").write_text(WORK)
    return {
        "old_workload": Workload(call=f"service_work:{old}", folder=folder),
        "new_workload": Workload(call=f"service_work:{new}", folder=folder),
    }


def test_workloads_of_ones_own_are_called_and_rows_compared(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase in SERVING:
            until_written(engine)

    record = rehearse(server, project.ini, seconds=0.6, rows=5, **workloads(project.folder)).run(meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    assert record.counts["calls of a workload"] > 0
    assert {bucket.release for bucket in record.buckets} == {"old", "new"}


@pytest.mark.only_on("sqlite", "postgresql")
def test_two_sides_that_do_not_agree_are_found_whoever_wrote_them(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "both releases":
            drop_triggers(engine, "users")
        if phase == "checking every row before contract":
            until_apart(engine)

    record = rehearse(server, project.ini, seconds=0.6, rows=5, **workloads(project.folder)).run(meanwhile=meanwhile)
    assert "differs" in {finding.kind for finding in record.findings}, explain(record)


def test_a_workload_that_raises_fails(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    settings = workloads(project.folder, new="broken")
    record = Rehearsal(config=project.ini, seconds=0.5, rows=5, **settings).run()  # type: ignore[arg-type]
    assert record.verdict == "failed"
    assert "LookupError: no such thing" in record.findings[0].what


def test_both_releases_have_a_workload_or_neither(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both releases"):
        Rehearsal(old_workload=Workload(call="a:b"))
    project = two_changes(tmp_path / "service", "sqlite://")
    done = contraflow("rehearse", "-c", project.ini, "--old-workload", "a:b")
    assert done.code == 1
    assert "--new-workload" in done.err


def test_rows_of_ones_own_are_there_before_the_upgrade(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    rows = tmp_path / "rows.sql"
    rows.write_text(
        "-- a sample\nINSERT INTO users (id, fullname, mail) VALUES (70001, 'Semi; colon 100%', 'it''s');\n"
        "INSERT INTO users (id, fullname) VALUES (70002, ':x');\n"
    )
    keys: list[set[int]] = []

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "checking every row at the end":
            with engine.connect() as connection:
                found = connection.exec_driver_sql("SELECT id FROM users WHERE id IN (1, 70001, 70002)")
                keys.append(set(found.scalars()))

    record = rehearse(server, project.ini, seconds=0.6, rows=5, data=rows).run(meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    assert keys == [{1, 70001, 70002}]


def test_rows_that_the_schema_refuses_are_told(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    rows = tmp_path / "rows.sql"
    rows.write_text("INSERT INTO users (nothing) VALUES (1);")
    with pytest.raises(ProblemError, match="nothing"):
        Rehearsal(config=project.ini, data=rows).run()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a; b;\n", ["a", "b"]),
        ("a 'x;''y'; b", ["a 'x;''y'", "b"]),
        ("a 'x\\';'; b", ["a 'x\\';'", "b"]),
        ('a "x;"; `y;`;', ['a "x;"', "`y;`"]),
        ("-- no; thing\na; /* no; */ b", ["a", "b"]),
        ("/*!40101 SET x = 1 */;", ["/*!40101 SET x = 1 */"]),
        ("a $f$ x; y $f$; b - c / d", ["a $f$ x; y $f$", "b - c / d"]),
        ("  ;;\n", []),
    ],
)
def test_a_script_is_taken_apart_at_its_semicolons(text: str, expected: list[str]) -> None:
    assert list(statements(text)) == expected


def test_each_release_may_have_its_interpreter(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/called\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    options = ("--new-python", python, "--seconds", "0.5", "--rows", "5")
    done = contraflow("rehearse", "-c", project.ini, *options)
    assert done.code == 0, done.out
    (script,) = (tmp_path / "called").read_text().split()
    assert Path(script).name == "node.py"


def test_an_interpreter_that_cannot_work_is_told(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    for python in ("/bin/false", str(tmp_path / "nothing")):
        record = Rehearsal(config=project.ini, seconds=0.3, rows=2, old_workload=Workload(python=python)).run()
        assert record.verdict == "error"
        assert "did not start" in record.reason
