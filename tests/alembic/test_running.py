"""Changes inside of `alembic upgrade` and `alembic downgrade`, in environments as `alembic init` writes them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from contraflow.alembic.environment import Environment
from contraflow.alembic.running import ChangeError
from contraflow.engine.report import State, Status
from contraflow.engine.runner import Runner
from contraflow.problems import ProblemError
from tests.alembic.project import PLAIN, RENAME_MAIL, RENAME_NAME, USERS, Project, two_changes
from tests.servers.shared import Database


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated configuration puts the current folder on sys.path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    return two_changes(tmp_path / "service", database.url)


def status(database: Database) -> Status:
    with Runner(database.url) as runner:
        return runner.status()


def columns(database: Database) -> list[str]:
    return [column["name"] for column in sa.inspect(database.engine).get_columns("users")]


def schema(database: Database) -> list[Any]:
    inspector = sa.inspect(database.engine)
    found = [
        (column["name"], str(column["type"]), column["nullable"], column["default"])
        for column in inspector.get_columns("users")
    ]
    return [found, inspector.get_pk_constraint("users"), inspector.get_indexes("users")]


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def execute(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(statement))


def versions(database: Database) -> list[str]:
    return sorted(row[0] for row in rows(database, "SELECT version_num FROM alembic_version"))


def codes(error: pytest.ExceptionInfo[Any]) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_an_upgrade_expands_migrates_and_verifies_and_a_downgrade_takes_it_back(
    project: Project, database: Database
) -> None:
    project.upgrade("0001")
    before = schema(database)
    project.upgrade()
    now = status(database)
    assert (now.state, now.upgrade, now.revisions) == (State.VERIFIED, "0001:0003", ("0002", "0003"))
    assert versions(database) == ["0003"]
    # Both releases write, each in its own shape.
    execute(database, "INSERT INTO users (id, fullname, mail) VALUES (3, 'Bob', 'b@example.org')")
    execute(database, "UPDATE users SET display_name = 'Cher Bono' WHERE id = 2")
    assert rows(database, "SELECT fullname, display_name, mail, email FROM users ORDER BY id") == [
        ("Ada Lovelace", "Ada Lovelace", "ada@example.org", "ada@example.org"),
        ("Cher Bono", "Cher Bono", None, None),
        ("Bob", "Bob", "b@example.org", "b@example.org"),
    ]
    project.upgrade()  # nothing is left to run
    project.downgrade("0001")
    assert schema(database) == before
    assert rows(database, "SELECT fullname FROM users ORDER BY id") == [("Ada Lovelace",), ("Cher Bono",), ("Bob",)]
    assert versions(database) == ["0001"]
    assert status(database).state is State.ROLLED_BACK
    project.upgrade()  # and begun anew
    assert status(database).state is State.VERIFIED


def test_after_contract_there_is_no_way_back(project: Project, database: Database) -> None:
    project.upgrade()
    with Runner(database.url) as runner:
        runner.contract()
    with pytest.raises(ChangeError) as error:
        project.downgrade("0001")
    assert codes(error) == ["CF303"]
    assert versions(database) == ["0003"]
    assert columns(database) == ["id", "display_name", "email"]


def test_through_contract_runs_every_phase(project: Project, database: Database) -> None:
    project.configure(through="contract")
    project.upgrade()
    assert columns(database) == ["id", "display_name", "email"]
    assert status(database).state is State.CONTRACTED


def test_through_contract_runs_one_set_after_the_other(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, USERS)
    project.revision("0002", "0001", RENAME_NAME)
    project.revision(
        "0003",
        "0002",
        'def upgrade():\n    op.create_index("names", "users", ["display_name"])\n\n\ndef downgrade():\n    pass\n',
    )
    project.revision("0004", "0003", RENAME_MAIL)
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF302"]
    assert columns(database) == ["id", "fullname", "mail"]
    config = project.config()
    config.cmd_opts = type("Options", (), {"x": ["contraflow.through=contract"]})()
    command.upgrade(config, "head")
    assert columns(database) == ["id", "display_name", "email"]
    assert versions(database) == ["0004"]
    assert [index["name"] for index in sa.inspect(database.engine).get_indexes("users")] == ["names"]


def test_an_environment_for_several_databases_is_refused(tmp_path: Path) -> None:
    """Alembic's multidb template: a Change would be carried out in each of them."""
    project = Project(tmp_path / "service", "sqlite://", "multidb")
    names = ("engine1", "engine2")
    for name in names:
        ini = project.ini.read_text()
        head, _, rest = ini.partition(f"[{name}]\n")
        _, _, rest = rest.partition("\n")
        project.ini.write_text(f"{head}[{name}]\nsqlalchemy.url = sqlite:///{tmp_path}/{name}.db\n{rest}")
    plain = "\n\ndef upgrade(engine_name):\n    op.create_table('users', sa.Column('mail', sa.String(9)))\n"
    project.revision("0001", None, f"{plain}\n\ndef downgrade(engine_name):\n    pass\n")
    project.upgrade()
    project.revision("0002", "0001", RENAME_MAIL)
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF302"]
    assert "several databases; this is engine1" in str(error.value)
    for name in names:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/{name}.db")
        assert [column["name"] for column in sa.inspect(engine).get_columns("users")] == ["mail"]
        engine.dispose()


ASYNCHRONOUS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgresql15": "postgresql+asyncpg"}


@pytest.mark.parametrize("template", ["pyproject", "async", "pyproject_async"])
@pytest.mark.only_on(*ASYNCHRONOUS)
def test_every_template_works(tmp_path: Path, database: Database, template: str) -> None:
    url = database.url
    if "async" in template:
        url = url.set(drivername=ASYNCHRONOUS[database.kind])
    project = two_changes(tmp_path / "service", url, template)
    if "pyproject" in template:
        project.toml.write_text(project.toml.read_text() + "\n[tool.contraflow]\nbatch_size = 1\n")
    project.upgrade()
    assert status(database).state is State.VERIFIED
    assert versions(database) == ["0003"]
    project.downgrade("base")
    assert versions(database) == []
    assert not sa.inspect(database.engine).has_table("users")


@pytest.mark.only_on("mariadb", "mysql")
def test_the_pyproject_template_works_here_too(tmp_path: Path, database: Database) -> None:
    project = two_changes(tmp_path / "service", database.url, "pyproject")
    project.upgrade()
    assert status(database).state is State.VERIFIED


def test_plain_revisions_before_and_after_run_as_always(tmp_path: Path, database: Database) -> None:
    project = two_changes(tmp_path / "service", database.url)
    project.revision(
        "0004",
        "0003",
        "def upgrade():\n    op.create_table('later', sa.Column('id', sa.Integer(), primary_key=True))\n\n\n"
        "def downgrade():\n    op.drop_table('later')\n",
    )
    project.upgrade()
    assert versions(database) == ["0004"]
    assert sa.inspect(database.engine).has_table("later")
    project.downgrade("0001")
    assert versions(database) == ["0001"]
    assert not sa.inspect(database.engine).has_table("later")
    assert columns(database) == ["id", "fullname", "mail"]


def test_a_run_killed_between_two_stamps_is_resumed(project: Project, database: Database) -> None:
    project.upgrade()
    execute(database, "UPDATE alembic_version SET version_num = '0002'")
    project.upgrade()
    assert versions(database) == ["0003"]
    assert status(database).upgrade == "0001:0003"
    with Runner(database.url) as runner:
        runner.contract()
    execute(database, "UPDATE alembic_version SET version_num = '0002'")
    project.upgrade()
    assert versions(database) == ["0003"]
    assert columns(database) == ["id", "display_name", "email"]


def test_a_rollback_killed_between_two_stamps_must_be_finished(project: Project, database: Database) -> None:
    project.upgrade()
    project.downgrade("0001")
    execute(database, "UPDATE alembic_version SET version_num = '0002'")
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF305"]
    project.downgrade("0001")
    assert versions(database) == ["0001"]
    project.upgrade()
    assert status(database).state is State.VERIFIED


def test_half_a_set_is_not_downgraded(project: Project, database: Database) -> None:
    project.upgrade()
    for target in ("0002", "-1"):
        with pytest.raises(ChangeError) as error:
            project.downgrade(target)
        assert codes(error) == ["CF302"]
        assert "alembic downgrade 0001" in str(error.value)
    assert versions(database) == ["0003"]
    assert status(database).state is State.VERIFIED
    project.downgrade("-2")
    assert versions(database) == ["0001"]


def test_a_failed_verification_leaves_the_revision_and_is_resumed(project: Project, database: Database) -> None:
    project.upgrade("0001")
    directory = project.directory()
    with Runner(database.url, declared(directory)) as runner:
        runner.expand()
        runner.migrate()
        # A statement that changes the marker is taken for the sync's own, so this is drift.
        execute(database, "UPDATE users SET display_name = 'wrong', cf_marker = 3 - cf_marker + 1 WHERE id = 1")
        with pytest.raises(ChangeError) as error:
            project.upgrade()
        assert codes(error) == ["CF012"]
        assert versions(database) == ["0001"]
        runner.repair("users", "old")
    project.upgrade()
    assert versions(database) == ["0003"]
    assert rows(database, "SELECT display_name FROM users WHERE id = 1") == [("Ada Lovelace",)]


def declared(directory: Any) -> Any:
    from contraflow.alembic.discovery import sets, to_upgrade

    (one,) = sets(to_upgrade(directory, ["0001"], "head"))
    return one


def test_a_changed_revision_is_refused(project: Project, database: Database) -> None:
    project.upgrade()
    execute(database, "UPDATE alembic_version SET version_num = '0002'")
    project.revision("0003", "0002", RENAME_MAIL.replace('"email"', '"address"'))
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF002"]
    assert versions(database) == ["0002"]


def test_the_next_upgrade_waits_for_contract(project: Project, database: Database) -> None:
    project.upgrade()
    project.revision(
        "0004",
        "0003",
        'change = Change(DropColumn(table="users", column="email", value=lambda row: None))\n'
        "upgrade, downgrade = change.upgrade, change.downgrade\n",
    )
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF005"]
    assert versions(database) == ["0003"]


def test_an_unknown_column_changes_nothing(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, USERS)
    project.upgrade()
    project.revision("0002", "0001", RENAME_NAME.replace("fullname", "full_name"))
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF101"]
    assert columns(database) == ["id", "fullname", "mail"]
    assert versions(database) == ["0001"]


def test_the_callers_transaction_is_refused(project: Project, database: Database) -> None:
    project.upgrade("0001")
    env = project.folder / "migrations" / "env.py"
    text = env.read_text()
    env.write_text(
        text.replace(
            "        context.configure(\n            connection=connection",
            "        connection.begin()\n        context.configure(\n            connection=connection",
        )
    )
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF306"]
    env.write_text(re.sub(r"with context.begin_transaction\(\):", "if True:", text))
    if database.kind.startswith("postgresql"):
        # Elsewhere Alembic opens a transaction a revision by itself.
        with pytest.raises(ChangeError) as error:
            project.upgrade()
        assert codes(error) == ["CF306"]
    env.write_text(text)
    project.upgrade()
    assert status(database).state is State.VERIFIED


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_an_env_that_sends_its_connection_elsewhere_is_refused(project: Project, database: Database) -> None:
    """As Alembic's cookbook has it for schemas of tenants: the tables of another tenant would change."""
    project.upgrade("0001")
    env = project.folder / "migrations" / "env.py"
    text = env.read_text()
    postgresql = database.kind.startswith("postgresql")
    name = "tenant" if postgresql else f"{database.url.database}_tenant"[:64]
    execute(database, f"CREATE SCHEMA {name}")
    goes = f"SET search_path TO {name}" if postgresql else f"USE {name}"
    moves = (
        f'connection.exec_driver_sql("{goes}"); connection.commit(); connection.dialect.default_schema_name = "{name}"'
    )
    translates = f'connection = connection.execution_options(schema_translate_map={{None: "{name}"}})'
    try:
        for line, told in ((moves, f"finds tables in {name}"), (translates, f"translates names to the schema {name}")):
            env.write_text(
                text.replace("        context.configure(\n", f"        {line}\n        context.configure(\n", 1)
            )
            if line == moves:  # there are none of Alembic's tables yet, so it begins with the plain revision
                with pytest.raises(ChangeError, match=told) as error:
                    project.upgrade()
                assert codes(error) == ["CF301"]
            execute(database, f"CREATE TABLE IF NOT EXISTS {name}.alembic_version (version_num VARCHAR(32))")
            with pytest.raises(ProblemError, match=told):
                Environment(project.ini).database()
    finally:
        execute(database, f"DROP SCHEMA {name}" + (" CASCADE" if postgresql else ""))
    assert columns(database) == ["id", "fullname", "mail"]
    env.write_text(text)
    if postgresql:
        project.url = project.url.update_query_dict({"options": "-csearch_path=public,pg_catalog"})
    project.upgrade()
    assert status(database).state is State.VERIFIED


def test_an_env_that_asks_for_a_transaction_a_revision_works(project: Project, database: Database) -> None:
    env = project.folder / "migrations" / "env.py"
    env.write_text(
        env.read_text().replace("connection=connection, ", "connection=connection, transaction_per_migration=True, ")
    )
    project.upgrade()
    assert status(database).state is State.VERIFIED
    project.downgrade("base")
    assert versions(database) == []


def test_alembics_own_command_line_reports_a_problem_without_a_traceback(project: Project, database: Database) -> None:
    project.upgrade()
    execute(database, "UPDATE alembic_version SET version_num = '0002'")
    project.revision("0003", "0002", RENAME_MAIL.replace('"email"', '"address"'))
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(project.ini), "upgrade", "head"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode not in (0, 1)  # Alembic's own code is -1
    assert "FAILED: CF002" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF203"]


def test_a_change_alembic_did_not_call_is_refused(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, USERS)
    project.upgrade()
    project.revision(
        "0002",
        "0001",
        RENAME_NAME.replace(
            "upgrade, downgrade = change.upgrade, change.downgrade",
            "def upgrade():\n    change.upgrade()\n\n\ndef downgrade():\n    change.downgrade()",
        ),
    )
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF302"]
    assert columns(database) == ["id", "fullname", "mail"]


def test_branches_one_after_the_other(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, USERS)
    project.revision("a1", "0001", RENAME_NAME)
    project.revision("b1", "0001", RENAME_MAIL)
    project.revision("m", ("a1", "b1"), PLAIN)
    with pytest.raises(ChangeError) as error:
        project.upgrade()
    assert codes(error) == ["CF302"]
    project.upgrade("a1")
    assert status(database).upgrade == "0001:a1"
    with Runner(database.url) as runner:
        runner.contract()
    project.upgrade("b1")
    assert versions(database) == ["a1", "b1"]
    with Runner(database.url) as runner:
        runner.contract()
    project.upgrade()
    assert versions(database) == ["m"]
    assert columns(database) == ["id", "display_name", "email"]


def test_arguments_of_run_migrations_do_no_harm(project: Project, database: Database) -> None:
    env = project.folder / "migrations" / "env.py"
    env.write_text(env.read_text().replace("context.run_migrations()", "context.run_migrations(tenant='a')"))
    project.revision(
        "0001",
        None,
        USERS.replace("def upgrade():", "def upgrade(tenant):").replace("def downgrade():", "def downgrade(tenant):"),
    )
    project.upgrade()
    assert status(database).state is State.VERIFIED


def test_a_wrong_setting_is_told_before_anything_is_done(project: Project, database: Database) -> None:
    project.upgrade("0001")
    project.configure(lock_timout="1")
    with pytest.raises(ProblemError, match="CF307"):
        project.upgrade()
    assert columns(database) == ["id", "fullname", "mail"]


def test_a_run_that_another_one_overtook(project: Project, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one began and ended after this one had read where the database stands."""
    project.upgrade("0001")
    walk = ScriptDirectory._upgrade_revs

    def overtaken(directory: ScriptDirectory, *arguments: Any) -> Any:
        steps = walk(directory, *arguments)
        command_line = [sys.executable, "-m", "alembic", "-c", str(project.ini), "upgrade", "head"]
        subprocess.run(command_line, cwd=project.folder, check=True, capture_output=True)
        return steps

    with monkeypatch.context() as patched:
        patched.setattr(ScriptDirectory, "_upgrade_revs", overtaken)
        with pytest.raises(ChangeError, match="another run of Alembic has carried out 0002") as error:
            project.upgrade()
    assert codes(error) == ["CF001"]
    assert versions(database) == ["0003"]
    project.upgrade()
    assert status(database).state is State.VERIFIED
