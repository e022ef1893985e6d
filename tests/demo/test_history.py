"""The example's one Alembic history gives each release exactly the tables that its models declare."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from contraflow.rehearsal.demo.nodes import find_example
from tests.servers.shared import Database


@pytest.mark.parametrize(("release", "revision"), [(1, "0001"), (2, "head")])
def test_the_history_leads_to_the_models(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: int, revision: str
) -> None:
    ini = tmp_path / "alembic.ini"
    url = database.url.render_as_string(hide_password=False).replace("%", "%%")
    ini.write_text(
        f"[alembic]\nscript_location = {find_example() / 'migrations'}\npath_separator = os\n"
        f"sqlalchemy.url = {url}\n[contraflow]\nthrough = contract\n"
    )
    command.upgrade(Config(ini), revision)
    monkeypatch.syspath_prepend(find_example())
    module: Any = importlib.import_module(f"identity.release_{release}")
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_ours})
        assert compare_metadata(context, module.Base.metadata) == []


def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return kind != "table" or not (name or "").startswith(("contraflow_", "alembic_"))
