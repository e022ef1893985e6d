"""Upgrades of a real three-node Galera cluster, both releases on nodes of their own. Runs where MariaDB is chosen."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from contraflow import AddColumn, CreateTable, DropForeignKey, RenameTable
from contraflow.engine import State
from contraflow.faults import Fault, classify
from contraflow.operations.base import Operation
from contraflow.problems import ProblemError
from contraflow.rehearsal.servers.galera import GaleraCluster
from tests.engine.service import contents, make_tables, run_killed, runner, snapshot, upgrade
from tests.operations.courses import COURSES, Course
from tests.operations.load import carry
from tests.servers.misread import misread, unless_triggers_are_misread
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]
TABLES = ("users", "items", "hollow")  # Galera wants a primary key
UPGRADE = upgrade(tables=TABLES)
ROWS = 40
OWN = 10_000
"""The first key of the rows that writers insert."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[GaleraCluster]:
    """A cluster that every test leaves whole."""
    with GaleraCluster.start() as started:
        yield started


@pytest.fixture
def nodes(cluster: GaleraCluster) -> Iterator[list[sa.Engine]]:
    """See :func:`new_database`."""
    with new_database(cluster) as engines:
        yield engines


@contextlib.contextmanager
def new_database(cluster: GaleraCluster) -> Iterator[list[sa.Engine]]:
    """A new database with the service's tables, as each node has it. A read waits for what other nodes committed."""
    database = str(cluster.create_database().database)
    engines = [sa.create_engine(node.url(database)) for node in cluster.nodes]
    for engine in engines:
        sa.event.listen(engine, "connect", _wait_for_writes)
    try:
        make_tables(engines[0], tables=TABLES, rows=ROWS)
        yield engines
    finally:
        for engine in engines:
            engine.dispose()


def _wait_for_writes(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 15")


@dataclass(kw_only=True)
class Service:
    """One node of one release: writes rows of its own, and reads each of them back in its own shape."""

    engine: sa.Engine
    insert: str
    update: str
    read: str
    first: int
    """Its keys are this one and those after it by twos."""
    names: dict[int, str] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    aborted: int = 0
    """Transactions that a schema change, or the backfill on another node, made to run again: errors 1213 and 1205."""

    def work(self, done: threading.Event) -> None:
        key = self.first
        try:
            while not done.is_set():
                self._settle(self.insert, key, f"In{key}")
                self._settle(self.update, key, f"Up{key}")
                self._settle(self.update, self.first % 2, f"Hot{key}")
                key += 2
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.errors.append(error)

    def _settle(self, statement: str, key: int, last: str) -> None:
        while True:
            try:
                with self.engine.begin() as connection:
                    connection.execute(sa.text(statement), {"key": key, "whole": f"A {last}", "last": last})
                    found = connection.execute(sa.text(self.read), {"key": key}).scalar_one()
                    assert found == last or found == f"A {last}"
            except sa.exc.DBAPIError as error:
                if classify(error) not in (Fault.DEADLOCK, Fault.LOCK_TIMEOUT):
                    raise
                self.aborted += 1
            else:
                self.names[key] = f"A {last}"
                return


def old_service(engine: sa.Engine, first: int) -> Service:
    return Service(
        engine=engine,
        insert="INSERT INTO users (id, full_name) VALUES (:key, :whole)",
        update="UPDATE users SET full_name = :whole WHERE id = :key",
        read="SELECT full_name FROM users WHERE id = :key",
        first=first,
    )


def new_service(engine: sa.Engine, first: int) -> Service:
    return Service(
        engine=engine,
        insert="INSERT INTO users (id, first_name, last_name) VALUES (:key, 'A', :last)",
        update="UPDATE users SET first_name = 'A', last_name = :last WHERE id = :key",
        read="SELECT last_name FROM users WHERE id = :key",
        first=first,
    )


@contextlib.contextmanager
def serving(*services: Service) -> Iterator[None]:
    """The services at work beside the block; it fails if one of them met an error that is not to be retried."""
    done = threading.Event()
    threads = [threading.Thread(target=service.work, args=(done,)) for service in services]
    for thread in threads:
        thread.start()
    try:
        yield
        end = time.monotonic() + 60
        while time.monotonic() < end and not all(service.errors or len(service.names) > 2 for service in services):
            time.sleep(0.01)  # a short block leaves them no time on a slow machine
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for service in services:
        assert not service.errors, told(service.errors)
        assert len(service.names) > 2, "it has written nothing"


def told(errors: Sequence[object]) -> str:
    """All of them, for a message: pytest would cut them short."""
    return "\n".join(map(str, errors))


def names(engine: sa.Engine, *columns: str) -> dict[int, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT id, {', '.join(columns)} FROM users")
        return {row[0]: " ".join(row[1:]) for row in rows}


def send(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


VISITS = (
    "CREATE TABLE visits (id INT PRIMARY KEY, boss INT, visitor INT,"
    " FOREIGN KEY (visitor) REFERENCES users (id), FOREIGN KEY (boss) REFERENCES visits (id))"
)


def test_a_table_that_others_refer_to_is_refused_once_they_have_rows(nodes: list[sa.Engine]) -> None:
    refused = "users cannot be changed live in a Galera cluster while visits refers to it by a foreign key."
    send(nodes[0], VISITS)
    with runner(nodes[0].url, UPGRADE) as run:
        assert run.check() == []
        run.upgrade()
        send(nodes[0], "INSERT INTO visits (id) VALUES (1)")
        assert [problem.what for problem in run.check()] == [refused]
        for verb in (run.contract, run.rollback):
            with pytest.raises(ProblemError) as raised:
                verb()
            assert [(problem.code, problem.what) for problem in raised.value.problems] == [("CF205", refused)]
        send(nodes[0], "ALTER TABLE visits DROP FOREIGN KEY visits_ibfk_1")
        run.rollback()
    with runner(nodes[0].url, UPGRADE) as run:
        assert run.check() == []


def _number(name: str, *rest: sa.schema.SchemaItem) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, *rest)


def test_what_could_bring_the_cluster_to_a_standstill_is_refused(nodes: list[sa.Engine]) -> None:
    send(nodes[0], VISITS, "INSERT INTO visits (id) VALUES (1)")
    plain = AddColumn(table="visits", column=_number("length"))
    synced = AddColumn(table="visits", column=_number("length"), value=lambda row: row.id, reads=["id"], keep="track")
    on_users = AddColumn(table="users", column=_number("age"))
    badges = sa.Table("badges", sa.MetaData(), _number("id", sa.ForeignKey("items.place", ondelete="CASCADE")))
    on_items = AddColumn(table="items", column=_number("weight"))

    def told(*operations: Operation) -> list[str]:
        with runner(nodes[0].url, upgrade_of(*operations)) as run:
            problems = run.check()
        assert {problem.code for problem in problems} <= {"CF205"}
        return [problem.what.replace(" live in a Galera cluster", "") for problem in problems]

    key = " refers to {} by a foreign key."
    assert told(plain) == []
    assert told(synced) == ["visits cannot get triggers while it" + key.format("users")]
    assert told(RenameTable(table="visits", new="calls")) == [
        "visits cannot get another name while it" + key.format("users")
    ]
    assert told(DropForeignKey(table="visits", columns=["visitor"])) == []
    assert told(on_users) == ["users cannot be changed while visits" + key.format("it")]
    send(nodes[0], "ALTER TABLE items ADD UNIQUE (place)")
    assert told(CreateTable(definition=badges)) == []
    assert told(CreateTable(definition=badges), on_items) == ["items cannot be changed while badges" + key.format("it")]
    send(nodes[0], "CREATE TRIGGER seen AFTER UPDATE ON users FOR EACH ROW UPDATE items SET label = '' WHERE place = 1")
    assert told(on_items) == ["items cannot be changed while the trigger seen of users uses it."]


def test_schema_changes_that_a_cluster_bears_beside_writers_of_the_other_table(nodes: list[sa.Engine]) -> None:
    """What is not refused. Each kind was done hundreds of times; those that are refused stood still within ten."""
    send(nodes[0], VISITS, "INSERT INTO visits SELECT seq, NULL, seq FROM seq_1_to_20")
    send(nodes[0], "CREATE TABLE nobody (id INT PRIMARY KEY, visitor INT)")
    to_users = "FOREIGN KEY (visitor) REFERENCES users (id), ALGORITHM=INPLACE, LOCK=NONE"
    changes = (
        "ALTER TABLE visits ADD COLUMN place INT NULL INVISIBLE, ALGORITHM=INSTANT",
        "ALTER TABLE visits ADD INDEX ix (place), ALGORITHM=INPLACE, LOCK=NONE",
        "ALTER TABLE visits DROP INDEX ix",
        "ALTER TABLE visits DROP COLUMN place, ALGORITHM=INSTANT",
        "ALTER TABLE visits DROP FOREIGN KEY visits_ibfk_1",
        f"ALTER TABLE visits ADD CONSTRAINT visits_ibfk_1 {to_users}",
        "CREATE TABLE notes (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES users (id) ON DELETE CASCADE)",
        "DROP TABLE notes",
    )
    triggers = ("CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW SET NEW.email = NEW.email", "DROP TRIGGER t")
    users = (f"UPDATE users SET visits = visits + 1 WHERE id = {n % 20 + 1}" for n in itertools.count())
    visits = (f"UPDATE visits SET boss = {n % 20 + 1} WHERE id = {n % 20 + 1}" for n in itertools.count())

    def bears(writers: sa.Engine, changes: tuple[str, ...]) -> None:
        with writing(writers, users) as written, writing(nodes[2], visits) as visited:
            for change in changes * 3:
                before = written(), visited()
                with nodes[0].connect() as connection:
                    connection.exec_driver_sql("SET SESSION foreign_key_checks = 0")
                    change_schema(connection, change)
                    connection.exec_driver_sql("SET SESSION foreign_key_checks = 1")
                while not (written() > before[0] + 2 and visited() > before[1] + 2):
                    threading.Event().wait(0.005)

    bears(nodes[1], changes)
    # Another node that is written to may get a trigger wrong: see docs/operations.md, on a Galera cluster.
    bears(nodes[0], triggers)


def change_schema(connection: sa.Connection, change: str) -> None:
    """As the engine does: again where the node has read a trigger wrong, see docs/operations.md."""
    try:
        connection.exec_driver_sql(change)
    except sa.exc.DBAPIError as error:
        if not misread(str(error)):
            raise
        connection.exec_driver_sql(change)


@contextlib.contextmanager
def writing(engine: sa.Engine, statements: Iterator[str]) -> Iterator[Callable[[], int]]:
    """Send the statements one after the other, aborted ones again; yields how many there were so far."""
    done, count, errors = threading.Event(), itertools.count(), []
    so_far = [next(count)]

    def work() -> None:
        for statement in statements:
            while not done.is_set():
                try:
                    send(engine, statement)
                except sa.exc.DBAPIError as error:
                    if classify(error) not in (Fault.DEADLOCK, Fault.LOCK_TIMEOUT):
                        errors.append(error)
                        return
                else:
                    so_far[0] = next(count)
                    break
            if done.is_set():
                return

    def told() -> int:
        assert not errors
        return so_far[0]

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield told
    finally:
        done.set()
        thread.join()
    assert not errors


RUN = (
    "a column under a unique constraint is renamed",
    "a table is renamed, and a column with it",
    "a table comes, another goes",
    "each row gets a companion",
    "a column is split in two, another goes",
)
"""One of each kind that a cluster can do."""
REFUSED = (
    "a column gets a wider type by a second column",
    "another column is the primary key",
    "a natural key becomes a foreign key",
    "a table is copied, and goes",
    "two tables are merged",
)


def test_upgrades_of_every_kind_under_load(cluster: GaleraCluster) -> None:
    """The writers are on the runner's node: see docs/operations.md, on a Galera cluster."""
    chosen = [course for course in COURSES if course.name in RUN]
    assert len(chosen) == len(RUN)
    for course in chosen:
        unless_triggers_are_misread(functools.partial(upgrade_under_load, cluster, course))


def upgrade_under_load(cluster: GaleraCluster, course: Course) -> None:
    url = cluster.create_database()
    engines = [sa.create_engine(node.url(str(url.database))) for node in cluster.nodes]
    try:
        result = carry(Database(server=cluster, url=url, engine=engines[0]), course, 400, reading=0.05)
        assert not result.failed, told(result.failed)
        assert (result.life, result.lost) == (course.name, [])
        assert snapshot(engines[0]) == snapshot(engines[1]) == snapshot(engines[2])
    finally:
        for engine in engines:
            engine.dispose()


def test_what_a_cluster_cannot_do_is_refused(cluster: GaleraCluster) -> None:
    chosen = [course for course in COURSES if course.name in REFUSED]
    assert len(chosen) == len(REFUSED)
    for course in chosen:
        engine = sa.create_engine(cluster.create_database())
        try:
            course.create(engine)
            with runner(engine.url, course.upgrade) as run:
                assert [problem.code for problem in run.check()][:1] == ["CF205"], course.name
        finally:
            engine.dispose()


def test_an_upgrade_of_a_cluster_under_both_releases(cluster: GaleraCluster) -> None:
    """While the schema changes, the writers are on the runner's node: see docs/operations.md, on a Galera cluster."""

    def carried() -> None:
        with new_database(cluster) as nodes:
            upgrade_under_both_releases(nodes)

    unless_triggers_are_misread(carried)


def upgrade_under_both_releases(nodes: list[sa.Engine]) -> None:
    first, second, third = nodes
    start = snapshot(first)
    with serving(old := old_service(first, OWN)), runner(first.url, UPGRADE) as run:
        assert run.check() == []
        run.expand()
        run.rollback()
    assert snapshot(first) == snapshot(second) == snapshot(third) == start
    expected = {key: f"First{key} Last{key}" for key in range(ROWS)} | old.names
    assert names(third, "full_name") == expected

    with serving(old := old_service(first, OWN + 20_000)):
        killed = run_killed(first.url, UPGRADE, ["expand", "migrate"], survive=9)
        assert killed.dead
    expected |= old.names
    with serving(old := old_service(third, OWN + 30_000)), runner(third.url, UPGRADE) as run:
        run.upgrade()  # another runner goes on, on another node
    expected |= old.names
    with (
        serving(old := old_service(second, OWN + 40_000), new := new_service(third, OWN + 60_001)),
        runner(first.url, UPGRADE) as run,
    ):
        run.verify()
    expected |= old.names | new.names
    for node in nodes:
        assert names(node, "full_name") == names(node, "first_name", "last_name") == expected

    with serving(new := new_service(first, OWN + 80_001)), runner(first.url, UPGRADE) as run:
        run.contract()
        assert run.status().state is State.CONTRACTED
    expected |= new.names
    for node in nodes:
        assert names(node, "first_name", "last_name") == expected
        assert contents(node)["items"] == sorted(((n, f"s{n % 3}", f"label {n}") for n in range(ROWS)), key=repr)
    assert snapshot(first) == snapshot(second) == snapshot(third)
