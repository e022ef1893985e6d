"""The demo as a whole: it passes on every server, and what is broken on purpose does not."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from contraflow.problems import ProblemError
from contraflow.rehearsal import demo
from contraflow.rehearsal.demo.nodes import find_example
from tests.rehearsal.test_rehearse import until_written
from tests.servers.shared import Database, new_engine

SHORT = demo.Options(users=300, duration=3.0, rate=160.0)


def test_one_live_upgrade(database: Database) -> None:
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if line.startswith(("expand", "release 2 alone")):
            until_written(database.engine, 20)  # however slow the clients are

    verdict = demo.run(replace(SHORT, url=database.url), progress=progress)
    assert verdict.passed, verdict
    assert min(verdict.served.values()) >= 20
    assert verdict.values_checked > 2 * 300 * 10
    phases = ["release 1 alone", "expand", "migrate", "verify", "rolling the nodes", "contract", "release 2 alone"]
    assert [phase.name for phase in verdict.phases] == phases
    assert all(phase.requests > 0 for phase in verdict.phases)
    for phase in phases:
        assert any(line.startswith(phase) for line in lines), lines
    with Console(width=100).capture() as _:
        Console(width=100).print(demo.table(verdict))


def test_a_server_is_started_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = psutil.Process().children()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert demo.run(replace(SHORT, duration=1.0)).passed
    assert list(tmp_path.iterdir()) == []
    assert psutil.Process().children() == before


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example service, to break."""
    copy = tmp_path / "identity"
    shutil.copytree(find_example(), copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("revision", "old", "new", "column"),
    [
        (
            "0002_names_and_email.py",
            'concat(row.first_name, " ", row.last_name)',
            'concat(row.last_name, " ", row.first_name)',
            "full_name",
        ),
        ("0002_names_and_email.py", 'after(row.full_name, " ")', 'before(row.full_name, " ")', "last_name"),
    ],
)
@pytest.mark.only_on("sqlite")
def test_a_broken_lens_is_caught(
    database: Database, example: Path, revision: str, old: str, new: str, column: str
) -> None:
    edit(example / "migrations" / "versions" / revision, old, new)
    verdict = demo.run(replace(SHORT, url=database.url, example=example))
    assert not verdict.passed
    assert verdict.differing > 0
    assert any(f": {column} is " in example for example in verdict.counterexamples), verdict.counterexamples


def test_removed_triggers_are_caught(database: Database) -> None:
    def progress(line: str) -> None:
        if line.startswith("rolling the nodes"):
            drop_triggers(database)

    verdict = demo.run(replace(SHORT, url=database.url), progress=progress)
    assert not verdict.passed
    assert verdict.differing > 0, verdict
    assert any(example.startswith("user user-") for example in verdict.counterexamples), verdict


def drop_triggers(database: Database) -> None:
    engine = new_engine(database.url, isolation_level="AUTOCOMMIT")
    names = {
        "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE NOT tgisinternal",
        "mysql": "SELECT trigger_name, event_object_table FROM information_schema.triggers "
        "WHERE trigger_schema = database()",
    }["mysql" if engine.dialect.name == "mariadb" else engine.dialect.name]
    quote = engine.dialect.identifier_preparer.quote
    with engine.connect() as connection:
        found = connection.exec_driver_sql(names).all()
        assert found
        for name, table in found:
            on_table = f" ON {quote(table)}" if engine.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER {quote(name)}{on_table}")
    engine.dispose()


@pytest.mark.only_on("sqlite")
def test_a_history_that_does_not_load_is_in_the_verdict(database: Database, example: Path) -> None:
    edit(example / "migrations" / "versions" / "0002_names_and_email.py", "substr(trim(", "substring(trim(")
    verdict = demo.run(replace(SHORT, url=database.url, example=example, duration=1.0))
    assert not verdict.passed
    assert verdict.phases == ()
    (problem,) = verdict.problems
    assert "NameError" in problem


def test_an_unknown_server_is_a_problem() -> None:
    with pytest.raises(ProblemError, match="CF203: there is no scratch server of the kind 'oracle'"):
        demo.run(demo.Options(on="oracle"))


@pytest.mark.only_on("sqlite")
def test_a_refused_phase_is_in_the_verdict(database: Database, example: Path) -> None:
    edit(example / "migrations" / "versions" / "0004_project_handles.py", '"cost_code"', '"cost_codes"')
    verdict = demo.run(replace(SHORT, url=database.url, example=example, duration=1.0))
    assert not verdict.passed
    assert verdict.served[2] == 0
    (problem,) = verdict.problems
    assert "CF101" in problem


@pytest.mark.parametrize("phase", ["expand", "rolling the nodes"])
@pytest.mark.only_on("sqlite")
def test_ctrl_c_leaves_nothing(database: Database, tmp_path: Path, phase: str) -> None:
    program = (
        "import sys\n"
        "from contraflow.rehearsal import demo\n"
        "demo.run(demo.Options(url=sys.argv[1], users=100, rate=60.0), progress=lambda line: print(line, flush=True))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(database.url)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(phase):
                break
        places = (str(database.url), str(tmp_path))
        assert len(processes_at(places)) >= 4
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=240)  # only a demo that hangs takes so long
    finally:
        process.kill()  # and must not trouble other tests
        process.communicate()
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    psutil.wait_procs(processes_at(places), timeout=300)
    assert processes_at(places) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.only_on("sqlite")
def test_sigterm_leaves_nothing(database: Database, tmp_path: Path) -> None:
    """A supervisor's way to end the command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "contraflow.cli", "demo", "--url", str(database.url), "--users", "100"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("expand"):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=240)  # only a demo that hangs takes so long
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    places = (str(database.url), str(tmp_path))
    psutil.wait_procs(processes_at(places), timeout=300)
    assert processes_at(places) == []
    assert list(tmp_path.iterdir()) == []


def processes_at(places: tuple[str, ...]) -> list[psutil.Process]:
    """The processes that were told of one of ``places``: the demo itself, its nodes and its commands."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(place in argument for argument in process.info["cmdline"] or () for place in places)
    ]
