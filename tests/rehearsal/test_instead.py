"""Other ways of upgrading are rehearsed like Contraflow's own: what they break is found."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from contraflow.problems import ContraflowError
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.alembic.project import two_changes


def test_what_a_plain_revision_breaks_is_found(server: Server, tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    called: list[str] = []

    def rename(verb: str, url: sa.URL) -> None:
        called.append(verb)
        if verb == "migrate":
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE users RENAME COLUMN fullname TO display_name")
                connection.exec_driver_sql("ALTER TABLE users RENAME COLUMN mail TO email")

    url = server.address.render_as_string(hide_password=False)
    record = Rehearsal(config=project.ini, url=url, seconds=1.2, rows=10, workers=2, instead=rename).run()
    assert called == ["expand", "migrate", "verify", "contract"]
    assert record.verdict == "failed"
    failed = [finding.what for finding in record.findings if finding.kind == "failed"]
    assert any("by the old release" in what and ("fullname" in what or "mail" in what) for what in failed), failed


def test_a_way_that_gives_up_is_a_failed_rehearsal(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")

    def give_up(verb: str, _url: sa.URL) -> None:
        if verb == "migrate":
            raise ContraflowError("no such column")

    record = Rehearsal(config=project.ini, seconds=0.6, rows=5, workers=2, instead=give_up).run()
    assert record.verdict == "failed"
    assert "no such column" in record.reason
    assert record.phases[-1].name == "migrate"
