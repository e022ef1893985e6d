"""The commands of an upgrade, from its beginning to each of its ends, on every chosen server."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.engine.journal import Tables
from tests.alembic.project import RENAME_MAIL, Project
from tests.cli.commandline import contraflow
from tests.servers.shared import Database


def columns(database: Database) -> list[str]:
    return [column["name"] for column in sa.inspect(database.engine).get_columns("users")]


def execute(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(statement))


def version(database: Database) -> list[Any]:
    with database.engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())


def due(*arguments: str) -> tuple[int, str]:
    done = contraflow("status", "--check", "--json", *arguments)
    return done.code, done.document["due"]


def announce(database: Database, release: str) -> None:
    tables = Tables()
    with database.engine.begin() as connection:
        now = connection.execute(sa.select(tables.journal.c.updated)).scalars().all()[-1]
        values = {"id": "n1", "name": "web-1", "release": release, "host": "h", "pid": 1}
        values |= {"started": now, "seen": now, "library_version": "1"}
        connection.execute(tables.node.insert().values(values))


def test_the_verbs_one_by_one(project: Project, database: Database) -> None:
    before = columns(database)
    assert due() == (2, "expand")
    assert contraflow("check").code == 0
    assert columns(database) == before
    assert contraflow("expand").code == 0
    assert due() == (3, "migrate")
    assert version(database) == ["0001"]
    assert contraflow("expand").code == 0  # again: nothing to do
    migrated = contraflow("migrate", "--json")
    assert (migrated.code, migrated.document["status"]["state"]) == (0, "MIGRATED")
    # Nodes of the new release may start now, and look at alembic_version when they do.
    assert version(database) == ["0003"]
    assert due() == (3, "verify")
    assert contraflow("verify").code == 0
    assert due() == (4, "contract")
    assert contraflow("contract").code == 0
    assert columns(database) == ["id", "display_name", "email"]
    assert due() == (0, "nothing")
    for verb in ("expand", "migrate", "verify", "contract", "upgrade", "check"):
        assert contraflow(verb).code == 0, verb
    late = contraflow("rollback", "--json")
    assert (late.code, late.codes) == (1, ["CF303"])


@pytest.mark.parametrize("verbs", [("expand",), ("expand", "migrate"), ("upgrade",)])
def test_rollback_from_every_state(project: Project, database: Database, verbs: tuple[str, ...]) -> None:
    before = columns(database)
    for verb in verbs:
        assert contraflow(verb).code == 0
    told = contraflow("rollback")
    assert told.code == 0
    assert columns(database) == before
    assert version(database) == ["0001"]
    assert due() == (2, "expand")
    assert "ROLLED_BACK" in told.out
    assert "next      contraflow expand begins it anew" in told.out
    assert contraflow("status").out == told.out
    again = contraflow("rollback", "--json")  # nothing to do
    assert again.code == 0
    assert contraflow("status", "--json").document == {"ok": True, **again.document["status"]}
    assert contraflow("upgrade").code == 0
    assert version(database) == ["0003"]


def test_upgrade_runs_the_plain_revisions_too(project: Project, database: Database) -> None:
    project.downgrade("base")
    early = contraflow("expand", "--json")
    assert (early.code, early.codes) == (1, ["CF305"])
    done = contraflow("upgrade", "--json")
    assert (done.code, done.document["status"]["state"]) == (0, "VERIFIED")
    assert version(database) == ["0003"]


def test_upgrade_goes_on_from_where_it_stands(project: Project, database: Database) -> None:
    contraflow("expand")
    contraflow("migrate")
    assert version(database) == ["0003"]
    done = contraflow("upgrade", "--json")
    assert done.document["status"]["state"] == "VERIFIED"
    contracted = contraflow("upgrade", "--through", "contract", "--json")
    assert contracted.document["status"]["state"] == "CONTRACTED"
    assert columns(database) == ["id", "display_name", "email"]


def test_drift_is_shown_and_repaired(project: Project, database: Database) -> None:
    contraflow("upgrade")
    # A statement that changes the marker is taken for the sync's own, so this is drift.
    execute(database, "UPDATE users SET display_name = 'wrong', cf_marker = 3 - cf_marker + 1 WHERE id = 1")
    found = contraflow("verify", "--show", "5")
    assert found.code == 1
    assert "CF012" in found.err
    assert "wrong" in found.err
    assert "contraflow repair users --from old" in found.err
    refused = contraflow("contract", "--json")
    assert (refused.code, refused.codes) == (1, ["CF012"])
    assert columns(database)[:3] == ["id", "fullname", "mail"]
    mended = contraflow("repair", "users", "--from", "old", "--json")
    assert (mended.code, mended.document["rows"]) == (0, 1)
    assert contraflow("verify").code == 0
    assert contraflow("contract").code == 0
    unknown = contraflow("repair", "users", "--from", "new", "--json")
    assert (unknown.code, unknown.codes) == (1, ["CF004"])


def test_contract_waits_for_the_nodes_of_the_old_release(project: Project, database: Database) -> None:
    contraflow("upgrade")
    announce(database, "0001")
    assert due() == (0, "roll")
    listed = contraflow("nodes", "--json").document["nodes"]
    assert [(node["name"], node["side"]) for node in listed] == [("web-1", "old")]
    assert "web-1" in contraflow("nodes", "list").out
    refused = contraflow("contract", "--json")
    assert (refused.code, refused.codes) == (1, ["CF401"])
    assert contraflow("nodes", "forget", "nobody").code == 1
    assert contraflow("nodes", "forget", "n1", "--json").document["forgotten"] == "n1"
    assert contraflow("nodes").out.strip() == "no node announced itself"
    announce(database, "0001")
    assert contraflow("contract", "--force", "n1 hangs in shutdown").code == 0
    with database.engine.connect() as connection:
        details = connection.execute(sa.select(Tables().event.c.detail)).scalars().all()
    assert any("n1 hangs in shutdown" in str(detail) for detail in details)


def test_rollback_waits_for_the_nodes_of_the_new_release(project: Project, database: Database) -> None:
    contraflow("upgrade")
    announce(database, "0003")
    refused = contraflow("rollback", "--json")
    assert (refused.code, refused.codes) == (1, ["CF401"])
    assert version(database) == ["0003"]
    assert contraflow("rollback", "--force", "it does not start").code == 0
    assert version(database) == ["0001"]


def test_without_a_configuration_the_journal_is_enough(
    project: Project, database: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database.url.render_as_string(hide_password=False)
    contraflow("expand")
    monkeypatch.chdir(tmp_path)
    assert due("--url", url) == (3, "migrate")
    monkeypatch.setenv("CONTRAFLOW_URL", url)
    assert due() == (3, "migrate")
    assert contraflow("expand", "--json").codes == ["CF301"]
    assert "next      contraflow expand, where the revisions are, begins it anew" in contraflow("rollback").out
    assert due() == (0, "nothing")  # that may wait is not known here
    monkeypatch.chdir(project.folder)
    assert contraflow("expand").code == 0
    monkeypatch.chdir(tmp_path)
    assert contraflow("migrate").code == 0
    assert contraflow("verify").code == 0
    # alembic_version can be moved with the configuration only.
    assert version(database) == ["0001"]
    refused = contraflow("rollback", "--json")
    assert (refused.code, refused.codes) == (1, ["CF301"])
    assert contraflow("contract").code == 0
    monkeypatch.chdir(project.folder)
    assert contraflow("upgrade").code == 0
    assert version(database) == ["0003"]
    assert columns(database) == ["id", "display_name", "email"]


def test_a_plan_names_every_statement_and_changes_nothing(project: Project, database: Database) -> None:
    before = columns(database)
    plan = contraflow("plan", "--json").document
    assert plan["upgrade"] == "0001:0003"
    assert list(plan["phases"]) == ["expand", "migrate", "verify", "contract", "rollback"]
    expand = plan["phases"]["expand"]
    assert any("display_name" in one["sql"] and one["lock"] for one in expand)
    assert any("TRIGGER" in one["sql"] for one in expand)
    shown = contraflow("plan")
    assert shown.code == 0
    for phase in plan["phases"]:
        assert phase in shown.out
    script = contraflow("plan", "--sql", "--phase", "expand")
    for one in expand:
        assert one["sql"].strip() in script.out
    assert "-- contract" not in script.out
    assert contraflow("plan", "--phase", "dance").code == 1
    assert columns(database) == before


OPAQUE = """
from contraflow import Opaque, OpaqueColumns


def reversed_(source, target):
    return lambda row: {target: row[source][::-1]}


change = Change(
    OpaqueColumns(
        table="users",
        columns=[sa.Column("name_", sa.String(100), nullable=False)],
        lens=Opaque(
            old=["display_name"],
            new=["name_"],
            forward=reversed_("display_name", "name_"),
            backward=reversed_("name_", "display_name"),
        ),
    )
)
upgrade, downgrade = change.upgrade, change.downgrade
"""


def test_what_only_python_computes_is_computed_by_migrate(project: Project, database: Database) -> None:
    assert contraflow("upgrade", "--through", "contract").code == 0
    project.revision("0004", "0003", OPAQUE)
    assert contraflow("upgrade").code == 0
    execute(database, "UPDATE users SET display_name = 'Bob' WHERE id = 1")
    assert "to fill   users: 1 rows" in contraflow("status").out
    refused = contraflow("contract", "--json")
    assert (refused.code, refused.codes) == (1, ["CF012"])
    # A revision that waits after it is no obstacle.
    project.revision("0005", "0004", RENAME_MAIL.replace('"mail"', '"email"').replace('new="email"', 'new="address"'))
    assert contraflow("migrate").code == 0
    assert contraflow("contract").code == 0
    with database.engine.connect() as connection:
        found = connection.execute(sa.text("SELECT name_ FROM users ORDER BY id")).scalars().all()
    assert list(found) == ["boB", "rehC"]


def test_the_upgrade_can_be_named(project: Project, database: Database) -> None:
    assert contraflow("check", "--revision", "0001:0002", "--json").document["upgrade"] == "0001:0002"
    assert contraflow("--revision", "0001:0003", "expand").code == 0
    wrong = contraflow("status", "--revision", "base:0003", "--json")
    assert (wrong.code, wrong.codes) == (1, ["CF305"])
    for unknown in ("0001:9999", "9999:0003"):
        assert contraflow("check", "--revision", unknown, "--json").codes == ["CF302"]


def test_growth_before_migrate_is_planned_anew(project: Project, database: Database) -> None:
    assert contraflow("expand", "--revision", "0001:0002").code == 0
    assert "email" not in columns(database)
    assert contraflow("expand").code == 0
    assert "email" in columns(database)
    assert contraflow("upgrade").code == 0
    project.revision("0004", "0003", RENAME_MAIL.replace('"mail"', '"email"').replace('new="email"', 'new="address"'))
    refused = contraflow("upgrade", "--json")
    assert (refused.code, refused.codes) == (1, ["CF005"])


def test_where_env_connects_is_compared_once(local: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs a connection; a command runs env.py up to four times."""
    compared: list[sa.Connection] = []
    for module in ("environment", "running"):
        monkeypatch.setattr(f"contraflow.alembic.{module}.refuse_another_place", compared.append)
    for verb in ("upgrade", "rollback"):
        assert contraflow(verb).code == 0
        assert len(compared) == 1
        compared.clear()
    local.upgrade()
    assert len(compared) == 1
