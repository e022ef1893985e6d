"""Where the configuration, the URL and the arguments come from; and the demo, which needs none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.rehearsal import demo
from tests.alembic.project import Project, two_changes
from tests.cli.commandline import contraflow


def state(*arguments: object) -> Any:
    return contraflow(*arguments, "status", "--json").document.get("upgrade")


def test_a_configuration_elsewhere(local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert contraflow("status", "--json").codes == ["CF301"]
    assert state("-c", local.ini) == "0001:0003"
    assert state("-c", local.ini.relative_to(tmp_path)) == "0001:0003"
    monkeypatch.setenv("ALEMBIC_CONFIG", str(local.ini))
    assert state() == "0001:0003"


def test_the_options_may_stand_before_or_after_the_command(
    local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert contraflow("status", "-c", local.ini, "--json").code == 0
    assert contraflow("--json", "-c", local.ini, "status").document["ok"]
    # After the command's name counts for more.
    assert contraflow("-c", "nowhere.ini", "status", "-c", local.ini).code == 0


@pytest.mark.parametrize("template", ["pyproject", "pyproject_async"])
def test_a_project_with_a_pyproject_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    driver = "sqlite+aiosqlite" if template == "pyproject_async" else "sqlite"
    project = two_changes(tmp_path / "service", f"{driver}:///{tmp_path}/service.db", template)
    project.toml.write_text(project.toml.read_text() + '\n[tool.contraflow]\nthrough = "contract"\n')
    monkeypatch.chdir(project.folder)
    assert contraflow("-c", "pyproject.toml", "upgrade", "--json").document["status"]["state"] == "CONTRACTED"
    assert contraflow("status", "--check").code == 0


def test_another_section_of_the_configuration(local: Project, tmp_path: Path) -> None:
    text = local.ini.read_text()
    local.ini.write_text(text.replace("[alembic]", "[other]"))
    assert contraflow("status", "--json").codes == ["CF301"]
    assert state("-n", "other") == "0001:0003"


def test_x_arguments_reach_env_and_settings(local: Project, tmp_path: Path) -> None:
    env = local.folder / "migrations" / "env.py"
    chosen = 'config.set_main_option("sqlalchemy.url", context.get_x_argument(as_dictionary=True)["where"])\n'
    env.write_text(env.read_text().replace("config = context.config\n", f"config = context.config\n{chosen}"))
    url = f"sqlite:///{tmp_path}/chosen.db"
    done = contraflow("-x", f"where={url}", "-x", "contraflow.through=contract", "upgrade", "--json")
    assert done.document["status"]["state"] == "CONTRACTED"
    engine = sa.create_engine(url)
    assert [column["name"] for column in sa.inspect(engine).get_columns("users")] == ["id", "display_name", "email"]
    engine.dispose()


def test_a_given_url_replaces_the_configured_one(
    local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"sqlite:///{tmp_path}/other 100%.db"
    assert contraflow("--url", other, "upgrade", "--through", "contract").code == 0
    assert contraflow("status", "--url", other, "--json").document["state"] == "CONTRACTED"
    monkeypatch.setenv("CONTRAFLOW_URL", other)
    assert contraflow("status", "--json").document["state"] == "CONTRACTED"
    monkeypatch.setenv("DATABASE_URL", "sqlite:////nowhere/at/all.db")
    monkeypatch.delenv("CONTRAFLOW_URL")
    assert contraflow("status", "--json").document["state"] == "PENDING"


def verdict(failed: int) -> demo.Verdict:
    return demo.Verdict(
        server="sqlite 3", served={1: 5, 2: 5}, failed=failed, differing=0, values_checked=9, phases=(), seconds=1.0
    )


@pytest.mark.parametrize("failed", [0, 3])
def test_the_demo_ends_with_its_verdict(monkeypatch: pytest.MonkeyPatch, failed: int) -> None:
    asked: list[demo.Options] = []

    def run(options: demo.Options, *, progress: Any) -> demo.Verdict:
        asked.append(options)
        progress("rolling the nodes")
        return verdict(failed)

    monkeypatch.setattr(demo, "run", run)
    done = contraflow("demo", "--on", "mysql", "--users", 20, "--duration", 1.5, "--seed", 7, "--json")
    assert done.code == (1 if failed else 0)
    assert done.document["ok"] is (failed == 0)
    assert done.document["requests_failed"] == failed
    assert "rolling the nodes" in done.err
    assert asked == [demo.Options(on="mysql", users=20, duration=1.5, seed=7)]
    assert ("PASSED" if not failed else "FAILED") in contraflow("demo").out


def test_ctrl_c_in_the_demo_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_options: demo.Options, *, progress: Any) -> demo.Verdict:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", run)
    assert contraflow("demo").code == 130
