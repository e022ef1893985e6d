"""Projects to run commands on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.alembic.project import Project, two_changes
from tests.servers.shared import Database


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with nothing set that commands read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("CONTRAFLOW_URL", "ALEMBIC_CONFIG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Project:
    """On each chosen server: the users table, and two Changes that wait. The current folder is the project's."""
    made = two_changes(tmp_path / "service", database.url)
    monkeypatch.chdir(made.folder)
    made.upgrade("0001")
    return made


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same on SQLite, whichever servers are chosen."""
    made = two_changes(tmp_path / "service", f"sqlite:///{tmp_path}/service.db")
    monkeypatch.chdir(made.folder)
    made.upgrade("0001")
    return made
