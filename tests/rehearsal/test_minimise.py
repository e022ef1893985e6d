"""A rehearsal that fails is made smaller, and written as a script that fails, too."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contraflow.rehearsal.faults import plan
from contraflow.rehearsal.minimise import minimise, script
from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.record import Finding, Record
from contraflow.rehearsal.rehearse import Rehearsal
from tests.alembic.project import RENAME_NAME, USERS, Project
from tests.cli.commandline import contraflow

FAULTS = plan(1, server="postgresql")
LARGE = Rehearsal(config="alembic.ini", on="postgresql", seconds=40.0, workers=8, rows=200, seed=1, faults=FAULTS)
PASSED = Record(
    started=dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    seconds=1.0,
    seed=1,
    command="",
    server="postgresql",
    server_version="18",
    old="1",
    new="2",
    verdict="passed",
    reason="nothing",
)
FAILED = replace(
    PASSED,
    verdict="failed",
    reason="a row\nis lost",
    findings=(Finding(kind="lost", what="it is gone", table="users"),),
)
OTHER = replace(FAILED, findings=(Finding(kind="failed", what="something else", table="users"),))


def failing_if(
    condition: Callable[[Rehearsal], bool], ran: list[Rehearsal] | None = None
) -> Callable[[Rehearsal], Record]:
    def run(rehearsal: Rehearsal) -> Record:
        if ran is not None:
            ran.append(rehearsal)
        return FAILED if condition(rehearsal) else PASSED

    return run


def test_what_is_not_needed_is_left_out() -> None:
    needed = {FAULTS[3], FAULTS[9]}
    found = minimise(LARGE, FAILED, run=failing_if(lambda one: needed <= set(one.faults) and one.rows >= 20), most=200)
    assert set(found.rehearsal.faults) == needed
    assert (found.rehearsal.workers, found.rehearsal.seconds) == (1, 1.0)
    assert 20 <= found.rehearsal.rows < 80
    assert (found.rehearsal.on, found.rehearsal.seed) == ("postgresql", 1)


def test_what_fails_by_itself_needs_no_fault() -> None:
    found = minimise(LARGE, FAILED, run=failing_if(lambda _one: True))
    assert (found.rehearsal.faults, found.rehearsal.workers, found.rehearsal.rows) == ((), 1, 1)
    assert found.runs < 15


def test_it_ends_where_nothing_smaller_fails() -> None:
    ran: list[Rehearsal] = []
    found = minimise(LARGE, FAILED, run=failing_if(lambda _one: False, ran), most=30, again=2)
    assert found.rehearsal == LARGE
    assert found.runs == len(ran) == 30
    assert ran[0] == ran[1]  # tried again before it counts as passing


def test_another_failure_is_not_this_one() -> None:
    found = minimise(LARGE, FAILED, run=lambda _one: OTHER, most=10)
    assert found.rehearsal == LARGE
    assert minimise(LARGE, replace(FAILED, findings=()), run=lambda _one: OTHER, most=10).rehearsal == LARGE


def test_findings_tell_how_to_see_them_again() -> None:
    both = replace(FAILED, findings=(*FAILED.findings, *OTHER.findings))
    found = minimise(LARGE, both, run=lambda _one: FAILED, most=3)
    assert [finding.reproduce for finding in found.reproduces(both).findings] == [found.script, None]


def test_a_rehearsal_that_passed_has_nothing_to_minimise() -> None:
    with pytest.raises(ValueError, match="passed"):
        minimise(LARGE, PASSED)


def test_a_script_names_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://ann:secret@db.example/postgres"
    chosen = replace(
        LARGE,
        url=url,
        faults=FAULTS[:2],
        data="rows.sql",
        old_workload=Workload(call="shop.work:old", folder=Path("/srv")),
        new_workload=Workload(call="shop.work:new", folder=Path("/srv"), python="/srv/bin/python"),
    )
    text = script(chosen, FAILED)
    assert "secret" not in text
    monkeypatch.setenv("CONTRAFLOW_URL", url)
    namespace: dict[str, object] = {}
    exec(compile(text.partition("\nrecord =")[0], "script", "exec"), namespace)
    made = namespace["rehearsal"]
    assert isinstance(made, Rehearsal)
    assert made == replace(chosen, config=Path("alembic.ini").absolute(), data=Path("rows.sql").absolute())
    assert "# a row\n# is lost" in text


def test_a_real_failure_is_made_small_and_fails_again(tmp_path: Path) -> None:
    """A plain revision before the Change writes what the old release does not expect."""
    project = Project(tmp_path / "service", "sqlite://")
    project.revision("0001", None, USERS)
    project.revision("0002", "0001", """def upgrade():\n    op.execute("UPDATE users SET mail = 'altered'")\n""")
    project.revision("0003", "0002", RENAME_NAME)
    command = [
        "rehearse",
        "-c",
        project.ini,
        "0001:0003",
        "--seconds",
        "0.5",
        "--rows",
        "2",
        "--workers",
        "1",
        "--json",
    ]
    path = tmp_path / "again.py"
    done = contraflow(*command, "--reproduce", path)
    assert done.code == 1, done.err
    (record,) = done.document["rehearsals"]
    text = path.read_text()
    assert text in [finding["reproduce"] for finding in record["findings"]]
    again = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr
    assert "mail is 'altered', and must be" in again.stdout
    assert text.count("Write(") == 1  # the row, and the upgrade that alters it
