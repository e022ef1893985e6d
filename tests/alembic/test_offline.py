"""`alembic upgrade --sql`: the script does to the database what the upgrade does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.alembic import record
from contraflow.alembic.discovery import sets, to_upgrade
from contraflow.alembic.running import ChangeError
from contraflow.engine.report import State, Status
from contraflow.engine.runner import Runner
from tests.alembic.project import RENAME_MAIL, USERS, Project, two_changes
from tests.servers.shared import Database

NO_SQLITE = ("postgresql", "postgresql15", "mariadb", "mysql")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def prepared(project: Project, database: Database) -> None:
    """At the old release, and recorded."""
    project.upgrade("0001")
    (one,) = sets(to_upgrade(project.directory(), ["0001"], "head"))
    record.record(project.folder / "server.json", database.url, one)
    project.configure(profile="server.json")


def run(database: Database, script: str) -> None:
    """Send a script as the server's own command line client does."""
    engine = sa.create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if database.kind in ("mariadb", "mysql"):
            for statement in statements(script):
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        else:
            dbapi: Any = connection.connection.dbapi_connection
            if database.kind == "sqlite":
                dbapi.executescript(script)
            else:
                # psql sends each statement alone; only these must not share a transaction with others.
                for part in re.split(r"(?m)^(CREATE (?:UNIQUE )?INDEX CONCURRENTLY .*;)$", script):
                    dbapi.execute(part)
    engine.dispose()


def statements(script: str) -> list[str]:
    """What the mysql client makes of a script."""
    found, delimiter, held = [], ";", ""
    for line in script.splitlines():
        if line.startswith("DELIMITER "):
            delimiter = line.split()[1]
        elif not line.startswith("--"):
            held += line + "\n"
            if held.rstrip().endswith(delimiter):
                found.append(held.rstrip()[: -len(delimiter)])
                held = ""
    assert not held.strip()
    return found


def journal(database: Database) -> Status:
    """What the journal tells."""
    with Runner(database.url) as runner:
        return runner.status()


def state(database: Database) -> Any:
    """Columns, triggers, rows and the revision."""
    with database.engine.connect() as connection, Runner(database.url) as runner:
        found = runner.adapter.find(connection, "users", None)
        rows = connection.execute(sa.text("SELECT id, mail, email, cf_marker FROM users ORDER BY id")).all()
        revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
    return found, [tuple(row) for row in rows], list(revision)


@pytest.mark.only_on(*NO_SQLITE)
def test_the_script_leaves_what_the_upgrade_leaves(tmp_path: Path, database: Database) -> None:
    project = two_changes(tmp_path / "service", database.url)
    prepared(project, database)
    before = sa.inspect(database.engine).get_columns("users")
    project.upgrade()
    by_upgrade = state(database)
    project.downgrade("0001")
    run(database, project.sql("upgrade", "0001:head"))
    assert state(database) == by_upgrade
    assert (journal(database).state, journal(database).due) == (State.MIGRATED, "verify")
    run(database, project.sql("downgrade", "0003:0001"))
    assert str(sa.inspect(database.engine).get_columns("users")) == str(before)
    assert journal(database).state is State.ROLLED_BACK
    # From the script on, the journal alone is enough.
    run(database, project.sql("upgrade", "0001:head"))
    with Runner(database.url) as runner:
        runner.verify()
        assert [phase.status for phase in runner.status().phases] == ["done", "done", "done", "due"]
        runner.contract()
    assert [column["name"] for column in sa.inspect(database.engine).get_columns("users")] == [
        "id",
        "display_name",
        "email",
    ]


@pytest.mark.only_on(*NO_SQLITE)
def test_a_script_that_died_is_finished_by_the_engine(tmp_path: Path, database: Database) -> None:
    project = two_changes(tmp_path / "service", database.url)
    prepared(project, database)
    whole = project.sql("upgrade", "0001:head")
    expanded = whole[: whole.index("-- backfill")]
    assert "'EXPANDED'" in expanded
    run(database, expanded)
    assert (journal(database).state, journal(database).pending) == (State.EXPANDED, "migrate")
    project.upgrade()
    assert journal(database).state is State.VERIFIED


INDEX_MAIL = """
from contraflow import AddUnique, CreateIndex, DropUnique

change = Change(
    RenameColumn(table="users", old="mail", new="email"),
    DropUnique(table="users", columns=["mail"]),
    AddUnique(table="users", name="uq_users_email", columns=["email"]),
    CreateIndex(table="users", name="ix_users_email", columns=["email", "id"]),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""


def test_the_script_builds_indexes_on_new_columns(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, USERS.replace("sa.String(100)),", "sa.String(100), unique=True),"))
    project.revision("0002", "0001", INDEX_MAIL)
    prepared(project, database)
    before = sorted(map(str, sa.inspect(database.engine).get_indexes("users")))
    project.upgrade()
    by_upgrade = state(database)
    project.downgrade("0001")
    run(database, project.sql("upgrade", "0001:head"))
    found = state(database)
    assert found[0].indexes == by_upgrade[0].indexes
    assert {"uq_users_email", "ix_users_email"} < set(found[0].indexes)
    assert found[1:] == by_upgrade[1:]
    run(database, project.sql("downgrade", "0002:0001"))
    assert sorted(map(str, sa.inspect(database.engine).get_indexes("users"))) == before


def test_sqlite_takes_a_script_where_no_not_null_changes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/service.db"
    project = Project(tmp_path / "service", url)
    project.revision("0001", None, USERS)
    project.revision("0002", "0001", RENAME_MAIL)
    project.upgrade("0001")
    (one,) = sets(to_upgrade(project.directory(), ["0001"], "head"))
    record.record(project.folder / "server.json", url, one)
    project.configure(profile="server.json")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        dbapi: Any = connection.connection.dbapi_connection
        dbapi.executescript(project.sql("upgrade", "0001:head"))
        with Runner(url) as runner:
            assert runner.status().state is State.MIGRATED
        rows = connection.execute(sa.text("SELECT email, cf_marker FROM users ORDER BY id")).all()
        assert [tuple(row) for row in rows] == [("ada@example.org", 1), (None, 1)]
    engine.dispose()


def refusal(project: Project, target: str = "0001:head") -> str:
    with pytest.raises(ChangeError) as error:
        project.sql("upgrade", target)
    (problem,) = error.value.problems
    assert problem.code == "CF304"
    return problem.what


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/service.db"
    project = two_changes(tmp_path / "service", url)
    assert "no server was recorded" in refusal(project)
    project.configure(profile="server.json")
    assert "does not exist" in refusal(project)
    project.upgrade("0001")
    (one,) = sets(to_upgrade(project.directory(), ["0001"], "head"))
    record.record(project.folder / "server.json", url, one)
    assert "in its stored text" in refusal(project)
    text = (project.folder / "server.json").read_text()
    (project.folder / "server.json").write_text(text.replace('"product": "sqlite"', '"product": "mysql"'))
    assert "is of mysql, the URL of sqlite" in refusal(project)
    project.configure(through="contract", profile="server.json")
    assert "contract's statements" in refusal(project)


WIDEN_NAME = """
from contraflow import Change, WidenColumn
change = Change(WidenColumn(table="users", column="mail", type=sa.String(150), replans=True))
upgrade, downgrade = change.upgrade, change.downgrade
"""


def test_a_script_widens(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, USERS)
    project.revision("0002", "0001", WIDEN_NAME)
    prepared(project, database)
    if database.kind == "sqlite":
        assert "in its stored text" in refusal(project)
        return
    run(database, project.sql("upgrade", "0001:head"))
    columns: dict[str, Any] = {column["name"]: column for column in sa.inspect(database.engine).get_columns("users")}
    assert columns["mail"]["type"].length == 150
    with pytest.raises(ChangeError, match="CF304"):
        project.sql("downgrade", "0002:0001")
