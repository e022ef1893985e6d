"""MariaDB 10.11, from Debian bookworm; its parts serve a Galera cluster as well."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from contraflow.rehearsal.servers import cache
from contraflow.rehearsal.servers.base import MySQLDatabases, Progress, Server, free_port, version_number
from contraflow.rehearsal.servers.packages import debian_prefix
from contraflow.rehearsal.servers.process import Home, ServerProcess, run_setup

__all__ = ["SETTINGS", "Programs", "admin_url", "copy_template", "install", "options", "programs", "start"]

SETTINGS: Mapping[str, str] = {
    "bind-address": "127.0.0.1",
    "skip-name-resolve": "1",
    "log-warnings": "1",
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-log-at-trx-commit": "2",  # 0 would lose a second of commits in a SIGKILL
    "innodb-flush-method": "nosync",
    "innodb-log-file-size": "16M",
    "sync-binlog": "0",
    "max-binlog-size": "64M",
    "binlog-expire-logs-seconds": "60",  # nobody reads it, and a long rehearsal writes gigabytes
    "max-connections": "200",
    "server-id": "1",
    # A trigger without SUPER is refused (1419) only where the binary log is on, as it is in production.
    "log-bin": "binlog",
}
"""What every scratch server has: commits that survive a SIGKILL but no power cut, and a binary log."""

_SYSTEM_TABLES = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
)


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Where one MariaDB lives: ``server`` is the program, ``base`` what its other paths begin with."""

    base: Path
    server: Path
    share: Path
    plugins: Path

    @property
    def version(self) -> str:
        """For example ``10.11.18``."""
        return version_number(
            run_setup("mariadb", [str(self.server), "--no-defaults", "--version"]).partition("Ver")[2]
        )


def start(settings: Mapping[str, str], progress: Progress) -> Server:
    """Start MariaDB; ``settings`` as in my.cnf. The account is ``root``, without a password."""
    found = programs(progress)
    port = free_port()
    databases = MySQLDatabases(admin_url(port))
    databases.check_driver()
    home = Home("mariadb")
    data = copy_template(found, home.path / "data", progress)
    process = ServerProcess(
        name="mariadb",
        home=home,
        command=[str(found.server), "--no-defaults", *options(found, data, port, settings)],
        ready=databases.ready,
        log=home.path / "log",
        cwd=data,
    )
    progress("starting mariadb")
    return Server.started("mariadb", databases, process)


def install(progress: Progress) -> None:
    """Install MariaDB's programs and initialise a data folder."""
    _template(programs(progress), progress)


def programs(progress: Progress, *, galera: bool = False) -> Programs:
    """MariaDB's programs: the system's if it is 10.11, else those of a private prefix.

    :param galera: take a prefix that has the Galera provider and what its state transfers need, too.
    :raises ProblemError: CF206 if they cannot be installed.
    """
    if not galera:
        system = _at(Path("/"))
        if system.server.exists() and (system.share / _SYSTEM_TABLES[0]).exists() and _is_ours(system):
            return system
        packages, extra = ["mariadb-server-core"], []
    else:
        packages = ["mariadb-server", "galera-4", "mariadb-backup", "rsync"]
        extra = ["mariadb", "mariadb-backup", "mbstream", "my_print_defaults", "rsync"]
    return _at(
        debian_prefix(
            "mariadb-galera-10.11" if galera else "mariadb-10.11",
            suite="bookworm",
            packages=packages,
            programs=["usr/sbin/mariadbd", *(f"usr/bin/{program}" for program in extra)],
            progress=progress,
        )
    )


def admin_url(port: int) -> sa.URL:
    """The URL of the account that may do everything."""
    return sa.URL.create("mariadb+pymysql", "root", host="127.0.0.1", port=port, query={"charset": "utf8mb4"})


def options(found: Programs, data: Path, port: int, settings: Mapping[str, str]) -> list[str]:
    """The command line of a server on ``data`` and ``port``: `SETTINGS`, overridden by ``settings``."""
    chosen = {**SETTINGS, **{name.replace("_", "-"): value for name, value in settings.items()}}
    return [
        *_paths(found, data),
        f"--port={port}",
        # Relative to the data folder: a socket's whole path must stay below 108 bytes.
        "--socket=mariadb.sock",
        f"--pid-file={data}/mariadb.pid",
        *(f"--{name}={value}" for name, value in chosen.items()),
    ]


def copy_template(found: Programs, data: Path, progress: Progress) -> Path:
    """Make ``data`` a freshly initialised data folder, and return it."""
    return shutil.copytree(_template(found, progress), data)


def _at(root: Path) -> Programs:
    return Programs(
        base=root / "usr",
        server=root / "usr/sbin/mariadbd",
        share=root / "usr/share/mysql",
        plugins=root / "usr/lib/mysql/plugin",
    )


def _is_ours(found: Programs) -> bool:
    return found.version.startswith("10.11.")


def _template(found: Programs, progress: Progress) -> Path:
    """An initialised data folder, made from the files that mariadb-install-db takes."""
    version = found.version

    def build(work: Path, _final: Path) -> None:
        progress(f"initialising a data folder for MariaDB {version}")
        home = Home("bootstrap")
        try:
            data = home.path / "data"
            data.mkdir()
            script = home.path / "bootstrap.sql"
            with script.open("wb") as file:
                # No account that only the system's root can use: tests log in over TCP.
                file.write(b"create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n")
                for name in _SYSTEM_TABLES:
                    file.write((found.share / name).read_bytes())
            with script.open("rb") as file:
                run_setup(
                    "mariadb",
                    [
                        str(found.server),
                        "--no-defaults",
                        *_paths(found, data),
                        "--bootstrap",
                        "--log-warnings=0",
                        "--enforce-storage-engine=",
                        "--max-allowed-packet=8M",
                        "--net-buffer-length=16K",
                        "--innodb-log-file-size=16M",
                    ],
                    stdin=file,
                    cwd=data,
                )
            shutil.copytree(data, work / "data")
        finally:
            home.close()

    return cache.ensure(f"data-mariadb-{version}", build) / "data"


def _paths(found: Programs, data: Path) -> list[str]:
    return [
        f"--basedir={found.base}",
        f"--datadir={data}",
        f"--tmpdir={data.parent}",
        f"--lc-messages-dir={found.share}",
        f"--character-sets-dir={found.share}/charsets",
        f"--plugin-dir={found.plugins}",
        # Refused without this if the starter is root; the server only listens on loopback.
        *as_root(),
    ]


def as_root() -> list[str]:
    """What a server of this family must be told to run as root."""
    return ["--user=root"] if os.geteuid() == 0 else []
