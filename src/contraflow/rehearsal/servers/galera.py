"""A Galera cluster of three MariaDB nodes on loopback.

Real replication between real nodes: certification conflicts at COMMIT, nodes that are lost, nodes outside the quorum.
The nodes start from one copied data folder, so no state is transferred when they join; for the same reason a node that
was killed cannot come back into a cluster that has gone on without it: start a new cluster.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from contraflow.problems import ProblemError
from contraflow.rehearsal.servers import cache, mariadb
from contraflow.rehearsal.servers.base import MySQLDatabases, Progress, Server, free_port
from contraflow.rehearsal.servers.process import Home, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["GaleraCluster", "install"]

_OPTIONS = (
    # A lost node is declared so after a second, not after the default five.
    "gcache.size=32M;evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1S;evs.inactive_timeout=PT2S;"
    "evs.inactive_check_period=PT0.2S;evs.install_timeout=PT2S;gmcast.peer_timeout=PT1S"
)


_TRANSFER = """#!/bin/sh
role= gtid=
while [ $# -gt 0 ]; do
    case $1 in
        --role) role=$2; shift ;;
        --gtid) gtid=$2; shift ;;
    esac
    shift
done
if [ "$role" = donor ]; then
    echo "done $gtid"
else
    echo "ready 127.0.0.1:1/copied"
    echo "$CONTRAFLOW_POSITION"
fi
"""
# The interface of MariaDB's own scripts (wsrep_sst_rsync and others): nothing has to be sent, for a node that joins was
# given the data beforehand. It says where in the group's history it stands; the few events since come from the donor.


class GaleraCluster:
    """Three nodes, all written to, all with the same databases; a context manager that stops them.

    :ivar nodes: `Server`, each to be connected to, killed or stopped by itself. `Server.restart` does not bring one
        back into the cluster.
    """

    def __init__(self, nodes: Sequence[Server], home: Home) -> None:
        self.nodes = list(nodes)
        self._home = home

    @classmethod
    def start(cls, progress: Progress = lambda _line: None) -> Self:
        """Start three nodes and return when all of them are synced: about 10 s.

        :raises ProblemError: CF206 if a program is missing and cannot be installed, CF207 if a node does not start.
        """
        found = mariadb.programs(progress, galera=True)
        template = _template(found, progress)
        home = Home("galera")
        # client and group communication; Galera takes the port above the latter for incremental transfers
        ports = [(free_port(), free_port()) for _ in range(3)]
        group = ",".join(f"127.0.0.1:{port}" for _, port in ports)
        nodes: list[Server] = []
        try:
            for number, (port, group_port) in enumerate(ports, start=1):
                progress(f"starting galera node {number} of 3")
                data = home.path / f"node{number}" / "data"
                shutil.copytree(template, data)
                process, databases = _node(found, home, data, port, group_port, group)
                process.start(*(["--wsrep-new-cluster"] if number == 1 else []))
                version = found.version
                nodes.append(Server(kind="galera", version=version, databases=databases, process=process, home=home))
        except BaseException:
            home.close()
            raise
        return cls(nodes, home)

    def create_database(self) -> list[sa.URL]:
        """Create an empty database on all nodes; its URL on each."""
        first = self.nodes[0].create_database()
        return [node.url(str(first.database)) for node in self.nodes]

    def stop(self) -> None:
        """Kill all nodes and remove every trace: nobody needs their data any more."""
        for node in self.nodes:
            node.kill()
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _NodeDatabases(MySQLDatabases):
    """Ready when the node is part of a cluster and up to date with it: it answers before that."""

    def ready(self) -> bool:
        try:
            return str(self.scalar("SHOW STATUS LIKE 'wsrep_ready'", column=1)) == "ON" and (
                str(self.scalar("SHOW STATUS LIKE 'wsrep_local_state_comment'", column=1)) == "Synced"
            )
        except (DBAPIError, ProblemError):
            return False

    def scalar(self, statement: str, column: int = 0) -> object:
        """One value of the first row that ``statement`` yields."""
        with self.connection() as connection:
            row = connection.exec_driver_sql(statement).one()
            value: object = row[column]
            return value


def install(progress: Progress) -> None:
    """Install the programs and initialise a data folder."""
    _template(mariadb.programs(progress, galera=True), progress)


def _node(
    found: mariadb.Programs, home: Home, data: Path, port: int, group_port: int, group: str
) -> tuple[ServerProcess, _NodeDatabases]:
    databases = _NodeDatabases(mariadb.admin_url(port))
    settings = {
        "wsrep-on": "ON",
        "wsrep-provider": str(found.base / "lib/galera/libgalera_smm.so"),
        "wsrep-cluster-name": "contraflow",
        "wsrep-cluster-address": f"gcomm://{group}",
        "wsrep-node-address": f"127.0.0.1:{group_port}",
        "wsrep-node-incoming-address": f"127.0.0.1:{port}",
        "wsrep-sst-method": "copied",
        "wsrep-provider-options": f"gmcast.listen_addr=tcp://127.0.0.1:{group_port};{_OPTIONS}",
        "binlog-format": "ROW",
        "innodb-autoinc-lock-mode": "2",
    }
    process = ServerProcess(
        name="galera",
        home=home,
        command=[
            "/usr/bin/env",
            f"PATH={_transfer_script(home)}:{os.environ['PATH']}",
            f"CONTRAFLOW_POSITION={_position(data)}",
            str(found.server),
            "--no-defaults",
            *mariadb.options(found, data, port, settings),
        ],
        ready=databases.ready,
        log=data.parent / "log",
        cwd=data,
    )
    return process, databases


def _transfer_script(home: Home) -> Path:
    """A folder with the script that a node calls to get, and to give, a snapshot of the data."""
    script = home.path / "bin" / "wsrep_sst_copied"
    if not script.exists():
        script.parent.mkdir()
        script.write_text(_TRANSFER)
        script.chmod(0o755)
    return script.parent


def _position(data: Path) -> str:
    """Where in the group's history ``data`` is, for example ``6b0e...:1``; nowhere if it was never part of one."""
    state = data / "grastate.dat"
    if not state.exists():
        return ""
    found = dict(re.findall(r"^(uuid|seqno): *(\S+)$", state.read_text(), re.MULTILINE))
    return f"{found['uuid']}:{found['seqno']}"


def _template(found: mariadb.Programs, progress: Progress) -> Path:
    """A data folder that has been a cluster of one and was shut down: its position in the group is known."""

    def build(work: Path, _final: Path) -> None:
        progress("initialising a data folder for Galera")
        home = Home("galera-template")
        try:
            data = mariadb.copy_template(found, home.path / "node" / "data", progress)
            group_port = free_port()
            process, _ = _node(found, home, data, free_port(), group_port, f"127.0.0.1:{group_port}")
            process.start("--wsrep-new-cluster")
            process.stop()
            shutil.copytree(data, work / "data")
        finally:
            home.close()

    return cache.ensure(f"data-galera-{found.version}", build) / "data"
