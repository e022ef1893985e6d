"""Each release of a rehearsal in a virtual environment of its own, with a SQLAlchemy of its own and no Contraflow."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import cache
from tests.alembic.project import two_changes
from tests.rehearsal.test_rehearse import explain

# SQLAlchemy 2.1 needs Python 3.11.
SQLALCHEMY = ("2.0.36", "2.1.9" if sys.version_info >= (3, 11) else "2.0.40")


def environment(version: str) -> Path:
    """The interpreter of a virtual environment with this SQLAlchemy; kept, like the scratch servers' programs."""

    def build(work: Path, _final: Path) -> None:
        venv.create(work, with_pip=False)
        python = str(work / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, f"SQLAlchemy=={version}"], check=True)

    name = f"test-sqlalchemy-{version}-python-{sys.version_info[0]}.{sys.version_info[1]}"
    return cache.ensure(name, build) / "bin" / "python"


@pytest.mark.parametrize("way", [SQLALCHEMY, SQLALCHEMY[::-1]], ids=["newer", "older"])
def test_each_release_has_its_own_sqlalchemy(way: tuple[str, str], tmp_path: Path) -> None:
    old, new = (str(environment(version)) for version in way)
    for python in (old, new):
        found = subprocess.run([python, "-I", "-c", "import contraflow"], capture_output=True, check=False)
        assert found.returncode == 1, "it has a Contraflow of its own"
    project = two_changes(tmp_path / "service", "sqlite://")
    record = Rehearsal(
        config=project.ini,
        seconds=0.6,
        rows=5,
        workers=2,
        old_workload=Workload(python=old),
        new_workload=Workload(python=new),
    ).run()
    assert record.verdict == "passed", explain(record)
    told = [
        record.versions.get(f"SQLAlchemy of the {release} release", record.versions["SQLAlchemy"])
        for release in ("old", "new")
    ]
    assert told == list(way)
    assert {bucket.release for bucket in record.buckets} == {"old", "new"}
