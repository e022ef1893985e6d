"""Operations that make rows of several tables depend on each other pass a rehearsal, and are not left out of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.faults import parse
from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.rehearsal.test_models import LETTERS, SEALED, two_revisions
from tests.rehearsal.test_rehearse import explain, rehearse

LIMITS = """
def upgrade():
    op.create_table(
        "registered",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("service", sa.String(20), nullable=False),
        sa.Column("region", sa.String(20)),
        sa.Column("most", sa.Integer()),
        sa.UniqueConstraint("service", "region", name="uq_registered"),
    )
    op.create_table(
        "limits",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("service", sa.String(20), nullable=False),
        sa.Column("region", sa.String(20)),
        sa.Column("most", sa.Integer()),
        sa.Column("note", sa.String(20)),
    )
    op.execute("INSERT INTO registered (id, service, region) VALUES (7001, 'one', 'north'), (7002, 'one', NULL)")
    op.execute("INSERT INTO limits (id, service, region) VALUES (7001, 'one', 'north'), (7002, 'one', NULL)")


def downgrade():
    pass
"""
REFERRED = """
from contraflow import CreateIndex, ReferColumns

change = Change(
    ReferColumns(
        table="limits",
        columns={"service": "service", "region": "region"},
        column=sa.Column("registered_id", sa.Integer(), nullable=False),
        to="registered",
        key="id",
        scans=True,
    ),
    RenameColumn(table="limits", old="most", new="maximum"),
    CreateIndex(table="limits", name="ix_limits_registered", columns=["registered_id"]),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""

SHOPS = """
def upgrade():
    op.create_table("makers", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("place", sa.String(20)))
    op.create_table(
        "goods",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("maker", sa.Integer(), sa.ForeignKey("makers.id")),
        sa.Column("note", sa.String(20)),
    )
    op.create_table(
        "labels",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("good", sa.Integer(), sa.ForeignKey("goods.id"), index=True),
        sa.Column("place", sa.String(20)),
    )
    op.execute("INSERT INTO makers (id, place) VALUES (7001, 'Ulm'), (7002, NULL)")
    op.execute("INSERT INTO goods (id, maker) VALUES (7001, 7001), (7002, 7002), (7003, NULL)")
    op.execute("INSERT INTO labels (id, good, place) VALUES (7001, 7001, 'Rom'), (7002, 7002, NULL)")


def downgrade():
    pass
"""
COPIED = """
from contraflow import CopyColumn, Source

change = Change(
    CopyColumn(
        table="goods",
        column=sa.Column("place", sa.String(20)),
        sources=[
            Source(table="labels", column="place", on={"id": "good"}),
            Source(table="makers", column="place", on={"maker": "id"}),
        ],
        scans=True,
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
ORDERS = """
def upgrade():
    op.create_table("buyers", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(20)))
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("buyer", sa.Integer(), sa.ForeignKey("buyers.id")),
        sa.Column("note", sa.String(40)),
        sa.Column("internal", sa.String(20), server_default="none"),
        sa.Column("archived", sa.Boolean()),
    )
    op.execute("INSERT INTO buyers (id) VALUES (7001)")
    op.execute("INSERT INTO orders (id, buyer, note) VALUES (7001, 7001, 'there before'), (7002, NULL, NULL)")


def downgrade():
    pass
"""
TABLES = """
from contraflow import CopyTable, CreateTable, DropTable, MergeTables, SplitTable


def orders(name, *more):
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("buyer", sa.Integer(), sa.ForeignKey("buyers.id")),
        sa.Column("note", sa.String(40)),
        *more,
    )
"""
SPLIT = (
    TABLES
    + """

change = Change(
    CreateTable(definition=orders("open_orders", sa.Column("hint", sa.String(20), server_default="?")), restricts=True),
    CreateTable(definition=orders("archived_orders", sa.Column("archived", sa.Boolean())), restricts=True),
    SplitTable(
        table="orders",
        matching="archived_orders",
        others="open_orders",
        reads=["archived"],
        where=lambda row: row.archived.is_(True),
        values={"open_orders": {"archived": False}},
    ),
    DropTable(table="orders", restricts=True),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
)
COPY_OF_ORDERS = (
    TABLES
    + """

change = Change(CreateTable(definition=orders("copies"), restricts=True), CopyTable(table="orders", to="copies"))
upgrade, downgrade = change.upgrade, change.downgrade
"""
)
PARTS = """
def upgrade():
    op.create_table("buyers", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(20)))
    for name in ("open_orders", "archived_orders"):
        op.create_table(
            name,
            sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("buyer", sa.Integer(), sa.ForeignKey("buyers.id")),
            sa.Column("note", sa.String(40)),
            sa.Column("internal", sa.String(20), server_default="none"),
        )


def downgrade():
    pass
"""
MERGED = (
    TABLES
    + """

change = Change(
    CreateTable(definition=orders("orders", sa.Column("archived", sa.Boolean())), restricts=True),
    MergeTables(
        to="orders",
        matching="archived_orders",
        others="open_orders",
        reads=["archived"],
        where=lambda row: row.archived.is_(True),
        values={"open_orders": {"archived": False}, "archived_orders": {"archived": True}},
    ),
    DropTable(table="open_orders", restricts=True),
    DropTable(table="archived_orders", restricts=True),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
)
PROVIDERS = """
def upgrade():
    op.create_table("providers", sa.Column("id", sa.String(20), primary_key=True), sa.Column("note", sa.String(20)))
    op.create_table(
        "projects",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("parent", sa.String(20), nullable=False),
        sa.Column("note", sa.String(20)),
        sa.UniqueConstraint("name", "parent", name="uq_projects"),
    )
    op.execute("INSERT INTO providers (id) VALUES ('there'), ('before')")
    op.execute("INSERT INTO projects (id, name, parent) VALUES ('p', 'before', 'root')")


def downgrade():
    pass
"""
ACCOMPANIED = """
from contraflow import AddCompanion, NewUuid

change = Change(
    AddCompanion(
        table="providers",
        column=sa.Column("project_id", sa.String(32), nullable=False),
        to="projects",
        key="id",
        columns={"id": "name"},
        where={"parent": "root"},
        values={"id": NewUuid(hyphens=False), "note": "made"},
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
USERS = """
def upgrade():
    op.create_table("users", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(40)))
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("user_id", sa.Integer(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("agent_id", sa.Integer(), sa.ForeignKey("users.id", ondelete="SET NULL"), index=True),
        sa.Column("what", sa.String(40)),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("order_id", sa.Integer(), sa.ForeignKey("orders.id"), nullable=False, index=True),
        sa.Column("note", sa.String(40)),
    )
    op.execute("INSERT INTO users (id, name) VALUES (7001, 'there before'), (7002, NULL)")
    op.execute("INSERT INTO orders (id, user_id, agent_id) VALUES (7001, 7001, 7002)")


def downgrade():
    pass
"""
REKEYED = """
from contraflow import KeyReference, ReplaceKey

change = Change(
    RenameColumn(table="users", old="name", new="title"),
    ReplaceKey(
        table="orders",
        old="id",
        column=sa.Column("uid", sa.Uuid()),
        references=[KeyReference(table="items", old="order_id", new="order_uid", name="fk_order_uid")],
    ),
    ReplaceKey(
        table="users",
        old="id",
        column=sa.Column("uid", sa.String(36)),
        references=[
            KeyReference(table="orders", old="user_id", new="user_uid", name="fk_user_uid", index="ix_user_uid"),
            KeyReference(table="orders", old="agent_id", new="agent_uid", name="fk_agent_uid"),
        ],
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
STAFF = """
def upgrade():
    op.create_table(
        "staff",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("boss_id", sa.Integer(), sa.ForeignKey("staff.id"), index=True),
        sa.Column("name", sa.String(40)),
    )


def downgrade():
    pass
"""
STAFF_REKEYED = """
from contraflow import KeyReference, ReplaceKey

boss = KeyReference(table="staff", old="boss_id", new="boss_uid", name="fk_boss_uid", index="ix_boss_uid")
change = Change(ReplaceKey(table="staff", old="id", column=sa.Column("uid", sa.Uuid()), references=[boss]))
upgrade, downgrade = change.upgrade, change.downgrade
"""
ONE_EACH = """
def upgrade():
    for table in ("teams", "badges"):
        op.create_table(table, sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(40)))
    op.create_table(
        "people",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("age", sa.SmallInteger()),
        sa.Column("known", sa.Integer(), sa.Computed("coalesce(age, 0) + 1", persisted=True)),
    )
    op.create_table(
        "profiles",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("person_id", sa.Integer(), sa.ForeignKey("people.id"), nullable=False),
        sa.Column("town", sa.String(40)),
        sa.UniqueConstraint("person_id", name="uq_person_id"),
    )
    op.create_table(
        "members",
        sa.Column("badge_id", sa.Integer(), sa.ForeignKey("badges.id"), primary_key=True, autoincrement=False),
        sa.Column("team_id", sa.Integer(), sa.ForeignKey("teams.id"), primary_key=True, autoincrement=False),
        sa.Column("role", sa.String(20)),
    )
    op.execute("INSERT INTO teams (id, name) VALUES (7001, 'there before')")
    op.execute("INSERT INTO badges (id) VALUES (7001)")
    op.execute("INSERT INTO people (id) VALUES (7001), (7002)")
    op.execute("INSERT INTO profiles (id, person_id) VALUES (7001, 7001)")
    op.execute("INSERT INTO members (badge_id, team_id) VALUES (7001, 7001)")


def downgrade():
    pass
"""
ONE_EACH_REKEYED = """
from contraflow import AddUnique, DropUnique, KeyReference, ReplaceKey

person = KeyReference(table="profiles", old="person_id", new="person_uid", name="fk_person_uid")
change = Change(
    ReplaceKey(table="people", old="id", column=sa.Column("uid", sa.Uuid()), references=[person]),
    DropUnique(table="profiles", columns=["person_id"]),
    AddUnique(table="profiles", name="uq_person_uid", columns=["person_uid"]),
    RenameColumn(table="members", old="role", new="duty"),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
KEYS = """
def upgrade():
    op.create_table(
        "plans",
        sa.Column("code", sa.String(20), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("note", sa.String(20)),
    )
    op.create_table("tags", sa.Column("word", sa.String(20), primary_key=True), sa.Column("note", sa.String(20)))
    for table in ("steps", "marks"):
        op.create_table(table, sa.Column("number", sa.Integer()), sa.Column("code", sa.String(20)))
    op.execute("INSERT INTO plans (code, number) VALUES ('there', 7001), ('before', 7002)")
    op.execute("INSERT INTO tags (word) VALUES ('there'), ('before')")
    op.execute("INSERT INTO steps (number, code) VALUES (7001, 'a'), (7001, 'b')")


def downgrade():
    pass
"""
KEYS_CHANGED = """
from contraflow import AddPrimaryKey, AddSurrogateKey, AddUnique, DropPrimaryKey


def serial():
    return sa.Column("id", sa.BigInteger(), sa.Identity())


change = Change(
    RenameColumn(table="plans", old="note", new="title"),
    DropPrimaryKey(table="plans"),
    AddUnique(table="plans", name="uq_plans_code", columns=["code"]),
    AddPrimaryKey(table="plans", columns=["number"]),
    AddSurrogateKey(table="tags", column=serial(), unique="uq_word", copies=True),
    AddPrimaryKey(table="steps", columns=["number", "code"]),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
WITHOUT_KEY = "    AddSurrogateKey(table='marks', column=serial()),\n"
SEATS = """
def upgrade():
    op.create_table(
        "seats",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("place", sa.Integer()),
        sa.Column("ticket", sa.String(20)),
        sa.Column("note", sa.String(20)),
    )
    op.create_table("halls", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("size", sa.Integer()))
    op.execute("ALTER TABLE seats ADD CONSTRAINT ex_place EXCLUDE USING btree (place WITH =)")
    op.execute("ALTER TABLE halls ADD CONSTRAINT ex_size EXCLUDE USING gist (int4range(0, abs(size)) WITH &&)")


def downgrade():
    pass
"""
SEATS_EXCLUDING = """
from contraflow import AddExclusion, DropExclusion

change = Change(
    RenameColumn(table="seats", old="note", new="title"),
    DropExclusion(table="seats", name="ex_place"),
    AddExclusion(table="seats", name="ex_ticket", elements=[("ticket", "=")], using="btree", blocks=True),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
PLACES = """
def upgrade():
    op.create_table("halls", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("size", sa.Integer()))
    op.create_table(
        "places",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("hall", sa.Integer(), sa.ForeignKey("halls.id", name="fk_hall")),
        sa.Column("number", sa.Integer()),
        sa.UniqueConstraint("number", name="uq_number"),
    )


def downgrade():
    pass
"""
PLACES_FREED = """
from contraflow import DropForeignKey, DropUnique

change = Change(
    RenameColumn(table="places", old="number", new="label"),
    DropUnique(table="places", columns=["number"]),
    DropForeignKey(table="places", columns=["hall"]),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""
CASES = {
    "dropped constraints": (PLACES, PLACES_FREED),
    "exclusions": (SEATS, SEATS_EXCLUDING),
    "other keys": (KEYS, KEYS_CHANGED),
    "other and first keys": (KEYS, KEYS_CHANGED.replace(")\nupgrade", f"{WITHOUT_KEY})\nupgrade")),
    "one each": (ONE_EACH, ONE_EACH_REKEYED),
    "replaced keys": (USERS, REKEYED),
    "replaced key of itself": (STAFF, STAFF_REKEYED),
    "companion": (PROVIDERS, ACCOMPANIED),
    "refer": (LIMITS, REFERRED),
    "copied column": (SHOPS, COPIED),
    "split": (ORDERS, SPLIT),
    "merged": (PARTS, MERGED),
    "copied table": (ORDERS, COPY_OF_ORDERS),
}


@pytest.mark.only_on("sqlite", "postgresql", "mysql")
@pytest.mark.parametrize("case", ["refer", "copied column", "split", "companion", "replaced keys"])
def test_rows_that_depend_on_each_other_are_judged(server: Server, tmp_path: Path, case: str) -> None:
    judge(server, tmp_path, case)


@pytest.mark.only_on("sqlite", "postgresql", "mysql")
def test_rows_are_known_while_the_primary_key_changes(server: Server, tmp_path: Path) -> None:
    judge(server, tmp_path, "other keys")


@pytest.mark.only_on("postgresql")
def test_no_rows_exclude_each_other_where_that_is_known(server: Server, tmp_path: Path) -> None:
    record = rehearse(server, two_revisions(tmp_path / "service", *CASES["exclusions"])).run()
    assert record.verdict == "passed", explain(record)
    assert not record.counts.get("refused alike without the upgrade")
    notes = [str(value) for key, value in record.options.items() if key.startswith("note")]
    assert notes == ["halls is not written: which rows ex_size lets stand beside each other is not known"]


@pytest.mark.only_on("sqlite")
def test_what_is_dropped_stands_for_both_releases_until_contract(server: Server, tmp_path: Path) -> None:
    judge(server, tmp_path, "dropped constraints")


@pytest.mark.only_on("sqlite")
def test_other_keys_are_taken_back_and_made_again(server: Server, tmp_path: Path) -> None:
    take_back(server, tmp_path, "other and first keys")


@pytest.mark.only_on("sqlite", "postgresql", "mysql")
def test_at_most_one_row_refers_to_each_where_that_is_unique(server: Server, tmp_path: Path) -> None:
    judge(server, tmp_path, "one each")


@pytest.mark.only_on("sqlite", "mariadb")
@pytest.mark.parametrize("case", ["merged", "copied table"])
def test_whole_rows_in_other_tables_are_judged(server: Server, tmp_path: Path, case: str) -> None:
    judge(server, tmp_path, case)


@pytest.mark.only_on("sqlite", "postgresql")
def test_rows_that_refer_to_rows_of_their_own_table_by_another_key_are_judged(server: Server, tmp_path: Path) -> None:
    judge(server, tmp_path, "replaced key of itself")


@pytest.mark.only_on("sqlite", "postgresql15")
def test_replaced_keys_are_taken_back_and_replaced_again(server: Server, tmp_path: Path) -> None:
    take_back(server, tmp_path, "replaced keys")


def take_back(server: Server, tmp_path: Path, case: str) -> None:
    faults = (parse("release-taken-back@both:0.5"),)
    record = rehearse(server, two_revisions(tmp_path / "service", *CASES[case]), faults=faults).run()
    assert record.verdict == "passed", explain(record)
    (fault,) = record.faults
    assert fault.detail == "rolled back, and upgraded again"


def judge(server: Server, tmp_path: Path, case: str) -> None:
    record = rehearse(server, two_revisions(tmp_path / "service", *CASES[case])).run()
    assert record.verdict == "passed", explain(record)
    assert not [key for key in record.options if key.startswith("note")]


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("differs", "UPDATE providers SET project_id = 'p' WHERE id <> 'before'"),
        ("doubled", "INSERT INTO projects (id, name, parent) VALUES ('q', 'nobody', 'root')"),
    ],
)
def test_what_is_spoilt_of_rows_that_were_made_is_noticed(
    server: Server, tmp_path: Path, kind: str, spoil: str
) -> None:
    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "checking every row before contract":
            with engine.begin() as connection:
                connection.exec_driver_sql(spoil)

    record = rehearse(server, two_revisions(tmp_path / "service", *CASES["companion"])).run(meanwhile=meanwhile)
    # A client that has begun a read meanwhile may find it, too.
    assert {kind} <= {finding.kind for finding in record.findings} <= {kind, "alien read"}, explain(record)


WORK = """
from sqlalchemy import text


def work(engine, statement, **values):
    with engine.begin() as connection:
        connection.execute(text(statement), {"id": 7001, **values})


def old(engine, random):
    region = random.choice(["north", None])
    work(engine, "UPDATE limits SET service = 'one', region = :region WHERE id = :id", region=region)


def new(engine, random):
    key = random.choice([7001, 7002])
    work(engine, "UPDATE limits SET registered_id = :key WHERE id = :id", key=key)
"""


def judged_work(server: Server, folder: Path, case: str, work: str, spoiling: str | None) -> Record:
    """The rehearsal of an upgrade whose releases' own code does ``work``; it fails where a row is spoilt at the end."""

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if spoiling and phase == "checking every row before contract":
            with engine.begin() as connection:
                connection.exec_driver_sql(f"{spoiling}, cf_marker = CASE cf_marker WHEN 1 THEN 2 ELSE 1 END")

    ini = two_revisions(folder / "service", *CASES[case])
    (folder / "own_work.py").write_text(work)
    calls = {f"{release}_workload": Workload(call=f"own_work:{release}", folder=folder) for release in ("old", "new")}
    record = rehearse(server, ini, seconds=0.5, **calls).run(meanwhile=meanwhile)
    assert record.verdict == ("failed" if spoiling else "passed"), explain(record)
    return record


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("spoilt", [False, True], ids=["sound", "spoilt"])
def test_rows_that_others_own_code_writes_are_compared_with_those_they_refer_to(
    server: Server, tmp_path: Path, *, spoilt: bool
) -> None:
    spoiling = "UPDATE limits SET registered_id = 7001, region = NULL" if spoilt else None
    record = judged_work(server, tmp_path, "refer", WORK, spoiling)
    assert {finding.kind for finding in record.findings} == ({"differs"} if spoilt else set())


KEYED_WORK = """
from sqlalchemy import text


def old(engine, random):
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE orders SET user_id = {random.choice([7001, 7002])} WHERE id = 7001"))


def new(engine, random):
    with engine.begin() as connection:
        uids = sorted(connection.execute(text("SELECT uid FROM users")).scalars())
        connection.execute(text("UPDATE orders SET user_uid = :uid WHERE what IS NULL"), {"uid": random.choice(uids)})
"""


@pytest.mark.only_on("sqlite")
@pytest.mark.parametrize("spoilt", [False, True], ids=["sound", "spoilt"])
def test_rows_that_others_own_code_writes_are_compared_by_whichever_key(
    server: Server, tmp_path: Path, *, spoilt: bool
) -> None:
    spoiling = "UPDATE orders SET user_uid = (SELECT min(uid) FROM users)" if spoilt else None
    record = judged_work(server, tmp_path, "replaced keys", KEYED_WORK, spoiling)
    found = {(finding.kind, finding.table) for finding in record.findings}
    assert found == ({("differs", "orders")} if spoilt else set())


TAGS = LETTERS.replace(
    "\n\ndef downgrade",
    """
    op.create_table(
        "tags",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("letter", sa.Integer(), sa.ForeignKey("letters.id"), index=True),
    )


def downgrade""",
)
NOTED = SEALED.replace(
    "change = Change(\n",
    """from contraflow import CopyColumn, Source

change = Change(
    CopyColumn(
        table="tags",
        column=sa.Column("note", sa.String(20)),
        sources=[Source(table="letters", column="note", on={"letter": "id"})],
    ),
""",
)


def test_of_tables_that_depend_on_each_other_all_are_judged_or_none(tmp_path: Path) -> None:
    ini = two_revisions(tmp_path / "service", TAGS, NOTED)
    without = Workload(python=sys.executable)  # which may lack the library that an opaque lens needs
    record = Rehearsal(config=ini, seconds=0.4, rows=3, new_workload=without).run()
    assert record.verdict == "error", explain(record)
    assert "no table that the upgrade changes was written" in record.reason
    notes = [str(value) for key, value in record.options.items() if key.startswith("note")]
    assert [note.partition(" is not written")[0] for note in notes] == ["letters", "tags"]
