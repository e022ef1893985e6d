"""The node registry: which releases of the application are alive.

A node is a process that announces itself by a row in ``contraflow_node`` and renews it. The registry is a
comfort that the contract gate looks at; the application works the same without it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import sqlalchemy as sa

from contraflow import dialects
from contraflow.dialects.base import Adapter
from contraflow.engine.connect import Database, is_memory
from contraflow.engine.journal import Entry, Tables
from contraflow.engine.report import Node, NodeSide
from contraflow.problems import Problem, ProblemError

__all__ = ["Heartbeat", "forget", "gate", "library_version", "no_such_node", "read_nodes", "side_of"]

_log = logging.getLogger("contraflow.nodes")


def library_version() -> str:
    """The version of the installed Contraflow."""
    return metadata.version("contraflow")


# -- reading ---


def side_of(release: str, entry: Entry | None) -> NodeSide:
    """Which side of an upgrade a release is on."""
    if entry is None:
        return "unknown"
    if release == entry.old:
        return "old"
    if release == entry.new or any(release == revision.id for revision in entry.revisions):
        return "new"
    return "unknown"


def read_nodes(connection: sa.Connection, tables: Tables, entry: Entry | None, *, now: float, ttl: float) -> list[Node]:
    """Every node that announced itself and did not sign off, the newest heartbeat first."""
    table = tables.node
    rows = connection.execute(sa.select(table).order_by(table.c.seen.desc(), table.c.id)).mappings()
    return [
        Node(
            id=row["id"],
            name=row["name"],
            release=row["release"],
            host=row["host"],
            pid=row["pid"],
            started=row["started"],
            seen=row["seen"],
            age=max(0.0, now - row["seen"]),
            alive=now - row["seen"] <= ttl,
            side=side_of(row["release"], entry),
        )
        for row in rows
    ]


def gate(nodes: Sequence[Node], *, verb: str, upgrade: str) -> Problem | None:
    """``CF401`` if live nodes keep ``contract`` or ``rollback`` from being safe, else None.

    A release that the upgrade does not know may rely on either shape, so it counts for both.
    """
    harmless: NodeSide = "new" if verb == "contract" else "old"
    alive = [node for node in nodes if node.alive and node.side != harmless]
    if not alive:
        return None
    names = ", ".join(f"{node.name} (release {node.release}, {node.side})" for node in alive)
    wanted = "new" if verb == "contract" else "old"
    return Problem(
        code="CF401",
        what=f"cannot {verb} {upgrade}: {len(alive)} node(s) are alive that may not run the {wanted} release: {names}.",
        why=f"{verb} takes away the shape of the tables that they use.",
        instead=(
            f"replace them by nodes of the {wanted} release; one that is gone is forgotten in time, or by "
            f"contraflow nodes forget ID; or contraflow {verb} --force 'REASON'."
        ),
    )


# -- announcing ---


class Heartbeat:
    """Announces this process in the node registry, from a thread of its own.

    ``engine`` is the application's :class:`sqlalchemy.Engine` (or its ``AsyncEngine``). ``release`` is a
    revision id, as the journal knows the two releases, or a name of your own. ``interval`` is seconds between
    heartbeats; keep it well under the runner's ``node_ttl``.

    The thread starts when the engine is first used, in each process that uses it (a forked worker is a node
    of its own). It waits out database outages, and a database without the journal's tables. Nothing it meets
    reaches the application; the logger ``contraflow.nodes`` tells.
    """

    def __init__(
        self,
        engine: Any,
        *,
        release: str,
        interval: float = 10.0,
        name: str | None = None,
        schema: str | None = None,
    ) -> None:
        if not interval > 0:
            raise ValueError("interval must be positive")
        self.release = release
        self.interval = interval
        self._name = name
        self._tables = Tables(schema)
        self._engine: sa.Engine = getattr(engine, "sync_engine", engine)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._adapter: Adapter | None = None
        self._stopped = False
        self.node_id: str | None = None
        """The id of this process's row; None until the thread runs."""
        sa.event.listen(self._engine, "engine_connect", self._used)
        # The interpreter's end is a clean stop too; a weak reference, so that a forgotten heartbeat is not
        # kept alive by it.
        self._at_exit = _at_exit(weakref.ref(self))
        atexit.register(self._at_exit)

    def _used(self, _connection: sa.Connection) -> None:
        if self._pid != os.getpid() and threading.current_thread() is not self._thread:
            self.start()

    def start(self) -> None:
        """Start announcing now, instead of at the engine's first use. Does nothing if it runs already."""
        with self._lock:
            if self._stopped or is_memory(self._engine.url):
                self._pid = os.getpid()
                return
            if self._pid == os.getpid() and self._thread is not None and self._thread.is_alive():
                return
            self._pid = os.getpid()
            self._stop = threading.Event()
            self.node_id = uuid.uuid4().hex
            self._thread = threading.Thread(target=self._run, name="contraflow-heartbeat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop announcing and take the node's row away. Never raises; waits at most one interval for the
        thread.
        """
        with self._lock:
            self._stopped = True
            thread, self._thread = self._thread, None
        self._stop.set()
        atexit.unregister(self._at_exit)
        with contextlib.suppress(sa.exc.InvalidRequestError):
            sa.event.remove(self._engine, "engine_connect", self._used)
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join(self.interval)

    def _run(self) -> None:
        stop, node = self._stop, self.node_id
        assert node is not None  # noqa: S101 - set before the thread starts
        quiet = False
        while True:
            try:
                self._beat(node)
                quiet = False
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the application
                _log.log(logging.DEBUG if quiet else logging.WARNING, "no heartbeat: %s", error)
                quiet = True
            if stop.wait(self.interval):
                break
        try:
            self._sign_off(node)
        except Exception as error:  # noqa: BLE001 - the row runs out by itself
            _log.debug("the node's row could not be removed: %s", error)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        if self._engine.dialect.is_async:
            database = Database(self._engine)
            try:
                with database.connect() as connection:
                    yield connection
            finally:
                database.close()
        else:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                yield connection

    def _beat(self, node: str) -> None:
        table = self._tables.node
        with self._connect() as connection:
            if not sa.inspect(connection).has_table(table.name, schema=table.schema):
                return  # no upgrade was ever begun here: nobody asks
            if self._adapter is None:
                self._adapter = dialects.choose(connection)
            now = self._adapter.server_time(connection)
            renewed = connection.execute(
                sa.update(table).where(table.c.id == node).values(seen=now, release=self.release)
            ).rowcount
            if not renewed:
                host = socket.gethostname()
                connection.execute(
                    sa.insert(table).values(
                        id=node,
                        name=(self._name or f"{host}:{os.getpid()}")[:255],
                        release=self.release,
                        host=host[:255],
                        pid=os.getpid(),
                        started=now,
                        seen=now,
                        library_version=library_version(),
                    )
                )

    def _sign_off(self, node: str) -> None:
        table = self._tables.node
        with self._connect() as connection:
            if sa.inspect(connection).has_table(table.name, schema=table.schema):
                connection.execute(sa.delete(table).where(table.c.id == node))


def _at_exit(reference: weakref.ref[Heartbeat]) -> Any:
    def stop() -> None:
        heartbeat = reference()
        if heartbeat is not None:
            heartbeat.stop()

    return stop


def forget(connection: sa.Connection, tables: Tables, node: str) -> None:
    """Remove a node's row. Raises ``CF402`` if there is none."""
    table = tables.node
    if not connection.execute(sa.delete(table).where(table.c.id == node)).rowcount:
        raise no_such_node(node)


def no_such_node(node: str) -> ProblemError:
    """``CF402``: the registry has no such node."""
    return ProblemError(
        Problem(
            code="CF402",
            what=f"no node has the id {node}.",
            why="it signed off, or was forgotten already.",
            instead="contraflow nodes lists the nodes and their ids.",
        )
    )
