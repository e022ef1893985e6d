"""Keystone, unmodified, on a cockroachdb:// URL: its answer to a duplicate, without the integration and with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.cockroachdb_double import CockroachDouble
from tests.servers.shared import Database

PEER = Path(__file__).with_name("keystone_peer.py")


def ask(folder: Path, url: sa.URL, plain: sa.URL) -> list[dict[str, Any]]:
    urls = [given.render_as_string(hide_password=False) for given in (url, plain)]
    run = subprocess.run(
        [sys.executable, PEER, folder, *urls], capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


@pytest.mark.only_on("postgresql")
def test_a_duplicate_is_a_conflict_again(database: Database, tmp_path: Path) -> None:
    with CockroachDouble(database.url) as double:
        name = "cockroachdb+psycopg2"
        answers = ask(tmp_path, database.url.set(drivername=name, port=double.port), database.url)
        assert any(statement.startswith("INSERT INTO") for statement in double.log)
    things = ["user", "group", "project", "domain", "role"]
    expected = [(thing, installed, 201, 409 if installed else 500) for installed in (False, True) for thing in things]
    assert [(a["what"], a["installed"], a["first"], a["second"]) for a in answers] == expected
    conflicts = [answer["message"] for answer in answers if answer["installed"]]
    assert all(message.startswith("Conflict occurred") for message in conflicts), conflicts
