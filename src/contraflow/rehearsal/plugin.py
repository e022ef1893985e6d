"""A plugin of pytest, so that a project's own tests prove its upgrades: the fixture `rehearse`.

    def test_the_upgrade_loses_nothing(rehearse):
        rehearse()

It is there wherever Contraflow is installed. ``--rehearse-on`` chooses the servers (each is a test of its own),
``--rehearse-seconds`` and ``--rehearse-seed`` how long and with which choices, and ``--rehearse-report FILE.html``
writes one page about every rehearsal of the run, also of one that pytest-xdist has spread over processes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    # Imported where they are used: every run of pytest loads this module.
    from contraflow.rehearsal.faults import Fault
    from contraflow.rehearsal.record import Record

__all__ = ["Rehearse", "rehearse"]

_log = logging.getLogger("contraflow.rehearsal")

_RECORDS = pytest.StashKey[list[dict[str, Any]]]()
_ATTRIBUTE = "contraflow_records"
"""What a test's report carries them in, also from one process to another."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that rehearsals are chosen with."""
    group = parser.getgroup("contraflow rehearsals")
    group.addoption(
        "--rehearse-on",
        action="append",
        default=[],
        metavar="KIND",
        help="rehearse on a scratch server of this kind: sqlite, postgresql, mariadb, mysql ...; repeatable."
        " Default: sqlite.",
    )
    group.addoption("--rehearse-seconds", type=float, metavar="N", help="how long the load of each rehearsal lasts.")
    group.addoption(
        "--rehearse-seed", type=int, metavar="N", help="make the same choices as the rehearsal of this seed."
    )
    group.addoption(
        "--rehearse-faults", metavar="LIST", help="what strikes meanwhile, as contraflow rehearse --faults."
    )
    group.addoption("--rehearse-report", type=Path, metavar="FILE.html", help="write a page about all rehearsals.")


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no rehearsals."""
    config.stash[_RECORDS] = []
    page: Path | None = config.getoption("rehearse_report")
    if page is not None and not page.absolute().parent.is_dir():
        raise pytest.UsageError(f"--rehearse-report: the folder {str(page.parent)!r} does not exist")
    if config.getoption("rehearse_faults") is not None:
        from contraflow.problems import ProblemError
        from contraflow.rehearsal.faults import asked

        try:
            with contextlib.suppress(ProblemError):  # each server says for itself what cannot strike there
                asked(config.getoption("rehearse_faults"), 0, server="postgresql")
        except ValueError as error:
            raise pytest.UsageError(f"--rehearse-faults: {error}") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each server."""
    if "rehearse" in metafunc.fixturenames:
        chosen = list(dict.fromkeys(metafunc.config.getoption("rehearse_on"))) or ["sqlite"]
        metafunc.parametrize("rehearse", chosen, indirect=True)


@pytest.hookimpl(hookwrapper=True)  # the new kind of wrapper would keep older versions of pytest from starting
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Let the report of a test carry its rehearsals."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        setattr(report, _ATTRIBUTE, item.stash.get(_RECORDS, []))


class _Collector:
    """Keeps what all tests have rehearsed, wherever they ran, and writes the page about it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a test's rehearsals."""
        self._config.stash[_RECORDS] += getattr(report, _ATTRIBUTE, [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the page, and say where."""
        from contraflow.rehearsal import report
        from contraflow.rehearsal.record import Record

        page: Path | None = self._config.getoption("rehearse_report")
        records = [Record.from_dict(one) for one in self._config.stash[_RECORDS]]
        if page is not None and records:
            page.write_text(report.html(records), encoding="utf-8")
            terminalreporter.write_line(f"rehearsals: {page}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Collect in the one process that tells the outcome; not in pytest-xdist's workers."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Collector(session.config), "contraflow-rehearsals")


class Rehearse:
    """What the fixture `rehearse` is: call it to rehearse an upgrade."""

    def __init__(self, request: pytest.FixtureRequest, on: str) -> None:
        self._request = request
        self._on = on

    def __call__(self, **options: Any) -> Record:
        """Rehearse an upgrade on a scratch server, and fail the test if it did not pass.

        :param options: what `contraflow.rehearsal.rehearse.Rehearsal` takes, and ``faults`` as a text, too:
            ``"all"``. The command line overrides ``on``, ``seconds``, ``seed`` and ``faults``. Without ``config``: the
            alembic.ini of pytest's root folder, else as Alembic finds it.
        :returns: the record of a rehearsal that passed.
        """
        from contraflow.problems import ProblemError
        from contraflow.rehearsal.rehearse import Rehearsal

        given = self._request.config.getoption
        chosen: dict[str, Any] = {"on": self._on, "config": self._config(), **options}
        for name in ("seconds", "seed", "faults"):
            if given(f"rehearse_{name}") is not None:
                chosen[name] = given(f"rehearse_{name}")
        if given("rehearse_on"):
            chosen["on"] = self._on
        chosen.setdefault("command", self._command(chosen))
        try:
            if isinstance(chosen.get("faults"), str):
                chosen["faults"] = self._faults(chosen)
            record = Rehearsal(**chosen).run(progress=_log.info)
        except ProblemError as error:
            pytest.fail("\n".join(map(str, error.problems)), pytrace=False)
        self._request.node.stash.setdefault(_RECORDS, []).append(record.as_dict())
        if record.verdict != "passed":
            pytest.fail(_text(record), pytrace=False)
        return record

    def _config(self) -> Path | None:
        found = self._request.config.rootpath / "alembic.ini"
        return found if found.is_file() else None

    def _faults(self, chosen: Mapping[str, Any]) -> tuple[Fault, ...]:
        import sqlalchemy as sa

        from contraflow.rehearsal.faults import asked

        url = chosen.get("url")
        server = chosen["on"] if url is None else sa.make_url(url).get_backend_name()
        return asked(chosen["faults"], chosen.get("seed", 0), server=server, ours=url is None)

    def _command(self, chosen: Mapping[str, Any]) -> str:
        words = ["pytest", self._request.node.nodeid.partition("[")[0], "--rehearse-on", str(chosen["on"])]
        for name in ("seconds", "seed", "faults"):
            if isinstance(chosen.get(name), str | float | int):
                words += [f"--rehearse-{name}", str(chosen[name])]
        return shlex.join(words)


@pytest.fixture
def rehearse(request: pytest.FixtureRequest) -> Rehearse:
    """Rehearse the project's upgrade: ``rehearse()`` fails the test unless the verdict is *passed*."""
    return Rehearse(request, request.param)


def _text(record: Record) -> str:
    """The summary as plain text; wide, since a test's failure is read in a log."""
    from rich.console import Console

    from contraflow.rehearsal import report

    text = io.StringIO()
    Console(file=text, width=160, highlight=False, no_color=True).print(report.summary([record]))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
