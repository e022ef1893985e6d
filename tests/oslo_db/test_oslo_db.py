"""oslo.db with `contraflow.integrations.oslo_db`: its own tests, what they lack, and real servers."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db import api, exception
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contraflow.integrations import oslo_db
from tests.servers.shared import Database


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    for _ in range(2):
        oslo_db.install()
    yield
    oslo_db.uninstall()


PEER = """
import sys
from contraflow.integrations import oslo_db
oslo_db.install()
from testtools import run
run.main(["run", "oslo_db.tests.sqlalchemy.test_exc_filters"], sys.stdout)
"""


def test_its_own_tests_of_the_filters_pass() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            PEER,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ran = re.search(r"Ran (\d+) tests?", run.stdout)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert ran is not None
    assert int(ran[1]) >= 72


class Base(DeclarativeBase):
    pass


class Project(Base):
    __tablename__ = "project"
    __table_args__ = (
        sa.UniqueConstraint("domain", "name", name="uniq_project0domain0name"),
        sa.UniqueConstraint("code", name="project_code_key"),
        sa.CheckConstraint("size > 0", name="positive"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    domain: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(20))
    code: Mapped[str] = mapped_column(sa.String(20))
    size: Mapped[int]
    parent: Mapped[int | None] = mapped_column(sa.ForeignKey("project.id", name="fk_parent"))


def project(**values: Any) -> Project:
    return Project(**{"id": 1, "domain": "d", "name": "n", "code": "c", "size": 1, **values})


DIALECTS = {
    "postgresql": ("postgresql+psycopg2", "cockroachdb+psycopg2"),
    "mariadb": ("mysql+pymysql", "mariadb+pymysql"),
    "mysql": ("mysql+pymysql",),
}


class Facade:
    """An application's database layer, as services of OpenStack write it, unchanged."""

    def __init__(self, url: sa.URL) -> None:
        self.context = enginefacade.transaction_context()
        self.context.configure(connection=url.render_as_string(hide_password=False), max_retries=0)

    def add(self, *objects: Project) -> None:
        with self.context.writer.using(Context()) as session:
            session.add_all(objects)


@enginefacade.transaction_context_provider
class Context:
    pass


@contextmanager
def facade(database: Database, name: str) -> Iterator[Facade]:
    """The application on ``database``, empty, under a name of a dialect that is right for its server."""
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    made = Facade(database.url.set(drivername=name))
    yield made
    made.context.writer.get_engine().dispose()


@pytest.mark.only_on("postgresql", "mariadb", "mysql")
def test_its_exceptions_on_real_servers(database: Database) -> None:
    for name in DIALECTS[database.kind]:
        with facade(database, name) as application:
            application.add(project())
            with pytest.raises(exception.DBDuplicateEntry) as duplicate:
                application.add(project(id=2, code="other"))
            assert duplicate.value.columns == ["domain", "name"]
            with pytest.raises(exception.DBDuplicateEntry) as duplicate:
                application.add(project(id=2, name="other"))
            if database.kind == "postgresql":
                assert duplicate.value.columns == ["code"]
            with pytest.raises(exception.DBReferenceError) as reference:
                application.add(project(id=2, code="x", name="x", parent=77))
            assert (reference.value.table, reference.value.constraint) == ("project", "fk_parent")
            assert (reference.value.key, reference.value.key_table) == ("parent", "project")
            with pytest.raises((exception.DBError, sa.exc.OperationalError)) as check:
                application.add(project(id=2, code="x", name="x", size=0))
            if not name.startswith("mysql"):  # where oslo.db lets an OperationalError through
                assert isinstance(check.value, exception.DBConstraintError)
                assert check.value.check_name == "positive"


@pytest.mark.only_on("postgresql")
def test_serialization_failures_are_run_again(database: Database) -> None:
    """By oslo.db's own `wrap_db_retry`: a lost update under SERIALIZABLE is a DBDeadlock, on both names."""
    for name in DIALECTS[database.kind]:
        with facade(database, name) as application:
            application.add(project(size=1))
            assert lose_an_update(application, database) == 2
            with database.engine.connect() as connection:
                assert connection.execute(sa.select(Project.size)).scalar() == 12


def lose_an_update(application: Facade, database: Database) -> int:
    """How often it was run until it was not lost."""
    runs = 0

    def grow() -> None:
        nonlocal runs
        runs += 1
        with application.context.writer.using(Context()) as session:
            session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            found = session.get(Project, 1)
            size = found.size
            if runs == 1:
                with database.engine.begin() as rival:
                    rival.execute(sa.update(Project).values(size=Project.size + 10))
            found.size = size + 1

    api.wrap_db_retry(max_retries=5, retry_interval=0, retry_on_deadlock=True)(grow)()
    return runs


@pytest.mark.only_on("mariadb")
def test_deadlocks_on_a_mariadb_url(database: Database) -> None:
    with facade(database, "mariadb+pymysql") as application:
        application.add(*(project(id=n, name=f"n{n}", code=f"c{n}") for n in range(1, 40)))
        with database.engine.connect() as rival:
            rival.execute(sa.update(Project).where(Project.id > 2).values(size=5))
            first = sa.update(Project).where(Project.id == 1)
            waiter = threading.Thread(target=lambda: rival.execute(first.values(size=6)))

            def work() -> None:
                with application.context.writer.using(Context()) as session:
                    session.execute(first.values(size=7))
                    waiter.start()
                    session.execute(sa.update(Project).where(Project.id == 30).values(size=8))

            with pytest.raises(exception.DBDeadlock):
                work()
            waiter.join(300)


def test_a_mariadb_url_gets_the_options_of_mysql() -> None:
    """oslo.db makes MySQL strict when it connects; under its other name it is the same server."""
    from oslo_db.sqlalchemy import engines

    for dispatcher in (engines._init_connection_args, engines._init_events):
        mysql = {driver: list(functions) for driver, functions in dispatcher.reg["mysql"].items() if functions}
        assert {driver: list(f) for driver, f in dispatcher.reg["mariadb"].items() if f} == mysql
    assert any(engines._init_events.reg["cockroachdb"].values()) == any(engines._init_events.reg["postgresql"].values())
