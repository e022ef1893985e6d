"""Oracle's MySQL 9.7, from Debian sid, which alone has it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

from contraflow.rehearsal.servers import cache
from contraflow.rehearsal.servers.base import MySQLDatabases, Progress, Server, free_port, version_number
from contraflow.rehearsal.servers.mariadb import as_root
from contraflow.rehearsal.servers.packages import debian_prefix
from contraflow.rehearsal.servers.process import Home, ServerProcess, run_setup

__all__ = ["install", "start"]

_SETTINGS = {
    "bind-address": "127.0.0.1",
    "skip-name-resolve": "1",
    "mysqlx": "OFF",
    "performance-schema": "OFF",
    "secure-file-priv": "",
    "innodb-buffer-pool-size": "64M",
    "innodb-redo-log-capacity": "64M",
    "innodb-flush-log-at-trx-commit": "2",  # 0 would lose a second of commits in a SIGKILL
    "innodb-flush-method": "nosync",
    "innodb-use-fdatasync": "ON",
    "sync-binlog": "0",
    "max-binlog-size": "64M",
    "binlog-expire-logs-seconds": "60",  # nobody reads it, and a long rehearsal writes gigabytes
    "max-connections": "200",
    "server-id": "1",
    "log-bin": "binlog",
}
"""As MariaDB's: commits that survive a SIGKILL but no power cut, and a binary log."""


def start(settings: Mapping[str, str], progress: Progress) -> Server:
    """Start MySQL; ``settings`` as in my.cnf. The account is ``root``, without a password."""
    prefix = _prefix(progress)
    port = free_port()
    databases = MySQLDatabases(
        sa.URL.create("mysql+pymysql", "root", host="127.0.0.1", port=port, query={"charset": "utf8mb4"})
    )
    databases.check_driver()
    home = Home("mysql")
    data = shutil.copytree(_template(prefix, progress), home.path / "data")
    chosen = {**_SETTINGS, **{name.replace("_", "-"): value for name, value in settings.items()}}
    process = ServerProcess(
        name="mysql",
        home=home,
        command=[
            *_command(prefix, data),
            f"--port={port}",
            "--socket=mysql.sock",  # relative to the data folder: its whole path must stay below 108 bytes
            f"--pid-file={data}/mysql.pid",
            *(f"--{name}={value}" for name, value in chosen.items()),
        ],
        ready=databases.ready,
        log=home.path / "log",
        cwd=data,
    )
    progress("starting mysql")
    return Server.started("mysql", databases, process)


def install(progress: Progress) -> None:
    """Install MySQL's programs and initialise a data folder."""
    _template(_prefix(progress), progress)


def _prefix(progress: Progress) -> Path:
    return debian_prefix(
        "mysql-9.7",
        suite="sid",
        packages=["mysql-server-core"],
        programs=["usr/sbin/mysqld"],
        progress=progress,
    )


def _template(prefix: Path, progress: Progress) -> Path:
    version = version_number(
        run_setup("mysql", [str(prefix / "usr/sbin/mysqld"), "--no-defaults", "--version"]).partition("Ver")[2]
    )

    def build(work: Path, _final: Path) -> None:
        progress(f"initialising a data folder for MySQL {version}")
        home = Home("initialize")
        try:
            # Without name resolution root@localhost cannot log in over TCP.
            accounts = home.path / "accounts.sql"
            accounts.write_text(
                "CREATE USER root@'127.0.0.1' IDENTIFIED BY '';\n"
                "GRANT ALL PRIVILEGES ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            )
            data = home.path / "data"
            run_setup(
                "mysql",
                [
                    *_command(prefix, data),
                    "--initialize-insecure",
                    f"--init-file={accounts}",
                    "--innodb-redo-log-capacity=64M",
                ],
                cwd=home.path,
            )
            (data / "auto.cnf").unlink(missing_ok=True)  # the server's identity: each copy gets its own
            shutil.copytree(data, work / "data")
        finally:
            home.close()

    return cache.ensure(f"data-mysql-{version}", build) / "data"


def _command(prefix: Path, data: Path) -> list[str]:
    share = prefix / "usr/share/mysql"
    return [
        str(prefix / "usr/sbin/mysqld"),
        "--no-defaults",
        f"--basedir={prefix}/usr",
        f"--datadir={data}",
        f"--tmpdir={data.parent}",
        f"--lc-messages-dir={share}",
        f"--character-sets-dir={share}/charsets",
        f"--plugin-dir={prefix}/usr/lib/mysql/plugin",
        *as_root(),
    ]
