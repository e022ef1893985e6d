"""Options and fixtures that choose the database servers a run uses.

``pytest --server all`` runs every test that wants a database on SQLite, both PostgreSQLs, MariaDB and MySQL;
``--server-url`` on a server that runs anyway. Nothing is skipped: a server that does not start fails the
tests that want it, and a test that is not meant for any chosen server is not collected. Temporary files are
in memory where there is enough of it, unless TMPDIR says otherwise.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings

from contraflow.rehearsal import servers
from tests.servers.shared import Database, SharedServers, choose, fresh_database, reach, read_exclusions

CHOSEN = pytest.StashKey[Mapping[str, str | None]]()
SHARED = pytest.StashKey[SharedServers]()
EXCLUDED = pytest.StashKey[dict[str, str]]()

MEMORY = Path("/dev/shm")
"""Files in memory, on Linux. A commit of SQLite's, and a table made on any server, waits for the disk otherwise."""
ENOUGH = 6 * 2**30
"""Bytes that must be free in memory's file system and in memory itself; a run over all servers takes less than half."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contraflow")
    group.addoption(
        "--server",
        action="append",
        default=[],
        metavar="NAME",
        help=f"run on this server; repeatable. all, {', '.join(servers.KINDS)}. Default: sqlite.",
    )
    group.addoption(
        "--server-url",
        action="append",
        default=[],
        metavar="URL",
        help="run on this running server, in fresh databases of its own; repeatable.",
    )
    group.addoption(
        "--load-requests",
        type=int,
        metavar="N",
        help="requests of each upgrade under load (tests/operations/test_load.py). Default: 20000.",
    )
    group.addoption("--load-results", metavar="FILE", help="append what came of them to this file, as JSON lines.")


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what it puts in the background with Ctrl-C ignored, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "only_on(*kinds): run this test only on servers of these kinds; elsewhere it is not collected.",
    )
    _put_temporary_files_in_memory()
    _choose_examples()
    config.stash[EXCLUDED] = excluded = read_exclusions()
    try:
        config.stash[CHOSEN] = choose(config.getoption("server"), config.getoption("server_url"), excluded)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    if not hasattr(config, "workerinput"):

        def progress(line: str) -> None:
            reporter = config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None and config.option.verbose >= 0:
                reporter.write_line(line)

        config.stash[SHARED] = SharedServers(config.stash[CHOSEN], progress)
        if config.pluginmanager.hasplugin("xdist"):
            config.pluginmanager.register(WithWorkers())


def _choose_examples() -> None:
    """What property tests try, if they do not say themselves: the same in every run, however slow the machine is.

    With ``CONTRAFLOW_HYPOTHESIS=thorough`` (tests/sync/conftest.py) more, and others each time.
    """
    same = settings(
        deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.register_profile("ci", same)
    settings.register_profile("shrink", same)
    settings.register_profile("thorough", same, derandomize=False, max_examples=2000)
    settings.load_profile(os.environ.get("CONTRAFLOW_HYPOTHESIS", "ci"))


def _put_temporary_files_in_memory() -> None:
    """Unless TMPDIR says where they are to be. Workers and other children inherit it."""
    if os.environ.get("TMPDIR") or not os.access(MEMORY, os.W_OK):
        return
    if os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:  # as in Docker; tests run programs that they write
        return
    available = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    if min(shutil.disk_usage(MEMORY).free, available) >= ENOUGH:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # found anew


def pytest_unconfigure(config: pytest.Config) -> None:
    if SHARED in config.stash:
        config.stash[SHARED].stop()


class WithWorkers:
    """What the controller of parallel workers (pytest-xdist) does besides."""

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker, before it starts, where the servers are."""
        node.workerinput["contraflow_servers"] = node.config.stash[SHARED].addresses()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.stash[CHOSEN]
    for fixture in ("server", "private_server"):
        if fixture not in metafunc.fixturenames:
            continue
        names = [name for name, url in chosen.items() if url is None or fixture == "server"]
        for mark in metafunc.definition.iter_markers("only_on"):
            names = [name for name in names if name.removesuffix("-url") in mark.args]
        # The scope given here overrides the fixture's own: a private server is each test's alone.
        scope: Literal["session", "function"] = "session" if fixture == "server" else "function"
        metafunc.parametrize(fixture, names or [None], indirect=True, scope=scope)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are meant for none of the chosen servers."""
    elsewhere = [item for item in items if _is_elsewhere(item)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if not _is_elsewhere(item)]


def _is_elsewhere(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and any(
        fixture in callspec.params and callspec.params[fixture] is None for fixture in ("server", "private_server")
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    chosen = config.stash[CHOSEN]
    left_out = {name: why for name, why in config.stash[EXCLUDED].items() if name not in chosen}
    if "all" in config.getoption("server") and left_out:
        terminalreporter.section("SERVERS LEFT OUT (tests/servers/exclusions.toml)", red=True, bold=True)
        for name, reason in left_out.items():
            terminalreporter.write_line(f"{name}: {reason}", red=True)
    terminalreporter.write_line(f"servers: {', '.join(chosen)}")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> servers.Server:
    """Each chosen server, one after the other; shared by the whole run, so it cannot be killed."""
    workerinput: dict[str, Any] | None = getattr(request.config, "workerinput", None)
    name: str = request.param
    if workerinput is not None:
        return reach(workerinput["contraflow_servers"][name])
    return reach(request.config.stash[SHARED].address(name))


@pytest.fixture
def database(server: servers.Server) -> Iterator[Database]:
    """A fresh database on each chosen server."""
    with fresh_database(server) as made:
        yield made


@pytest.fixture
def private_server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """A server of this test's own, of each chosen kind that can be started here: to kill and restart."""
    with servers.start(request.param) as own:
        yield own
