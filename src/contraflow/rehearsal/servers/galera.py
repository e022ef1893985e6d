"""A Galera cluster of three MariaDB nodes on loopback.

Real replication between real nodes: certification conflicts at COMMIT, nodes that are lost, nodes outside the quorum.
The nodes start from one copied data folder, so no state is transferred when they join. A node that was killed tells
where its own data stands (``--wsrep-recover``), and gets from the others what was written since: incremental state
transfer, out of their caches of 32 MB each.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.servers import cache, mariadb
from contraflow.rehearsal.servers.base import MySQLDatabases, Progress, Server, free_port
from contraflow.rehearsal.servers.process import Home, ServerProcess, run_setup

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GaleraCluster", "install", "start"]

_OPTIONS = (
    # A lost node is declared so after a second, not after the default five.
    "gcache.size=32M;evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1S;evs.inactive_timeout=PT2S;"
    "evs.inactive_check_period=PT0.2S;evs.install_timeout=PT2S;gmcast.peer_timeout=PT1S"
)
_UNANSWERED = "Connection timed out"
"""In the last lines of a node's log when it ends because it could not come into the group in time."""
_TRIES = 4


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
    cat "$CONTRAFLOW_POSITION"
fi
"""
# The interface of MariaDB's own scripts (wsrep_sst_rsync and others): nothing has to be sent, for a node that joins was
# given the data beforehand. It says where in the group's history it stands; the few events since come from the donor.


class GaleraCluster(Server):
    """Three nodes, all written to, all with the same databases; a context manager that stops them.

    As a `Server` it is its first node, but for what is said of the whole.

    :ivar nodes: each to be connected to, killed and restarted by itself. While two of three are gone, the third answers
        nothing, and the two do not come back.
    """

    nodes: Sequence[Server]

    def __init__(self, nodes: Sequence[_Node], databases: _NodeDatabases, home: Home) -> None:
        super().__init__(kind="galera", version=nodes[0].version, databases=databases, home=home)
        self.nodes = tuple(nodes)

    @classmethod
    def start(cls, progress: Progress = lambda _line: None, *, settings: Mapping[str, str] | None = None) -> Self:
        """Start three nodes and return when all of them are synced: about 10 s.

        :param settings: of every node, as in my.cnf.
        :raises ProblemError: CF206 if a program is missing and cannot be installed, CF207 if a node does not start.
        """
        found = mariadb.programs(progress, galera=True)
        template = _template(found, progress)
        home = Home("galera")
        # client and group communication; Galera takes the port above the latter for incremental transfers
        ports = [(free_port(), free_port()) for _ in range(3)]
        group = ",".join(f"127.0.0.1:{port}" for _, port in ports)
        nodes: list[_Node] = []
        try:
            for number, (port, group_port) in enumerate(ports, start=1):
                progress(f"starting galera node {number} of 3")
                data = home.path / f"node{number}" / "data"
                shutil.copytree(template, data)
                node = _Node(found, home, data, port, group_port, group, settings or {})
                node.join(first=number == 1)
                nodes.append(node)
            return cls(nodes, nodes[0].databases, home)
        except BaseException:
            home.close()
            raise

    def create_database(self) -> sa.URL:
        """Create an empty database, and return its URL on the first node when every node has it."""
        url = super().create_database()
        query = f"SELECT count(*) FROM information_schema.schemata WHERE schema_name = '{url.database}'"
        for node in self.nodes:
            with sa.create_engine(node.address, poolclass=sa.pool.NullPool).connect() as connection:
                while not connection.exec_driver_sql(query).scalar_one():
                    threading.Event().wait(0.01)
        return url

    def stop(self) -> None:
        """Kill all nodes and remove every trace: nobody needs their data any more."""
        for node in self.nodes:
            node.kill()
        super().stop()

    def _must_be_ours(self, verb: str) -> None:
        raise ProblemError(
            Problem(
                code="CF208",
                what=f"a cluster cannot be {verb} as a whole.",
                why="it would have to be begun anew by the node that knows most.",
                instead="choose one of its nodes.",
            )
        )


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


class _Node(Server):
    """One of them."""

    def __init__(
        self,
        found: mariadb.Programs,
        home: Home,
        data: Path,
        port: int,
        group_port: int,
        group: str,
        settings: Mapping[str, str],
    ) -> None:
        self.databases = _NodeDatabases(mariadb.admin_url(port))
        self._data = data
        self._command = _command(found, home, data, port, group_port, group, settings)
        process = ServerProcess(
            name="galera",
            home=home,
            command=self._command,
            ready=self.databases.ready,
            log=data.parent / "log",
            cwd=data,
        )
        super().__init__(kind="galera", version=found.version, databases=self.databases, process=process, home=home)
        self._process = process

    def join(self, *, first: bool = False) -> None:
        """Start it on data that was never written to, or was shut down in good order, and return when it is synced.

        :param first: begin a new cluster.
        """
        _position_file(self._data).write_text(f"{_position(self._data)}\n")
        self._enter(*(["--wsrep-new-cluster"] if first else []))

    def restart(self) -> None:
        """Start it again on its data, and return when it has got from the others what it missed.

        :raises ProblemError: CF207 if it does not come back.
        """
        self._process.stop()
        told = self._data.parent / "recovered.log"
        told.unlink(missing_ok=True)
        run_setup("galera", [*self._command, "--wsrep-recover", f"--log-error={told}"], cwd=self._data)
        recovered = re.findall(r"WSREP: Recovered position: (\S+)", told.read_text(errors="replace"))
        # The script tells the same: a node must not believe that it was given other data.
        _position_file(self._data).write_text(f"{recovered[-1]}\n")
        self._enter(f"--wsrep-start-position={recovered[-1]}")

    def _enter(self, *extra: str) -> None:
        """Start the process; again where the others did not answer in time, as on a busy machine: it ends then."""
        for left in reversed(range(_TRIES)):
            try:
                self._process.start(*extra)
            except ProblemError as error:
                if not left or _UNANSWERED not in str(error):
                    raise
            else:
                return

    def stop(self) -> None:
        """Shut it down in good order. Its data stays, for `restart`."""
        self._process.stop()


def start(settings: Mapping[str, str], progress: Progress) -> Server:
    """Start a cluster; ``settings`` of every node, as in my.cnf. The account is ``root``, without a password."""
    return GaleraCluster.start(progress, settings=settings)


def install(progress: Progress) -> None:
    """Install the programs and initialise a data folder."""
    _template(mariadb.programs(progress, galera=True), progress)


def _command(
    found: mariadb.Programs,
    home: Home,
    data: Path,
    port: int,
    group_port: int,
    group: str,
    settings: Mapping[str, str],
) -> list[str]:
    chosen = {
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
        **settings,
    }
    return [
        "/usr/bin/env",
        f"PATH={_transfer_script(home)}:{os.environ['PATH']}",
        f"CONTRAFLOW_POSITION={_position_file(data)}",
        str(found.server),
        "--no-defaults",
        *mariadb.options(found, data, port, chosen),
    ]


def _position_file(data: Path) -> Path:
    """What a node that joins tells of its data."""
    return data.parent / "position"


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
            node = _Node(found, home, data, free_port(), group_port, f"127.0.0.1:{group_port}", {})
            node.join(first=True)
            node.stop()
            shutil.copytree(data, work / "data")
        finally:
            home.close()

    return cache.ensure(f"data-galera-{found.version}", build) / "data"
