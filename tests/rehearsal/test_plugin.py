"""The pytest plugin: a project's own test rehearses its upgrade, in a pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.alembic.project import two_changes
from tests.rehearsal.sabotage import APART

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

TEST = """
def test_the_upgrade_loses_nothing(rehearse):
    record = rehearse(rows=5, workers=2)
    assert record.counts["requests"] > 0
"""

# What a careless person does while the upgrade runs, brought in where the rehearsal lets somebody in.
HARM = """
import time
import pytest
from contraflow.rehearsal.rehearse import Rehearsal

def harm(phase, engine):
    if phase == "both releases":
        with engine.begin() as connection:
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
            for name in names:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
    while phase == "checking every row before contract":  # the clients go on until it was felt
        with engine.connect() as connection:
            if connection.exec_driver_sql("SELECT count(*) FROM users WHERE APART").scalar_one() > 1:
                break
        time.sleep(0.01)

@pytest.fixture(autouse=True)
def harmed(monkeypatch):
    run = Rehearsal.run
    monkeypatch.setattr(Rehearsal, "run", lambda self, progress: run(self, progress=progress, meanwhile=harm))
""".replace("APART", APART)


@dataclass(frozen=True)
class Outcome:
    code: int
    text: str


def run_pytest(folder: Path, *arguments: str) -> Outcome:
    # Named by hand, and not by the installed package's entry point: one that was installed before there was any.
    plugin = ("-p", "no:contraflow", "-p", "contraflow.rehearsal.plugin")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "-c", "/dev/null"]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *arguments],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,  # only one that hangs takes so long
    )
    return Outcome(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "service"
    two_changes(folder, "sqlite://")
    (folder / "test_upgrade.py").write_text(TEST, encoding="utf-8")
    return folder


@pytest.mark.parametrize("processes", [[], ["-n", "1"]], ids=["one process", "xdist"])
def test_a_good_upgrade_passes_and_is_shown_on_a_page(folder: Path, processes: list[str]) -> None:
    options = ("--rehearse-seconds", "0.5", "--rehearse-seed", "3", "--rehearse-faults", "second-runner@expand:1")
    done = run_pytest(folder, *options, "--rehearse-report", "report.html", *processes)
    assert done.code == 0, done.text
    assert "1 passed" in done.text
    assert "rehearsals: report.html" in done.text
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Rehearsal of 0001 → 0003: passed" in page
    again = "pytest test_upgrade.py::test_the_upgrade_loses_nothing --rehearse-on sqlite"
    assert f"{again} --rehearse-seconds 0.5 --rehearse-seed 3 --rehearse-faults second-runner@expand:1" in page
    assert "a second runner" in page


def test_a_bad_upgrade_fails_with_the_summary_and_is_shown_on_a_page(folder: Path) -> None:
    (folder / "conftest.py").write_text(HARM, encoding="utf-8")
    done = run_pytest(folder, "--rehearse-seconds", "0.8", "--rehearse-report", "report.html")
    assert done.code == 1, done.text
    assert re.search(r"^FAILED in .* s: ", done.text, re.MULTILINE)
    assert "again: pytest test_upgrade.py" in done.text
    assert "Traceback" not in done.text
    assert "What was found wrong" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_problem_fails_with_its_text(folder: Path) -> None:
    done = run_pytest(folder, "--rehearse-on", "abacus", "--rehearse-on", "sqlite", "--rehearse-seconds", "0.5")
    assert done.code == 1, done.text
    assert "CF203: there is no scratch server of the kind 'abacus'" in done.text
    assert "1 failed, 1 passed" in done.text


def test_a_page_that_cannot_be_written_is_told_at_once(folder: Path) -> None:
    done = run_pytest(folder, "--rehearse-report", "nowhere/report.html")
    assert done.code == 4
    assert "the folder 'nowhere' does not exist" in done.text


def test_a_fault_that_there_is_not_is_told_at_once(folder: Path) -> None:
    done = run_pytest(folder, "--rehearse-faults", "earthquake")
    assert done.code == 4
    assert "--rehearse-faults: unknown fault 'earthquake'" in done.text


def test_the_package_brings_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"contraflow": "contraflow.rehearsal.plugin"}
