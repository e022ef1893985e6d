"""What a person at a terminal sees, and what Ctrl-C does: in a process of its own, behind a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.engine.report import State
from contraflow.engine.runner import Runner
from tests.alembic.project import Project

ROWS = 400
LONGEST = 120.0  # seconds; never decides a test, only ends one that hangs
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A command on a pseudo-terminal of 100 columns."""

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.text = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "contraflow.cli", *arguments],
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **(environment or {})},
        )
        os.close(theirs)

    def read_until(self, wanted: str) -> None:
        """Read what is printed until it holds ``wanted``, escape sequences left out."""
        while wanted not in self.plain:
            assert self._more(), f"{wanted!r} never came: {self.plain}"

    def finish(self) -> int:
        """Read the rest; the exit code."""
        while self._more():
            pass
        code = self.process.wait(LONGEST)
        os.close(self._ours)
        return code

    @property
    def plain(self) -> str:
        return ESCAPE.sub("", self.text)

    def _more(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], LONGEST)
        assert ready, f"nothing more came: {self.plain}"
        with suppress(OSError):  # what Linux says at a terminal's end
            if read := os.read(self._ours, 65536):
                self.text += read.decode(errors="replace")
                return True
        return False


@pytest.fixture
def slow(local: Project) -> Project:
    """Many rows, one a batch, with a rest after each: a backfill that is still at work when it is looked at."""
    engine = sa.create_engine(local.url)
    with engine.begin() as connection:
        rows = [{"id": number, "name": f"user {number}"} for number in range(10, 10 + ROWS)]
        connection.execute(sa.text("INSERT INTO users (id, fullname) VALUES (:id, :name)"), rows)
    engine.dispose()
    local.configure(batch_size=1, max_batch_size=1, pause=0.05)
    return local


def left(project: Project) -> tuple[State | None, int]:
    with Runner(project.url) as runner:
        now = runner.status()
    return now.state, sum(now.rows_left.values())


def hurry(project: Project) -> None:
    project.configure(batch_size=1000)


def test_a_backfill_draws_a_bar(slow: Project) -> None:
    assert (
        subprocess.run([sys.executable, "-m", "contraflow.cli", "expand"], cwd=slow.folder, check=False).returncode == 0
    )
    terminal = Terminal(slow.folder, "migrate")
    terminal.read_until("rows/s")
    terminal.read_until(" left")
    terminal.process.send_signal(signal.SIGTERM)
    terminal.read_until("stopping after the present statement")
    assert terminal.finish() == 130
    assert f"of {ROWS + 2} rows" in terminal.plain
    assert COLOUR.search(terminal.text)
    assert "━" in terminal.plain


def test_no_color_is_honoured(slow: Project) -> None:
    hurry(slow)
    terminal = Terminal(slow.folder, "expand", environment={"NO_COLOR": "1"})
    assert terminal.finish() == 0
    # Bold and underlined are no colours; 30-38 and 90-97 are.
    assert not re.search(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7])(?:;[0-9]+)*m", terminal.text)
    refused = Terminal(
        slow.folder, "--url", "postgresql+psycopg://127.0.0.1:1/x", "status", environment={"NO_COLOR": "1"}
    )
    assert refused.finish() == 1
    assert "CF201" in refused.plain
    assert "\x1b[31m" not in refused.text


def test_ctrl_c_stops_where_it_is_safe_and_says_how_to_go_on(slow: Project) -> None:
    upgrade = Terminal(slow.folder, "-c", "alembic.ini", "upgrade")
    upgrade.read_until("rows/s")
    os.write(upgrade._ours, b"")  # the terminal is ours: its Ctrl-C reaches the foreground group
    upgrade.process.send_signal(signal.SIGINT)
    assert upgrade.finish() == 130
    assert "stopped; nothing is half done. Go on with: contraflow -c alembic.ini upgrade" in upgrade.plain
    assert "Traceback" not in upgrade.plain
    state, rows = left(slow)
    assert state is State.EXPANDED
    assert 0 < rows < ROWS + 2
    hurry(slow)
    again = Terminal(slow.folder, "-c", "alembic.ini", "upgrade")
    assert again.finish() == 0
    assert left(slow) == (State.VERIFIED, 0)


def test_a_second_ctrl_c_breaks_off_and_is_resumed_too(slow: Project) -> None:
    upgrade = Terminal(slow.folder, "upgrade")
    upgrade.read_until("rows/s")
    upgrade.process.send_signal(signal.SIGINT)
    upgrade.process.send_signal(signal.SIGINT)
    assert upgrade.finish() == 130
    assert "Traceback" not in upgrade.plain
    hurry(slow)
    assert Terminal(slow.folder, "upgrade").finish() == 0
    assert left(slow) == (State.VERIFIED, 0)


def test_a_killed_command_is_resumed(slow: Project) -> None:
    upgrade = Terminal(slow.folder, "upgrade")
    upgrade.read_until("rows/s")
    upgrade.process.kill()
    upgrade.finish()
    hurry(slow)
    assert Terminal(slow.folder, "upgrade").finish() == 0
    assert left(slow) == (State.VERIFIED, 0)


def test_ctrl_c_under_alembic_is_no_traceback(slow: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=slow.folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "expand users" in line:
            break
    deadline = time.monotonic() + LONGEST
    while left(slow)[0] is not State.EXPANDED and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(LONGEST) != 0
    assert "Traceback" not in said
    hurry(slow)
    slow.upgrade()
    assert left(slow) == (State.VERIFIED, 0)


def test_without_a_terminal_there_are_plain_lines(slow: Project) -> None:
    hurry(slow)
    done = subprocess.run(
        [sys.executable, "-m", "contraflow.cli", "upgrade"],
        cwd=slow.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert [line.partition(":")[0] for line in lines] == ["expand", "migrate", "verify"]
    assert f"{ROWS + 2:,} of {ROWS + 2:,} rows" in lines[1]
    assert lines[1].endswith("done")
    assert "VERIFIED" in done.stdout
