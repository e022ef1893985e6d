"""Bad input: each its problem, exit code 1, and nothing half done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.alembic.discovery import sets, to_upgrade
from contraflow.cli import main
from contraflow.engine.runner import Runner
from tests.alembic.project import PLAIN, RENAME_MAIL, RENAME_NAME, USERS, Project
from tests.cli.commandline import Done, contraflow
from tests.servers.shared import Database


def schema(url: sa.URL | str) -> list[str]:
    """The tables and the columns of users."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found = [*sorted(inspector.get_table_names()), *(column["name"] for column in inspector.get_columns("users"))]
    engine.dispose()
    return [name for name in found if not name.startswith("contraflow_")]


def refused(code: str, *arguments: object) -> Done:
    """Run a command that must be refused, for a program and for a person."""
    for_program = contraflow(*arguments, "--json")
    assert (for_program.code, set(for_program.codes)) == (1, {code})
    assert for_program.document["ok"] is False
    for_person = contraflow(*arguments)
    assert (for_person.code, for_person.out) == (1, "")
    assert f"{code}: " in for_person.err
    assert "Traceback" not in for_person.err
    return for_person


@pytest.mark.parametrize("verb", ["check", "plan", "expand", "upgrade"])
def test_an_unknown_column_or_table(local: Project, verb: str) -> None:
    before = schema(local.url)
    local.revision("0003", "0002", RENAME_MAIL.replace('old="mail"', 'old="maill"'))
    assert "its columns are: id, mail, display_name" in refused("CF101", verb).err
    local.revision("0003", "0002", RENAME_MAIL.replace('table="users"', 'table="user"'))
    assert "there is no table user" in refused("CF101", verb).err
    assert schema(local.url) == before


def test_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("check", "status", "expand", "contract", "nodes"):
        assert "alembic init" in refused("CF301", verb).err
    refused("CF301", "-c", "elsewhere.ini", "status")
    (tmp_path / "alembic.ini").write_text("[alembic]\nsqlalchemy.url = sqlite:///x.db\n")
    refused("CF301", "status")
    monkeypatch.setenv("CONTRAFLOW_URL", "sqlite:///x.db")
    (tmp_path / "x.db").touch()
    assert contraflow("status").code == 0
    refused("CF301", "expand")


def test_a_wrong_setting(local: Project) -> None:
    local.configure(lock_timout=1)
    assert "lock_timeout" in refused("CF307", "status").err


def test_an_unreachable_server(local: Project) -> None:
    closed = "postgresql+psycopg://app:s3cret@127.0.0.1:1/app"
    told = refused("CF201", "--url", closed, "status")
    assert "s3cret" not in told.err
    refused("CF201", "--url", "sqlite:////nowhere/at/all.db", "expand")
    refused("CF201", "--url", closed, "upgrade")
    local.ini.unlink()
    told = refused("CF201", "--url", closed, "status")
    assert "s3cret" not in told.err


VERBS_THAT_BEGIN_NOTHING = (
    ("check",),
    ("plan",),
    ("status", "--check"),
    ("migrate",),
    ("verify",),
    ("repair", "users", "--from", "old"),
    ("contract",),
    ("rollback",),
    ("nodes",),
    ("nodes", "forget", "n1"),
)


def test_a_mistyped_path_of_sqlite_is_no_new_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an environment whose env.py connects, and without one."""
    mistyped = tmp_path / "servcie.db"
    for verb in VERBS_THAT_BEGIN_NOTHING[2:]:  # the first two have no answer without an environment
        assert str(mistyped) in refused("CF201", "--url", f"sqlite:///{mistyped}", *verb).err
    for template, driver in (("generic", "sqlite"), ("async", "sqlite+aiosqlite")):
        project = Project(tmp_path / template, f"{driver}:///{mistyped}", template)
        project.revision("0001", None, RENAME_NAME)
        monkeypatch.chdir(project.folder)
        for verb in VERBS_THAT_BEGIN_NOTHING if driver == "sqlite" else (("status",),):
            assert "contraflow upgrade makes a new one" in refused("CF201", *verb).err
    assert not mistyped.exists()


def test_an_upgrade_makes_a_new_database_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "service", f"sqlite:///{tmp_path}/new.db")
    project.revision("0001", None, MAKE_USERS)
    monkeypatch.chdir(project.folder)
    assert contraflow("expand").code == 0
    assert contraflow("rollback").code == 0
    (tmp_path / "new.db").unlink()
    assert contraflow("upgrade").code == 0
    assert contraflow("status", "--json").document["state"] == "VERIFIED"


def test_a_url_that_was_never_set(local: Project) -> None:
    fresh = "driver://user:pass@localhost/dbname"  # as alembic init leaves it
    for url in (fresh, ""):
        local.ini.write_text(re.sub(r"(?m)^sqlalchemy.url.*$", f"sqlalchemy.url = {url}", local.ini.read_text()))
        for verb in ("status", "upgrade"):
            assert "set sqlalchemy.url" in refused("CF301", verb).err


def test_a_driver_that_is_not_installed(local: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    refused("CF204", "--url", "postgresql+psycopg2://127.0.0.1:1/app", "status")


def test_an_env_that_connects_elsewhere(local: Project, tmp_path: Path) -> None:
    env = local.folder / "migrations" / "env.py"
    fixed = f'sa.create_engine("sqlite:///{tmp_path}/service.db", poolclass=pool.NullPool)'
    text = env.read_text()
    start, end = text.index("    connectable = "), text.index("    with connectable")
    env.write_text("import sqlalchemy as sa\n" + text[:start] + f"    connectable = {fixed}\n\n" + text[end:])
    assert contraflow("status").code == 0
    told = refused("CF301", "--url", f"sqlite:///{tmp_path}/other.db", "status")
    assert "sqlalchemy.url" in told.err
    # With env.py as the only one that knows the URL, nothing needs to be given.
    local.ini.write_text(local.ini.read_text().replace(f"sqlite:///{tmp_path}/service.db", "driver://nobody/nothing"))
    assert contraflow("upgrade").code == 0


def test_a_plain_revision_in_between(local: Project) -> None:
    local.revision("0003", "0002", "def upgrade():\n    pass\n\n\ndef downgrade():\n    pass\n")
    local.revision("0004", "0003", RENAME_MAIL)
    before = schema(local.url)
    for verb in ("check", "expand", "upgrade"):
        assert "alembic upgrade 0002; roll the nodes; contraflow contract" in refused("CF302", verb).err
    assert schema(local.url) == before
    assert contraflow("upgrade", "--revision", "0001:0002").code == 0


def test_several_heads(local: Project) -> None:
    local.revision("0009", "0001", RENAME_MAIL)
    for verb in ("status", "check", "expand", "upgrade"):
        refused("CF302", verb)
    assert contraflow("upgrade", "--revision", "0001:0003").code == 0


def test_a_changed_revision(local: Project) -> None:
    assert contraflow("expand").code == 0
    local.revision("0003", "0002", RENAME_MAIL.replace('"email"', '"address"'))
    before = schema(local.url)
    assert "0003" in refused("CF002", "expand").err
    assert schema(local.url) == before


def test_a_newer_journal(local: Project) -> None:
    assert contraflow("expand").code == 0
    engine = sa.create_engine(local.url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE contraflow_journal SET format = 99"))
    engine.dispose()
    for verb in ("status", "expand", "migrate", "contract", "rollback"):
        assert "pip install" in refused("CF003", verb).err


def test_a_broken_revision_file_is_the_users_own_error(local: Project) -> None:
    local.revision("0003", "0002", "raise ZeroDivisionError('mine')\n")
    with pytest.raises(ZeroDivisionError, match="mine"):
        contraflow("check")


def test_a_database_of_a_newer_release_than_the_files(local: Project) -> None:
    assert contraflow("upgrade").code == 0
    engine = sa.create_engine(local.url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0009'"))
    engine.dispose()
    for verb in ("status", "check", "plan", "expand", "upgrade", "rollback"):
        assert "'0009'" in refused("CF302", verb).err


def test_whatever_goes_wrong_a_program_gets_one_document(local: Project, capsys: pytest.CaptureFixture[str]) -> None:
    local.revision("0003", "0002", "raise ZeroDivisionError('mine')\n")
    with pytest.raises(ZeroDivisionError, match="mine"):
        main(["-c", str(local.ini), "check", "--json"])
    assert json.loads(capsys.readouterr().out) == {"ok": False, "error": "ZeroDivisionError: mine"}


def test_a_revision_after_one_that_is_not_there(local: Project) -> None:
    local.revision("0003", "0007", PLAIN)
    with pytest.warns(UserWarning, match="0007"):
        assert "'0007'" in refused("CF302", "status").err


@pytest.mark.parametrize(
    "text", [b"no = section\n", b"[alembic]\na = 1\na = 2\n", b"[alembic]\nscript_location = %(where)s\n", b"\xff\xfe"]
)
def test_a_configuration_that_cannot_be_read(local: Project, text: bytes) -> None:
    local.ini.write_bytes(text)
    assert "alembic.ini cannot be read" in refused("CF307", "check").err


def test_something_else_than_operations_in_a_change(local: Project) -> None:
    local.revision(
        "0003",
        "0002",
        'change = Change([RenameColumn(table="users", old="mail", new="email")])\n'
        "upgrade, downgrade = change.upgrade, change.downgrade\n",
    )
    refused("CF116", "check")


def test_a_record_that_cannot_be_written(local: Project, tmp_path: Path) -> None:
    done = contraflow("plan", "--record", tmp_path / "nowhere" / "profile.json")
    assert done.code == 1
    assert "No such file or directory" in done.err


def test_a_change_without_its_inverse_is_told_when_it_is_loaded(local: Project) -> None:
    local.revision("0003", "0002", "change = Change()\nupgrade, downgrade = change.upgrade, change.downgrade\n")
    refused("CF116", "check")


@pytest.mark.parametrize("arguments", [("--bogus",), ("dance",), ("repair", "users"), ("verify", "--show", "-1")])
def test_wrong_usage(local: Project, arguments: tuple[str, ...]) -> None:
    done = contraflow(*arguments)
    assert done.code == 1  # 2 would mean "expand is due"
    assert "Usage:" in done.err
    assert contraflow(*arguments, "--json").document["ok"] is False


@contextmanager
def another_runner(project: Project) -> Iterator[None]:
    """One that is in the middle of its work."""
    (one,) = sets(to_upgrade(project.directory(), ["0001"], "head"))
    at_work, may_go = threading.Event(), threading.Event()

    def linger(_progress: object) -> None:
        at_work.set()
        may_go.wait(300)

    def work() -> None:
        with Runner(project.url, one, progress=linger) as runner:
            runner.migrate()

    with Runner(project.url, one) as runner:
        runner.expand()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert at_work.wait(300)
        yield
    finally:
        may_go.set()
        thread.join()


def test_a_second_runner(project: Project) -> None:
    with another_runner(project):
        told = refused("CF001", "migrate")
        assert contraflow("status", "--json").document["runner"]
        shown = contraflow("status").out
    assert "runner" in told.err
    assert "next      wait until the runner at work is done" in shown
    assert "run it again" not in shown
    assert contraflow("migrate").code == 0


MAKE_USERS = """
users = sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
change = Change(CreateTable(definition=users))
upgrade, downgrade = change.upgrade, change.downgrade
"""

LINGERING = """
import time
from pathlib import Path


def upgrade():
    Path("begun").touch()
    until = time.monotonic() + 300
    while not Path("go_on").exists() and time.monotonic() < until:
        time.sleep(0.05)
    op.create_table("users", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("fullname", sa.String(100)))


def downgrade():
    op.drop_table("users")
"""


def test_a_second_first_upgrade(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is at a plain revision still, and has made Alembic's table: no Change was asked yet."""
    project = Project(tmp_path / "service", database.url)
    project.revision("0001", None, LINGERING)
    project.revision("0002", "0001", RENAME_NAME)
    monkeypatch.chdir(project.folder)
    first = subprocess.Popen([sys.executable, "-m", "contraflow.cli", "upgrade"], stdout=subprocess.DEVNULL)
    try:
        while not Path("begun").exists():
            assert first.poll() is None
            time.sleep(0.02)
        assert f"process {first.pid} " in refused("CF001", "upgrade").err
        assert "(upgrade)" in contraflow("status", "--json").document["runner"]
        assert f"at work   process {first.pid} " in contraflow("status").out
    finally:
        Path("go_on").touch()
        assert first.wait(300) == 0
    assert contraflow("upgrade").code == 0
    assert contraflow("status", "--json").document["state"] == "VERIFIED"
    assert contraflow("status", "--json").document["runner"] is None


def test_plain_revisions_alone_need_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "service", f"sqlite:///{tmp_path}/service.db")
    project.revision("0001", None, USERS)
    monkeypatch.chdir(project.folder)
    assert contraflow("upgrade").code == 0
    engine = sa.create_engine(project.url)
    assert sorted(sa.inspect(engine).get_table_names()) == ["alembic_version", "users"]
    engine.dispose()


@pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")
def test_missing_privileges(project: Project, database: Database) -> None:
    before = schema(database.url)
    url = limited(database)
    told = refused("CF202", "--url", url, "check")
    assert "GRANT" in told.err or "owner" in told.err
    refused("CF202", "--url", url, "expand")
    refused("CF202", "--url", url, "upgrade")
    assert schema(database.url) == before


def limited(database: Database) -> str:
    """An account that may read and write rows and make tables of its own, but not alter those of others."""
    name = f"limited_{uuid.uuid4().hex[:8]}"
    if database.kind.startswith("postgresql"):
        grants = [
            f"CREATE ROLE {name} LOGIN PASSWORD 'pw'",
            f"GRANT USAGE, CREATE ON SCHEMA public TO {name}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        ]
    else:
        rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, REFERENCES"
        grants = [
            f"CREATE USER {name}@'%' IDENTIFIED BY 'pw'",
            f"GRANT {rights} ON `{database.url.database}`.* TO {name}@'%'",
        ]
    with database.engine.begin() as connection:
        for grant in grants:
            connection.exec_driver_sql(grant.replace("%", "%%") if "mysql" in connection.dialect.driver else grant)
    return database.url.set(username=name, password="pw").render_as_string(hide_password=False)


def test_the_users_table_is_what_the_tests_think(local: Project) -> None:
    assert '"fullname"' in USERS
    assert 'old="fullname"' in RENAME_NAME
    assert schema(local.url) == ["alembic_version", "users", "id", "fullname", "mail"]


def test_what_sqlalchemy_does_not_reflect_is_not_told(local: Project) -> None:
    engine = sa.create_engine(local.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX ix_abs ON users (abs(id))")
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN place WHEREABOUTS")
    engine.dispose()
    with pytest.warns(sa.exc.SAWarning, match="reflection"):
        sa.Table("users", sa.MetaData(), autoload_with=engine)
    engine.dispose()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for verb in ("check", "plan", "upgrade"):
            done = contraflow(verb)
            assert done.code == 0
            assert "Warning" not in done.err


def test_what_env_prints_does_not_spoil_the_document(local: Project) -> None:
    env = local.folder / "migrations" / "env.py"
    env.write_text('print("hello from env.py")\n' + env.read_text())
    for arguments in (["status"], ["upgrade"], ["rollback"], ["migrate"]):
        done = contraflow(*arguments, "--json")
        assert isinstance(done.document, dict)
        assert "hello from env.py" in done.err
