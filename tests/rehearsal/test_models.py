"""Which tables a rehearsal writes, and what the old release's rows obey because of the new one's schema."""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.faults import parse
from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.alembic.project import Project
from tests.rehearsal.test_rehearse import PATIENCE, drop_triggers, explain, rehearse

TABLES = """
def upgrade():
    op.create_table(
        "owners",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(40)),
    )
    op.create_table(
        "things",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("owner", sa.Integer()),
        sa.Column("code", sa.String(20)),
        sa.Column("size", sa.Integer()),
        sa.Column("price", sa.SmallInteger()),
    )
    op.create_table("drafts", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("body", sa.Text()))


def downgrade():
    pass
"""

CHANGES = """
from contraflow import AddCheck, AddForeignKey, AddUnique, ChangeComment, CreateTable
from contraflow import DropTable, RenameTable, WidenColumn

invoices = sa.Table(
    "invoices",
    sa.MetaData(),
    sa.Column("id", sa.Integer(), primary_key=True),
    sa.Column("owner", sa.Integer(), sa.ForeignKey("owners.id", ondelete="CASCADE")),
    sa.Column("body", sa.String(40), nullable=False),
)
change = Change(
    AddForeignKey(table="things", name="fk_owner", columns=["owner"], target="owners", target_columns=["id"]),
    RenameColumn(table="things", old="code", new="label"),
    AddUnique(table="things", columns=["label"], name="uq_label"),
    AddCheck(table="things", name="ck_size", columns=["size"], condition=lambda row: row.size >= 0, copies=True),
    WidenColumn(table="things", column="price", type=sa.BigInteger(), replans=True),
    ChangeComment(table="things", column="price", comment="in cents"),
    ChangeComment(table="owners", comment="who has things"),
    DropTable(table="drafts"),
    CreateTable(definition=invoices),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""

RENAMED = """
from contraflow import RenameTable

change = Change(RenameTable(table="owners", new="people"), RenameColumn(table="people", old="name", new="title"))
upgrade, downgrade = change.upgrade, change.downgrade
"""


def test_constraints_types_and_whole_tables_change_under_load(server: Server, tmp_path: Path) -> None:
    project = Project(tmp_path / "service", "sqlite://")
    project.revision("0001", None, TABLES)
    project.revision("0002", "0001", CHANGES)
    record = rehearse(server, project.ini).run()
    assert record.verdict == "passed", explain(record)
    assert not [key for key in record.options if key.startswith("note")]


@pytest.mark.only_on("sqlite", "postgresql")
def test_what_the_old_release_cannot_hold_is_not_taken_back(server: Server, tmp_path: Path) -> None:
    project = Project(tmp_path / "service", "sqlite://")
    project.revision("0001", None, TABLES)
    project.revision("0002", "0001", CHANGES)

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        # What the new release may write, and has written for certain.
        with engine.begin() as connection:
            if phase == "rollback":
                connection.exec_driver_sql("INSERT INTO things (id, price) VALUES (999999, 900000)")
            elif phase.startswith("checking"):
                connection.exec_driver_sql("DELETE FROM things WHERE id = 999999")

    faults = (parse("release-taken-back@both:0.5"),)
    record = rehearse(server, project.ini, faults=faults).run(meanwhile=meanwhile)
    assert record.verdict == "passed", explain(record)
    (fault,) = record.faults
    assert fault.detail == "refused, so the new release went on"
    assert "CF015: things.price cannot become" in str(record.options["note 1"])


def test_a_table_is_renamed_under_load(server: Server, tmp_path: Path) -> None:
    project = Project(tmp_path / "service", "sqlite://")
    project.revision("0001", None, TABLES)
    project.revision("0002", "0001", RENAMED)
    record = rehearse(server, project.ini).run()
    assert record.verdict == "passed", explain(record)
    assert not [key for key in record.options if key.startswith("note")]


SPLIT = """
from contraflow import CreateTable, MoveColumns

sizes = sa.Table(
    "sizes",
    sa.MetaData(),
    sa.Column("thing_id", sa.Integer(), sa.ForeignKey("things.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("size", sa.Integer()),
    sa.Column("label", sa.String(20)),
    sa.Column("price", sa.SmallInteger()),
    sa.Column("note", sa.String(20), server_default="none"),
)
change = Change(
    CreateTable(definition=sizes),
    MoveColumns(table="things", to="sizes", on={"id": "thing_id"}, columns={"size": "size", "code": "label"}),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""

TWO_TABLES = """
def upgrade():
    op.create_table(
        "people",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(40)),
    )
    op.create_table(
        "homes",
        sa.Column("person", sa.Integer(), sa.ForeignKey("people.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("street", sa.String(40), nullable=False),
        sa.Column("town", sa.String(40)),
        sa.Column("plan", sa.String(40)),
    )
    op.execute("INSERT INTO people (id, name) VALUES (7001, 'there before'), (7002, 'him too')")
    op.execute("INSERT INTO homes (person, street) VALUES (7002, 'Main Street')")


def downgrade():
    pass
"""

JOIN = """
from contraflow import DropTable, MoveColumns

change = Change(
    MoveColumns(table="homes", to="people", on={"person": "id"}, columns=["street", "town"], missing={"street": "?"}),
    DropTable(table="homes"),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""


def two_revisions(folder: Path, tables: str, changes: str) -> Path:
    project = Project(folder, "sqlite://")
    project.revision("0001", None, tables)
    project.revision("0002", "0001", changes)
    return project.ini


@pytest.mark.only_on("sqlite", "postgresql", "mysql")
@pytest.mark.parametrize(("tables", "changes"), [(TABLES, SPLIT), (TWO_TABLES, JOIN)], ids=["split", "join"])
def test_columns_move_between_tables_under_load(server: Server, tmp_path: Path, tables: str, changes: str) -> None:
    record = rehearse(server, two_revisions(tmp_path / "service", tables, changes)).run()
    assert record.verdict == "passed", explain(record)
    assert not [key for key in record.options if key.startswith("note")]


ELSEWHERE = SPLIT.replace("primary_key=True),", "unique=True, nullable=False),").replace(
    '    sa.Column("size"', '    sa.Column("id", sa.Integer(), primary_key=True),\n    sa.Column("size"'
)


def test_what_cannot_be_judged_does_not_pass(tmp_path: Path) -> None:
    record = Rehearsal(config=two_revisions(tmp_path / "service", TABLES, ELSEWHERE), seconds=0.4, rows=3).run()
    assert record.verdict == "error", explain(record)
    assert "own workload" in record.reason
    assert not record.findings
    notes = [str(value) for key, value in record.options.items() if key.startswith("note")]
    assert [note.partition(" ")[0] for note in notes] == ["sizes", "things"]


COPIED = """
from contraflow import CopyColumn, Source

change = Change(
    RenameColumn(table="drafts", old="body", new="content"),
    CopyColumn(
        table="owners",
        column=sa.Column("code", sa.String(20)),
        sources=[Source(table="things", column="code", on={"name": "code"})],
        scans=True,
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""


def test_a_verdict_says_what_it_is_not_about(tmp_path: Path) -> None:
    record = Rehearsal(config=two_revisions(tmp_path / "service", TABLES, COPIED), seconds=0.4, rows=3).run()
    assert record.verdict == "passed", explain(record)
    assert "NOT MODELLED, and so not judged: owners, things" in record.reason


SEALED = """
import base64
import secrets

from contraflow import Opaque, OpaqueColumns


def seal(row):
    nonce = secrets.token_hex(4)
    return {"sealed": nonce + base64.b64encode(row["body"].encode()).decode(), "nonce": nonce}


def unseal(row):
    if not row["sealed"].startswith(row["nonce"]):
        raise ValueError("another row's")
    return {"body": base64.b64decode(row["sealed"][8:]).decode()}


change = Change(
    OpaqueColumns(
        table="letters",
        columns=[sa.Column("sealed", sa.Text(), nullable=False), sa.Column("nonce", sa.String(8), nullable=False)],
        lens=Opaque(old=["body"], new=["sealed", "nonce"], forward=seal, backward=unseal),
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
LETTERS = """
def upgrade():
    op.create_table(
        "letters",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("body", sa.String(100), nullable=False),
        sa.Column("note", sa.String(20)),
    )


def downgrade():
    pass
"""


@pytest.mark.only_on("sqlite", "postgresql", "mysql")
def test_what_only_python_computes_is_written_by_both_releases(server: Server, tmp_path: Path) -> None:
    record = rehearse(server, two_revisions(tmp_path / "service", LETTERS, SEALED)).run()
    assert record.verdict == "passed", explain(record)
    assert not [key for key in record.options if key.startswith("note")]
    assert {bucket.release for bucket in record.buckets} == {"old", "new"}


def until_stale(engine: sa.Engine) -> None:
    """Hold the rehearsal until several letters are sealed otherwise than they read."""
    limit = time.monotonic() + PATIENCE
    stale = 0
    while stale < 3:
        assert time.monotonic() < limit, "nobody writes"
        time.sleep(0.01)
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT body, sealed FROM letters WHERE sealed IS NOT NULL").all()
        stale = sum(base64.b64decode(sealed[8:]).decode() != body for body, sealed in found)


@pytest.mark.only_on("sqlite")
def test_a_stale_image_that_only_python_could_compute_is_noticed(server: Server, tmp_path: Path) -> None:
    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "both releases":
            assert drop_triggers(engine, "letters")
        if phase == "checking every row before contract":
            until_stale(engine)

    record = rehearse(server, two_revisions(tmp_path / "service", LETTERS, SEALED)).run(meanwhile=meanwhile)
    assert record.verdict == "failed"
    assert {finding.kind for finding in record.findings} & {"alien read", "differs"}, explain(record)


def test_an_opaque_lens_needs_a_node_that_has_the_library(tmp_path: Path) -> None:
    ini = two_revisions(tmp_path / "service", LETTERS, SEALED)
    new = Workload(python=sys.executable)
    record = Rehearsal(config=ini, seconds=0.4, rows=3, new_workload=new).run()
    assert record.verdict == "error", explain(record)
    assert "computes columns of it in Python" in str(record.options["note 1"])


KEYLESS = """
def upgrade():
    op.create_table(
        "journal",
        sa.Column("level", sa.SmallInteger()),
        sa.Column("fullname", sa.String(40), nullable=False),
        sa.Column("what", sa.String(40)),
    )
    op.execute("INSERT INTO journal (fullname, what) VALUES ('nobody', NULL), ('twice', 'x'), ('twice', 'x')")


def downgrade():
    pass
"""
KEYLESS_RENAMED = """
change = Change(RenameColumn(table="journal", old="fullname", new="display_name"))
upgrade, downgrade = change.upgrade, change.downgrade
"""


@pytest.mark.only_on("sqlite", "postgresql", "mariadb")
def test_a_table_without_a_key_is_judged_by_what_its_rows_hold(server: Server, tmp_path: Path) -> None:
    record = rehearse(server, two_revisions(tmp_path / "service", KEYLESS, KEYLESS_RENAMED)).run()
    assert record.verdict == "passed", explain(record)
    assert (
        record.options["note 1"]
        == "journal: 3 rows that were there are not judged: their what does not tell them apart"
    )
    assert record.counts["acknowledged writes"] > 0


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        (
            "doubled",
            "INSERT INTO journal (display_name, what, cf_marker) SELECT display_name, what, cf_marker FROM journal",
        ),
        ("lost", "DELETE FROM journal WHERE what = (SELECT min(what) FROM journal)"),
        ("differs", "UPDATE journal SET fullname = 'no', cf_marker = CASE cf_marker WHEN 1 THEN 2 ELSE 1 END"),
    ],
)
def test_what_is_spoilt_in_a_table_without_a_key_is_noticed(
    server: Server, tmp_path: Path, kind: str, spoil: str
) -> None:
    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "checking every row before contract":
            with engine.begin() as connection:
                connection.exec_driver_sql(spoil)

    ini = two_revisions(tmp_path / "service", KEYLESS, KEYLESS_RENAMED)
    record = rehearse(server, ini, seconds=0.4, rows=5).run(meanwhile=meanwhile)
    assert kind in {finding.kind for finding in record.findings}, explain(record)
