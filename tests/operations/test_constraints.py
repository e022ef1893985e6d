"""Foreign keys and checks: what is refused, and what happens to one that rows violate after all."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddUnique,
    Declared,
    DropCheck,
    DropForeignKey,
    DropUnique,
    Lens,
    LoosenNotNull,
    Options,
    ProblemError,
    RenameColumn,
    RenameTable,
    Runner,
    TightenNotNull,
    TransformColumns,
    Upgrade,
)
from contraflow.constraints import Check, ForeignKey
from contraflow.dialects import sqlite_text
from contraflow.dialects.base import Statement
from contraflow.expressions import lower, to_text, utcnow
from contraflow.installed import Installed
from contraflow.lens import Row
from contraflow.operations.base import Operation, referred
from contraflow.operations.planning import plan
from contraflow.steps import BuildConstraint, Online, Phases
from tests.operations.lives import LIVES, create, exact, runner, send
from tests.servers.shared import Database
from tests.upgrades import runner_of, upgrade_of

UNKEPT = next(life for life in LIVES if life.name == "a foreign key comes that the old release does not keep")


def pets(*items: sa.schema.SchemaItem) -> sa.Table:
    columns = [sa.Column("id", sa.Integer, primary_key=True), sa.Column("owner_id", sa.Integer)]
    return sa.Table("pets", sa.MetaData(), *columns, sa.Column("name", sa.String(60)), *items)


def planned(table: sa.Table, *operations: Operation) -> Phases:
    change = Declared(revision="r", operations=operations)
    return plan(Upgrade(old=None, new="r", changes=(change,)), {(None, "pets"): table})


def refused(table: sa.Table, *operations: Operation) -> dict[str, str]:
    with pytest.raises(ProblemError) as caught:
        planned(table, *operations)
    return {problem.code: str(problem) for problem in caught.value.problems}


def built_early(phases: Phases) -> list[str | None]:
    return [
        block.step.constraint.name
        for block in phases.migrate
        if isinstance(block, Online) and isinstance(block.step, BuildConstraint)
    ]


@pytest.mark.parametrize(
    ("ondelete", "early"), [("CASCADE", True), (None, False)], ids=["the same actions", "other actions"]
)
def test_a_key_over_a_copy_is_implied_by_one_with_the_same_actions(ondelete: str | None, early: bool) -> None:
    old = sa.ForeignKeyConstraint(["owner_id"], ["people.id"], name="fk_pets_owner", ondelete=ondelete)
    phases = planned(
        pets(old),
        RenameColumn(table="pets", old="owner_id", new="person_id"),
        DropForeignKey(table="pets", columns=["owner_id"]),
        AddForeignKey(
            table="pets",
            name="fk_pets_person",
            columns=["person_id"],
            target="people",
            target_columns=["id"],
            ondelete="CASCADE",
        ),
    )
    assert built_early(phases) == (["fk_pets_person"] if early else [])
    (item,) = phases.installed
    assert [made.late for made in item.constrained] == [not early]
    assert Installed.from_dict(item.as_dict()) == item


def test_a_check_over_columns_that_the_old_release_does_not_write_is_implied_unless_nulls_violate_it() -> None:
    column = AddColumn(table="pets", column=sa.Column("legs", sa.Integer))
    one = AddCheck(table="pets", name="ck_legs", columns=["legs"], condition=lambda row: row.legs >= 0)
    two = AddCheck(table="pets", name="ck_given", columns=["legs"], condition=lambda row: row.legs.is_not(None))
    both = AddCheck(
        table="pets",
        name="ck_both",
        columns=["legs", "name"],
        condition=lambda row: row.legs.is_(None) | (row.name != ""),
    )
    assert built_early(planned(pets(), column, one, two, both)) == ["ck_legs"]


def test_what_an_upgrade_makes_and_takes_away_again_is_not_made() -> None:
    phases = planned(pets(), KEY_ON_OWNER, DropForeignKey(table="pets", columns=["owner_id"]))
    assert phases.installed[0].constrained == ()
    assert phases.contract == ()


CHECK: dict[str, Any] = {"name": "ck", "columns": ["owner_id"], "condition": lambda _row: sa.literal(1) == 1}
KEY_ON_OWNER = AddForeignKey(
    table="pets", name="fk_pets_owner", columns=["owner_id"], target="people", target_columns=["id"]
)


def test_the_way_out_for_a_held_column_names_the_operation() -> None:
    key = sa.ForeignKeyConstraint(["owner_id"], ["people.id"], name="fk_pets_owner")
    rename = RenameColumn(table="pets", old="owner_id", new="person_id")
    assert 'DropForeignKey(table="pets", columns=["owner_id"])' in refused(pets(key), rename)["CF111"]
    check = sa.CheckConstraint("owner_id > 0", name="ck_pets_owner")
    assert 'DropCheck(table="pets", name="ck_pets_owner")' in refused(pets(check), rename)["CF111"]
    unnamed = sa.CheckConstraint("owner_id > 0")
    assert "DropCheck(table=\"pets\", columns=['owner_id'])" in refused(pets(unnamed), rename)["CF111"]


def test_an_image_that_a_constraint_may_refuse_is_refused() -> None:
    check = sa.CheckConstraint("name <> ''", name="ck_pets_name")
    lens = Lens(old=["name"], new=["title"], backward=lambda row: {"name": lower(row.title)})
    change = TransformColumns(table="pets", columns=[sa.Column("title", sa.String(60))], lens=lens)
    found = refused(pets(check), change, DropCheck(table="pets", name="ck_pets_name"))
    assert "ck_pets_name stands on it" in found["CF109"]


def test_what_is_not_there_and_what_is_already() -> None:
    assert "no foreign key on name" in refused(pets(), DropForeignKey(table="pets", columns=["name"]))["CF101"]
    assert "no check constraint ck" in refused(pets(), DropCheck(table="pets", name="ck"))["CF101"]
    taken = sa.CheckConstraint("owner_id > 0", name="fk_pets_owner")
    assert "fk_pets_owner already" in refused(pets(taken), KEY_ON_OWNER)["CF117"]


def test_a_constraint_does_not_outlive_its_column() -> None:
    found = refused(pets(), KEY_ON_OWNER, RenameColumn(table="pets", old="owner_id", new="person_id"))
    assert "fk_pets_owner, which this upgrade makes" in found["CF111"]


def test_declarations_that_contradict_themselves() -> None:
    with pytest.raises(ProblemError, match="as many target_columns"):
        AddForeignKey(table="a", name="fk", columns=["x"], target="b", target_columns=["y", "z"])
    with pytest.raises(ProblemError, match="no action of a foreign key"):
        AddForeignKey(
            table="a",
            name="fk",
            columns=["x"],
            target="b",
            target_columns=["y"],
            ondelete="VANISH",  # type: ignore[arg-type]
        )
    with pytest.raises(ProblemError, match="deferrable=True"):
        AddForeignKey(table="a", name="fk", columns=["x"], target="b", target_columns=["y"], deferred=True)
    with pytest.raises(ProblemError, match="not always give the same"):
        AddCheck(table="a", name="ck", columns=["x"], condition=lambda row: row.x < utcnow())
    with pytest.raises(ProblemError, match="needs a name, or columns"):
        DropCheck(table="a")


def test_a_renamed_table_gets_its_constraints_later() -> None:
    found = refused(pets(), RenameTable(table="pets", new="animals"), AddCheck(table="animals", **CHECK))
    assert "in which that table is renamed" in found["CF116"]


def test_not_null_that_does_not_change_or_is_changed_back() -> None:
    assert "NULLable already" in refused(pets(), LoosenNotNull(table="pets", column="name"))["CF116"]
    assert "in the primary key" in refused(pets(), LoosenNotNull(table="pets", column="id"))["CF116"]
    there, back = TightenNotNull(table="pets", column="name"), LoosenNotNull(table="pets", column="name")
    phases = planned(pets(), there, back)
    assert phases.migrate == phases.contract == ()
    with pytest.raises(ProblemError, match="CF102"):
        TightenNotNull(table="pets", column="name", fill=lambda row: row.owner_id)


def test_one_value_for_all_rows_of_a_unique_column_is_refused() -> None:
    def fill(_row: Row) -> str:
        return ""

    unique = sa.UniqueConstraint("name", name="uq_pets_name")
    tighten = TightenNotNull(table="pets", column="name", fill=fill)
    assert "uq_pets_name stands on it" in refused(pets(unique), tighten)["CF109"]
    # Until contract the old constraint stands, also one that goes.
    gone = DropUnique(table="pets", columns=["name"])
    assert "contract stop half way" in refused(pets(unique), gone, tighten)["CF109"]
    built = AddUnique(table="pets", name="uq_new", columns=["name"])
    assert "uq_new stands on it" in refused(pets(), tighten, built)["CF109"]
    badges = pets(sa.Column("badge", sa.String(60), nullable=False, unique=True))
    loosen = LoosenNotNull(table="pets", column="badge", value=fill)
    assert "rollback stop half way" in refused(badges, loosen)["CF109"]
    each = TightenNotNull(table="pets", column="name", reads=["id"], fill=lambda row: to_text(row.id))
    assert [item.tightened for item in planned(pets(unique), each).installed] == [("name",)]


def test_a_table_with_a_dot_in_its_name_is_referred_to() -> None:
    other = sa.Table("a.b", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    key = sa.ForeignKeyConstraint(["owner_id"], [other.c.id], name="fk_pets_owner")
    if hasattr(sa.ForeignKey, "target_tokens"):  # SQLAlchemy 2.1; before, nothing tells such dots apart
        assert referred(key) == ((None, "a.b"), ("id",))
        assert planned(pets(key), DropForeignKey(table="pets", columns=["owner_id"])).contract != ()
    plain = sa.ForeignKeyConstraint(["owner_id"], ["more.people.id"], name="fk_pets_owner")
    assert referred(plain) == (("more", "people"), ("id",))


def test_not_null_of_a_column_that_is_synced_or_renamed_is_left_to_another_upgrade() -> None:
    tighten = TightenNotNull(table="pets", column="name")
    assert "also syncs" in refused(pets(), tighten, RenameColumn(table="pets", old="name", new="title"))["CF116"]


# --- SQLite's texts ---

TEXT = """CREATE TABLE pets (
  id INTEGER PRIMARY KEY, -- the key
  owner_id INTEGER CONSTRAINT fk_o REFERENCES people (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED NOT NULL,
  age INTEGER CHECK (age > (0)) DEFAULT 1 CONSTRAINT ck_age CHECK (age < 99),
  CHECK (id <> age),
  CONSTRAINT fk_two FOREIGN KEY (owner_id, "age") REFERENCES people(id, age) MATCH FULL
) STRICT"""


def key(name: str | None, *columns: str) -> ForeignKey:
    return ForeignKey(name=name, columns=columns, target="people", target_columns=("id",) * len(columns))


def check(name: str | None, text: str) -> Check:
    return Check(name=name, columns=(), text=text)


@pytest.mark.parametrize(
    ("constraint", "gone"),
    [
        (
            key("fk_o", "owner_id"),
            "CONSTRAINT fk_o REFERENCES people (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED ",
        ),
        (
            key(None, "owner_id"),
            "CONSTRAINT fk_o REFERENCES people (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED ",
        ),
        (
            key("fk_two", "owner_id", "age"),
            ',\n  CONSTRAINT fk_two FOREIGN KEY (owner_id, "age") REFERENCES people(id, age) MATCH FULL',
        ),
        (check("ck_age", ""), "CONSTRAINT ck_age CHECK (age < 99)"),
        (check(None, "age>(0)"), "CHECK (age > (0)) "),
        (check(None, "id <> age"), ",\n  CHECK (id <> age)"),
    ],
)
def test_a_constraint_is_taken_out_of_the_text_of_a_table(constraint: ForeignKey | Check, gone: str) -> None:
    without = sqlite_text.drop_constraint(TEXT, constraint)
    assert without.replace(" ", "") == TEXT.replace(gone, "").replace(" ", "")
    assert sqlite_text.drop_constraint(without, constraint) == without


def test_a_constraint_is_put_into_the_text_once() -> None:
    added = sqlite_text.add_constraint(TEXT, "ck_new", 'CONSTRAINT "ck_new" CHECK (age <> 7)')
    assert added == TEXT.replace("MATCH FULL", 'MATCH FULL,\n\tCONSTRAINT "ck_new" CHECK (age <> 7)')
    assert sqlite_text.add_constraint(added, "CK_NEW", "") == added
    assert sqlite_text.drop_constraint(added, check("ck_new", "")) == TEXT


# --- on servers ---


@pytest.mark.only_on("sqlite")
def test_the_names_of_constraints_that_follow_each_other_are_reflected(database: Database) -> None:
    create(database.engine, UNKEPT.old, UNKEPT.parents)
    key = AddForeignKey(
        table="users",
        name="fk_users_group",
        columns=["group_id"],
        target="groups_of_users",
        target_columns=["id"],
    )
    with runner_of(database, AddCheck(table="users", **{**CHECK, "columns": ["group_id"]}), key) as run:
        run.run()
    database.engine.dispose()  # a connection from before goes on with the schema that it has read
    (found,) = sa.inspect(database.engine).get_foreign_keys("users")
    assert found["name"] == "fk_users_group"


def test_what_is_loosened_is_filled_when_the_upgrade_grows(database: Database) -> None:
    create(
        database.engine,
        [sa.Column("id", sa.Integer, primary_key=True), sa.Column("city", sa.String(60), nullable=False)],
    )
    loosen = LoosenNotNull(table="users", column="city", value=lambda _row: "none")
    first = Declared(revision="r1", operations=(loosen,))
    last = Declared(
        revision="r2", operations=(AddColumn(table="users", column=sa.Column("town", sa.String(60), nullable=True)),)
    )
    with Runner(database.url, Upgrade(old=None, new="r1", changes=(first,))) as run:
        run.expand()
    with Runner(database.url, Upgrade(old=None, new="r2", changes=(first, last))) as run:
        run.run()
    columns = {column["name"]: column["nullable"] for column in sa.inspect(database.engine).get_columns("users")}
    assert columns == {"id": False, "city": True, "town": True}


def test_rollback_is_refused_while_nothing_says_what_the_old_release_reads(database: Database) -> None:
    life = next(life for life in LIVES if life.name == "a column may hold NULLs")
    create(database.engine, life.old)
    send(database.engine, life.seed)
    before = exact(database.engine)
    with Runner(database.url, upgrade_of(LoosenNotNull(table="users", column="city"))) as run:
        run.upgrade()
        send(database.engine, ["UPDATE users SET city = NULL"])
        with pytest.raises(ProblemError, match=r"cannot rollback .* users\.city is NULL in 1 row"):
            run.rollback()
        assert run.status().pending is None
        send(database.engine, ["UPDATE users SET city = 'Ulm'"])
        run.rollback()
    assert exact(database.engine) == before


def test_a_value_that_is_null_itself_is_shown_and_not_written_for_ever(database: Database) -> None:
    life = next(life for life in LIVES if life.name == "a column becomes NOT NULL, and gets a value where it has none")
    create(database.engine, life.old)
    send(database.engine, life.seed)
    fill = TightenNotNull(table="users", column="city", reads=["street"], fill=lambda row: row.street)
    with Runner(database.url, upgrade_of(fill)) as run:
        run.upgrade()
        with pytest.raises(ProblemError, match=r"CF013: .* users\.city is NULL in 1 row"):
            run.contract()
        send(database.engine, ["UPDATE users SET street = 'Via' WHERE id = 3"])
        run.contract()
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT city FROM users ORDER BY id")).scalars().all() == [
            "Via",
            "Rom",
            "Via",
        ]


def problems(database: Database, *operations: Operation) -> dict[str, str]:
    with Runner(database.url, upgrade_of(*operations)) as run:
        return {problem.code: str(problem) for problem in run.check()}


def test_a_target_that_is_not_there_or_not_unique(database: Database) -> None:
    create(database.engine, [*UNKEPT.old], ["groups_of_users"])
    missing = AddForeignKey(table="users", name="fk", columns=["group_id"], target="nowhere", target_columns=["id"])
    assert "the table nowhere, which does not exist" in problems(database, missing)["CF101"]
    other = AddForeignKey(
        table="groups_of_users", name="fk", columns=["id"], target="users", target_columns=["group_id"]
    )
    assert "users.(group_id), which is not unique" in problems(database, other)["CF116"]


@pytest.mark.only_on("mysql", "mariadb")
def test_what_innodb_cannot_do_is_refused_before_anything_is_changed(database: Database) -> None:
    create(database.engine, [*UNKEPT.old], ["groups_of_users"])
    one = AddCheck(table="users", name="ck", columns=["group_id"], condition=lambda row: row.group_id > 0)
    assert "copies=True" in problems(database, one)["CF205"]
    for options in ({"deferrable": True}, {"ondelete": "SET DEFAULT"}):
        two = AddForeignKey(
            table="users",
            name="fk",
            columns=["group_id"],
            target="groups_of_users",
            target_columns=["id"],
            **options,
        )
        assert "InnoDB does not have" in problems(database, two)["CF205"]
    send(database.engine, ["ALTER TABLE users ADD big_id BIGINT"])
    three = AddForeignKey(table="users", name="fk", columns=["big_id"], target="groups_of_users", target_columns=["id"])
    assert "their types differ" in problems(database, three)["CF205"]


def test_an_action_that_no_trigger_sees(database: Database) -> None:
    """The server's own word: a synced column that a foreign key sets to NULL, seen from the other release."""
    items = [
        *UNKEPT.old,
        sa.ForeignKeyConstraint(["group_id"], ["groups_of_users.id"], ondelete="SET NULL", name="fk_old"),
    ]
    create(database.engine, items, ["groups_of_users"])
    send(database.engine, ["INSERT INTO users (id, group_id) VALUES (1, 1)"])
    operations = (
        RenameColumn(table="users", old="group_id", new="team_id"),
        DropForeignKey(table="users", columns=["group_id"]),
    )
    if database.kind in ("mysql", "mariadb"):
        assert "fires no triggers" in problems(database, *operations)["CF205"]
        return
    with Runner(database.url, upgrade_of(*operations), options=Options(lock_timeout=0.3)) as run:
        run.upgrade()
        send(database.engine, ["DELETE FROM groups_of_users WHERE id = 1"])
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT group_id, team_id FROM users").all() == [(None, None)]
        run.contract()


def test_rows_that_come_after_verification_are_shown_and_the_constraint_is_taken_back(database: Database) -> None:
    create(database.engine, UNKEPT.old, UNKEPT.parents)
    send(database.engine, UNKEPT.seed)
    with runner(database, UNKEPT) as run:
        run.upgrade()
    before = exact(database.engine)
    sent: list[Statement] = []

    def insert(statement: Statement) -> None:
        if "FOREIGN KEY" in statement.sql and not sent and "sqlite_schema" not in statement.sql:
            sent.append(statement)
            send(database.engine, ["INSERT INTO users (id, group_id) VALUES (7, 44)"])
        if statement.sql.startswith("BEGIN IMMEDIATE") and database.kind == "sqlite" and len(sent) == 0:
            sent.append(statement)
            with database.engine.begin() as connection:
                connection.exec_driver_sql("INSERT INTO users (id, group_id) VALUES (7, 44)")

    with runner(database, UNKEPT, insert) as run, pytest.raises(ProblemError) as caught:
        run.contract()
    assert sent
    assert "CF016" in str(caught.value)
    assert exact(database.engine) == before
    send(database.engine, ["INSERT INTO users (id, group_id) VALUES (8, 44)"])
    with runner(database, UNKEPT) as run:
        assert run.status().pending is None
        run.rollback()


def test_a_referenced_column_is_renamed_together_with_the_keys_that_refer_to_it(database: Database) -> None:
    metadata = sa.MetaData()
    sa.Table(
        "realms",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.Integer, nullable=False),
        sa.UniqueConstraint("code", name="uq_realms_code"),
    )
    sa.Table(
        "accounts",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("realm", sa.Integer),
        sa.ForeignKeyConstraint(["realm"], ["realms.code"], name="fk_accounts_realm"),
    )
    metadata.create_all(database.engine)
    send(
        database.engine,
        ["INSERT INTO realms (id, code) VALUES (1, 5)", "INSERT INTO accounts (id, realm) VALUES (1, 5)"],
    )
    operations = (
        RenameColumn(table="realms", old="code", new="number"),
        DropUnique(table="realms", columns=["code"]),
        AddUnique(table="realms", name="uq_realms_number", columns=["number"]),
        DropForeignKey(table="accounts", columns=["realm"]),
        AddForeignKey(
            table="accounts", name="fk_accounts_number", columns=["realm"], target="realms", target_columns=["number"]
        ),
    )
    with Runner(database.url, upgrade_of(*operations), options=Options(lock_timeout=0.3)) as run:
        assert run.check() == []
        run.upgrade()
        run.rollback()
        run.run()
    inspector = sa.inspect(database.engine)
    (found,) = inspector.get_foreign_keys("accounts")
    assert (found["name"], found["referred_columns"]) == ("fk_accounts_number", ["number"])
    assert {column["name"] for column in inspector.get_columns("realms")} == {"id", "number"}
