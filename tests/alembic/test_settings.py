"""The [contraflow] section."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.config import Config

from contraflow.alembic.settings import KEYS, Settings, read_settings
from contraflow.engine.report import Options
from contraflow.problems import ProblemError


def configuration(folder: Path, ini: str | None = None, toml: str | None = None) -> Config:
    if ini is not None:
        (folder / "alembic.ini").write_text(ini)
    (folder / "pyproject.toml").write_text(toml or "")
    return Config(str(folder / "alembic.ini") if ini is not None else None, toml_file=str(folder / "pyproject.toml"))


def test_nothing_said_gives_the_defaults(tmp_path: Path) -> None:
    assert read_settings(configuration(tmp_path, "[alembic]\n")) == Settings()
    assert read_settings(configuration(tmp_path)) == Settings()


def test_every_key_is_read_from_alembic_ini(tmp_path: Path) -> None:
    ini = """
[alembic]
script_location = %(here)s/migrations
[contraflow]
through = contract
profile = production.json
journal_schema = operations
lock_timeout = 0.5
lock_patience = 60
latency_budget = 0.2
batch_size = 10
max_batch_size = 100
pause = 0
replicas = postgresql://a/x  postgresql://b/x
max_lag = 2.5
lease = 5
node_ttl = 6.5
"""
    settings = read_settings(configuration(tmp_path, ini))
    assert settings.through == "contract"
    assert settings.profile == tmp_path / "production.json"
    assert settings.options == Options(
        schema="operations",
        lock_timeout=0.5,
        lock_patience=60,
        latency_budget=0.2,
        batch_size=10,
        max_batch_size=100,
        pause=0,
        replicas=("postgresql://a/x", "postgresql://b/x"),
        max_lag=2.5,
        lease=5,
        node_ttl=6.5,
    )
    assert all(f"\n{key} = " in ini for key in KEYS)


def test_pyproject_is_read_and_alembic_ini_counts_for_more(tmp_path: Path) -> None:
    toml = '[tool.contraflow]\nthrough = "contract"\nbatch_size = 7\n'
    assert read_settings(configuration(tmp_path, toml=toml)).through == "contract"
    both = read_settings(configuration(tmp_path, "[contraflow]\nbatch_size = 8\n", toml))
    assert (both.through, both.options.batch_size) == ("contract", 8)


def test_an_x_argument_counts_for_most_and_others_are_not_ours(tmp_path: Path) -> None:
    config = configuration(tmp_path, "[contraflow]\nthrough = verify\n")
    assert read_settings(config, {"contraflow.through": "contract", "tenant": "a"}).through == "contract"


def test_every_wrong_key_is_told_at_once(tmp_path: Path) -> None:
    wrong_keys = ("lock_timout = 1", "through = expand", "batch_size = many", "lease = -1", "pause = nan")
    ini = "\n".join(["[contraflow]", *wrong_keys, "lock_timeout = 0", ""])
    with pytest.raises(ProblemError) as error:
        read_settings(configuration(tmp_path, ini))
    assert {found.code for found in error.value.problems} == {"CF307"}
    told = "\n".join(found.what for found in error.value.problems)
    for wrong in (
        "lock_timout",
        "through = 'expand'",
        "batch_size = 'many'",
        "lease = '-1'",
        "pause = 'nan'",
        "lock_timeout = '0'",
    ):
        assert wrong in told
    assert len(error.value.problems) == 6


def test_values_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="CF307"):
        read_settings(configuration(tmp_path, "[contraflow]\nbatch_size = 10\nmax_batch_size = 5\n"))


@pytest.mark.parametrize("toml", ["[tool.contraflow\n", 'tool = {contraflow = "through"}\n'])
def test_a_broken_pyproject_is_told(tmp_path: Path, toml: str) -> None:
    with pytest.raises(ProblemError, match="CF307"):
        read_settings(configuration(tmp_path, toml=toml))
