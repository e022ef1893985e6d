"""What each kind of fault does to a server, its connections or its tables, from its first moment to its last.

A strike is a function that runs in a thread of its own: it does harm, says that it has (`Scene.begun`), lets it last
(`Scene.last`), and takes it back. It returns, in words, what came of it. Everything it opened is closed at its end.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from contraflow import faults
from contraflow.engine.report import Progress
from contraflow.problems import ContraflowError
from contraflow.rehearsal.faults import Fault
from contraflow.rehearsal.proxy import COMMIT, FaultProxy, Harm, When
from contraflow.rehearsal.reach import flavour
from contraflow.rehearsal.record import FaultRecord, Finding, Try
from contraflow.rehearsal.servers import Server

__all__ = ["STRIKES", "Scene", "Stage", "Striking"]

_PATIENCE = 2
"""Seconds that a strike waits for a lock: it must not wait for what waits for it."""
_MOST_CONNECTIONS = 2000
_STORMERS = 3
_ROWS = 40


class Stage(Protocol):
    """What a rehearsal lets its faults strike, and what it wants to know of them. Called from several threads."""

    @property
    def server(self) -> Server:
        """The scratch server."""

    @property
    def url(self) -> sa.URL:
        """The database, straight."""

    @property
    def urls(self) -> Sequence[sa.URL]:
        """The same on each node of a cluster, which the starts of the runner take in turn; else that one alone."""

    @property
    def proxies(self) -> Sequence[FaultProxy]:
        """What the workers connect through; none on SQLite."""

    @property
    def tables(self) -> Sequence[tuple[str | None, str]]:
        """Schema and name of the tables that the upgrade changes; those that stand are locked and read."""

    def now(self) -> float:
        """Seconds since the rehearsal began."""

    def struck(self, fault: FaultRecord) -> None:
        """A fault is over."""

    def tried(self, one: Try) -> None:
        """A start of the runner is over."""

    def found(self, finding: Finding) -> None:
        """Something is wrong that no fault excuses."""

    def progress(self, progress: Progress) -> None:
        """What the runner tells."""

    def take_back(self) -> str:
        """End the new release, roll the upgrade back, and go forward again until both releases work as before.

        :returns: what came of it, in words.
        """


@dataclass(kw_only=True)
class Scene:
    """One fault at work."""

    stage: Stage
    fault: Fault
    rng: random.Random
    _begun: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    def begun(self) -> None:
        """Say that the harm is done."""
        self._begun.set()

    def last(self) -> None:
        """Let it last as long as the fault says, or until the rehearsal is broken off."""
        self._over.wait(self.fault.seconds)

    def rest(self, seconds: float) -> None:
        """Wait a little between two blows."""
        self._over.wait(seconds)

    @contextlib.contextmanager
    def lasting(self) -> Iterator[Callable[[], bool]]:
        """Whether it is still to last, for a strike of many blows."""
        end = time.monotonic() + self.fault.seconds
        yield lambda: time.monotonic() < end and not self._over.is_set()

    @contextlib.contextmanager
    def connect(self, *, weight: bool = False, url: sa.URL | None = None) -> Iterator[sa.Connection]:
        """A connection of the strike's own, in autocommit, that does not wait long for locks.

        With ``weight``, it is not the one to be chosen when two wait for each other. ``url``: not the stage's.
        """
        url = url or self.stage.url
        sqlite = url.get_backend_name() == "sqlite"
        engine = sa.create_engine(
            url,
            poolclass=sa.pool.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": _PATIENCE} if sqlite else {},
        )
        with engine.connect() as connection:
            for statement in _PREPARE.get(connection.dialect.name, ()):
                connection.exec_driver_sql(statement)
            if weight and connection.dialect.name == "postgresql":
                # The one that has waited this long looks for a deadlock, and is its victim.
                connection.exec_driver_sql("SET deadlock_timeout = '1h'")
            try:
                yield connection
            finally:
                # The server, or the connection, may be another fault's victim.
                with contextlib.suppress(sa.exc.DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")

    def tables(self, connection: sa.Connection) -> list[sa.TableClause]:
        """Those of the stage's tables that stand now."""
        inspector = sa.inspect(connection)
        standing = {schema: set(inspector.get_table_names(schema)) for schema, _ in self.stage.tables}
        return [sa.table(name, schema=schema) for schema, name in self.stage.tables if name in standing[schema]]


_PREPARE: Mapping[str, Sequence[str]] = {
    "postgresql": [f"SET lock_timeout = '{_PATIENCE}s'"],
    "mysql": [f"SET lock_wait_timeout = {_PATIENCE}, innodb_lock_wait_timeout = {_PATIENCE}"],
    "mariadb": [f"SET lock_wait_timeout = {_PATIENCE}, innodb_lock_wait_timeout = {_PATIENCE}"],
}


class Striking:
    """A fault that strikes, in a thread of its own."""

    def __init__(self, fault: Fault, stage: Stage, seed: str) -> None:
        self.fault = fault
        self._scene = Scene(stage=stage, fault=fault, rng=random.Random(seed))  # noqa: S311 - repeatable on purpose
        self._began = stage.now()
        self._thread = threading.Thread(target=self._run, name=f"contraflow-{fault.kind}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        scene = self._scene
        try:
            detail = STRIKES[self.fault.kind](scene)
        except (sa.exc.SQLAlchemyError, OSError, ContraflowError) as error:
            # Faults may meet: a server that another one has just killed refuses this one's connection.
            detail = f"broken off: {str(error).splitlines()[0]}"
        finally:
            scene.begun()
        stage = scene.stage
        until = stage.now() if self.fault.seconds or self.fault.kind == "server-restarted" else None
        stage.struck(
            FaultRecord(kind=self.fault.kind, title=self.fault.title, at=self._began, until=until, detail=detail)
        )

    def wait_until_begun(self) -> None:
        """Return when the harm is done (or could not be done)."""
        self._scene._begun.wait()  # noqa: SLF001 - one module

    def join(self) -> None:
        """Return when everything is taken back."""
        self._thread.join()

    def stop(self) -> None:
        """Take everything back now."""
        self._scene._over.set()  # noqa: SLF001 - one module
        self.join()


# -- transactions ---


def _long_reader(scene: Scene) -> str:
    """It has read every table, and keeps its snapshot and its locks."""
    with scene.connect() as connection:
        tables = scene.tables(connection)
        connection.exec_driver_sql("BEGIN")
        for table in tables:
            connection.execute(sa.select(sa.literal_column("1")).select_from(table).limit(1)).all()
        scene.begun()
        scene.last()
    return f"{len(tables)} tables read"


def _idle_in_transaction(scene: Scene) -> str:
    """It holds what a writer holds on each table, without having changed a row."""
    with scene.connect() as connection:
        tables = scene.tables(connection)
        connection.exec_driver_sql("BEGIN")
        for table in tables:
            connection.execute(sa.delete(table).where(sa.false()))
        scene.begun()
        scene.last()
    return f"{len(tables)} tables held"


def _lock_storm(scene: Scene) -> str:
    """Several sessions lock whole tables for some hundredths of a second, again and again."""
    taken = [0] * _STORMERS

    def storm(number: int) -> None:
        rng = random.Random(f"{scene.fault}/{number}")  # noqa: S311 - repeatable on purpose
        with scene.connect() as connection, scene.lasting() as going:
            tables = scene.tables(connection)
            while tables and going():
                with contextlib.suppress(sa.exc.DBAPIError):  # not had in time, or the table has just gone
                    begin, end = _lock(connection, rng.choice(tables), rng)
                    for statement in begin:
                        connection.exec_driver_sql(statement)
                    taken[number] += 1
                    scene.begun()
                    scene.rest(rng.uniform(0.005, 0.05))
                    connection.exec_driver_sql(end)
                    scene.rest(rng.uniform(0.005, 0.05))
                    continue
                with contextlib.suppress(sa.exc.DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")
                if connection.invalidated:
                    return

    _all_at_once(storm, _STORMERS)
    return f"{sum(taken)} locks taken"


def _lock(connection: sa.Connection, table: sa.TableClause, rng: random.Random) -> tuple[list[str], str]:
    """What locks a table, and what gives it free."""
    name = connection.dialect.identifier_preparer.format_table(table)
    if connection.dialect.name == "sqlite":
        return ["BEGIN IMMEDIATE"], "ROLLBACK"
    if connection.dialect.name in ("mysql", "mariadb"):
        return [f"LOCK TABLES {name} {rng.choice(('READ', 'WRITE'))}"], "UNLOCK TABLES"
    mode = rng.choice(("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"))
    return ["BEGIN", f"LOCK TABLE {name} IN {mode} MODE"], "ROLLBACK"


def _deadlocks(scene: Scene) -> str:
    """Two sessions lock the same rows, one upwards and one downwards, and meet each other and the workers."""
    met = [0, 0]

    def hunt(number: int) -> None:
        with scene.connect(weight=number == 0) as connection, scene.lasting() as going:
            rows = _some_rows(connection, scene.tables(connection))
            while rows and going():
                try:
                    connection.exec_driver_sql("BEGIN")
                    for select in rows if number else reversed(rows):
                        connection.execute(select).all()
                        scene.rest(0.003)
                except sa.exc.DBAPIError as error:
                    if faults.diagnose(error).fault is faults.Fault.DEADLOCK:
                        met[number] += 1
                        scene.begun()
                with contextlib.suppress(sa.exc.DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")
                if connection.invalidated:
                    return
                scene.rest(0.01)

    _all_at_once(hunt, 2)
    return f"{sum(met)} deadlocks lost by the fault's own sessions"


def _some_rows(connection: sa.Connection, tables: Sequence[sa.TableClause]) -> list[sa.Select[Any]]:
    """Statements that lock one row each, in the order of their keys."""
    found: list[sa.Select[Any]] = []
    inspector = sa.inspect(connection)
    for table in tables:
        key = inspector.get_pk_constraint(table.name, table.schema)["constrained_columns"]
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in key]
        if not columns:
            continue
        query = sa.select(*columns).select_from(table).order_by(*columns).limit(_ROWS)
        for row in connection.execute(query).all():
            same = (column == value for column, value in zip(columns, row, strict=True))
            found.append(sa.select(*columns).select_from(table).where(*same).with_for_update())
    return found[:_ROWS]


def _all_at_once(target: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=_unless_broken, args=(target, n), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _unless_broken(target: Callable[[int], None], number: int) -> None:
    with contextlib.suppress(sa.exc.SQLAlchemyError):
        target(number)


# -- connections ---


def _worker_cut(scene: Scene) -> str:
    cut = sum(proxy.cut() for proxy in scene.stage.proxies)
    scene.begun()
    return f"{cut} connections cut"


def _commit_lost(scene: Scene) -> str:
    return _harmed(scene, _commit(scene), Harm.CUT, when=When.ANSWERED)


def _commit(scene: Scene) -> str:
    """What the workers' transactions are committed by: on CockroachDB, `contraflow.retry` releases its savepoint."""
    cockroachdb = flavour(scene.stage.server, scene.stage.url) == "cockroachdb"
    return "RELEASE SAVEPOINT cockroach_restart" if cockroachdb else COMMIT


def _worker_delayed(scene: Scene) -> str:
    return _harmed(scene, ".", Harm.DELAY, seconds=scene.rng.uniform(0.02, 0.2))


def _serialization_failed(scene: Scene) -> str:
    """Every other COMMIT is refused by the server itself, as one that lost a conflict."""
    lost = _LOST_CONFLICT[flavour(scene.stage.server, scene.stage.url)]
    return _harmed(scene, _commit(scene), Harm.REPLACE, instead=lost, every=2)


_LOST_CONFLICT: Mapping[str, str] = {
    "postgresql": "DO $$BEGIN RAISE EXCEPTION 'could not serialize access (injected)'"
    " USING ERRCODE = 'serialization_failure'; END$$",
    "cockroachdb": "SELECT crdb_internal.force_error('40001', 'restart transaction: injected')",
    "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found (injected)'",
    "mariadb": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found (injected)'",
}
"""A statement that fails with the server's own code for a transaction that must be run again."""


def _harmed(scene: Scene, marker: str, harm: Harm, **options: Any) -> str:
    """Let every proxy do harm to each message with ``marker`` for as long as the fault lasts."""
    with contextlib.ExitStack() as stack:
        fired = [stack.enter_context(proxy.harming(marker, harm, **options)) for proxy in scene.stage.proxies]
        scene.begun()
        scene.last()
    return f"{sum(count() for count in fired)} messages"


def _black_hole(scene: Scene) -> str:
    """In the end they are cut, as a firewall does that has forgotten them: a client without a timeout would wait on."""
    holes = [proxy.black_hole() for proxy in scene.stage.proxies]
    scene.begun()
    scene.last()
    for proxy in scene.stage.proxies:
        proxy.cut(silent_only=True)
    return f"{sum(holes)} connections"


def _out_of_connections(scene: Scene) -> str:
    """Take every connection that the server will give. MySQL and MariaDB are told to give few more than they have."""
    engine = sa.create_engine(scene.stage.url, poolclass=sa.pool.NullPool)
    with scene.connect() as control, contextlib.ExitStack() as stack:
        if control.dialect.name in ("mysql", "mariadb"):
            before = control.exec_driver_sql("SELECT @@GLOBAL.max_connections").scalar_one()
            now = int(_status(control, "Threads_connected"))
            control.exec_driver_sql(f"SET GLOBAL max_connections = {max(now, 10)}")
            stack.callback(_limit_again, control, before)
        for taken in range(_MOST_CONNECTIONS):
            try:
                stack.enter_context(engine.connect())
            except sa.exc.DBAPIError as error:
                if faults.diagnose(error).fault is not faults.Fault.UNAVAILABLE:
                    raise
                scene.begun()
                scene.last()
                return f"refused after {taken} connections were taken"
        return f"the server gave {_MOST_CONNECTIONS} connections and more"


def _limit_again(connection: sa.Connection, limit: int) -> None:
    with contextlib.suppress(sa.exc.DBAPIError):  # a server that was restarted meanwhile has its own limit again
        connection.exec_driver_sql(f"SET GLOBAL max_connections = {limit}")


# -- servers ---


def _server_killed(scene: Scene) -> str:
    if scene.fault.inside:
        scene.rest(scene.rng.uniform(0.0, 0.005))
    scene.stage.server.kill()
    scene.begun()
    scene.last()
    scene.stage.server.restart()
    return "SIGKILL, then started again"


def _server_restarted(scene: Scene) -> str:
    scene.begun()
    scene.stage.server.restart()
    return "stopped in good order, then started again"


_one_node = threading.Lock()
"""Two nodes of three at once would take the quorum from the third, and no node alone could begin anew."""


def _node_killed(scene: Scene) -> str:
    with _one_node:
        node = scene.rng.choice(scene.stage.server.nodes)
        node.kill()
        scene.begun()
        scene.last()
        node.restart()
    return f"the node on port {node.address.port}: SIGKILL, then started again, until it is synced"


def _node_partitioned(scene: Scene) -> str:
    """The node hears no other one (Galera's parameter ``gmcast.isolate``): it leaves the quorum, and comes back."""
    node = scene.rng.choice(scene.stage.server.nodes)
    engine = sa.create_engine(node.address, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
    with _one_node, engine.connect() as connection:
        connection.exec_driver_sql("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")
        try:
            while _status(connection, "wsrep_ready") == "ON":
                scene.rest(0.05)
            scene.begun()
            scene.last()
        finally:
            connection.exec_driver_sql("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
        while _status(connection, "wsrep_local_state_comment") != "Synced":
            scene.rest(0.05)
    return f"the node on port {node.address.port}, until it is synced again"


def _flow_control(scene: Scene) -> str:
    """A lock on one node keeps it from applying what the others write, until it makes them wait (flow control)."""
    with _one_node, scene.connect(url=scene.rng.choice(scene.stage.urls)) as connection:
        preparer = connection.dialect.identifier_preparer
        tables = [preparer.format_table(table) for table in scene.tables(connection)]
        options = str(connection.exec_driver_sql("SELECT @@GLOBAL.wsrep_provider_options").scalar_one())
        limit = re.findall(r"gcs\.fc_limit = ([^;]+)", options)[0]
        before = int(_status(connection, "wsrep_flow_control_sent"))
        connection.exec_driver_sql("SET GLOBAL wsrep_provider_options = 'gcs.fc_limit=1'")
        try:
            connection.exec_driver_sql(f"LOCK TABLES {', '.join(f'{table} READ' for table in tables)}")
            scene.begun()
            scene.last()
            connection.exec_driver_sql("UNLOCK TABLES")
        finally:
            connection.exec_driver_sql(f"SET GLOBAL wsrep_provider_options = 'gcs.fc_limit={limit}'")
        sent = int(_status(connection, "wsrep_flow_control_sent")) - before
    return f"{len(tables)} tables locked on one node, which stopped the others {sent} times"


def _status(connection: sa.Connection, name: str) -> str:
    return str(connection.exec_driver_sql(f"SHOW STATUS LIKE '{name}'").one()[1])


STRIKES: Mapping[str, Callable[[Scene], str]] = {
    "worker-cut": _worker_cut,
    "commit-lost": _commit_lost,
    "serialization-failed": _serialization_failed,
    "worker-delayed": _worker_delayed,
    "black-hole": _black_hole,
    "long-reader": _long_reader,
    "idle-in-transaction": _idle_in_transaction,
    "lock-storm": _lock_storm,
    "deadlocks": _deadlocks,
    "out-of-connections": _out_of_connections,
    "server-restarted": _server_restarted,
    "server-killed": _server_killed,
    "node-killed": _node_killed,
    "node-partitioned": _node_partitioned,
    "flow-control": _flow_control,
}
"""What each kind does; those of the runner itself are the injector's."""
