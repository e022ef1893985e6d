"""What the planner makes of indexes and unique constraints, and what it refuses. No server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddUnique,
    CreateIndex,
    Declared,
    DropColumn,
    DropIndex,
    DropUnique,
    Lens,
    ProblemError,
    RenameColumn,
    TransformColumns,
    Upgrade,
)
from contraflow.expressions import concat, lower
from contraflow.installed import Index, Installed
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan, plan_builds, plan_end
from contraflow.steps import (
    BuildIndex,
    DropColumns,
    DropIndexes,
    Hold,
    InstallSync,
    MakeConstraints,
    Online,
    Phases,
)
from contraflow.syncs import Sync

COLUMNS = ("mail", "realm", "city")


def users(*items: sa.schema.SchemaItem) -> sa.Table:
    columns = [sa.Column(name, sa.String(60), nullable=False) for name in COLUMNS]
    return sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *columns, *items)


def planned(table: sa.Table, *revisions: Sequence[Operation]) -> Phases:
    changes = tuple(
        Declared(revision=f"r{number}", operations=tuple(operations)) for number, operations in enumerate(revisions)
    )
    return plan(Upgrade(old=None, new=changes[-1].revision, changes=changes), {(None, "users"): table})


def refused(table: sa.Table, *operations: Operation) -> dict[str, str]:
    with pytest.raises(ProblemError) as caught:
        planned(table, operations)
    return {problem.code: str(problem) for problem in caught.value.problems}


def built(phases: Phases) -> list[Index]:
    return [
        block.step.index for block in phases.migrate if isinstance(block, Online) and isinstance(block.step, BuildIndex)
    ]


RENAME = RenameColumn(table="users", old="mail", new="email")
DROP = DropUnique(table="users", columns=["mail"])
ADD = AddUnique(table="users", name="uq_email", columns=["email"])
UNIQUE = sa.UniqueConstraint


def test_indexes_are_built_after_the_backfill_and_dropped_before_columns() -> None:
    phases = planned(users(UNIQUE("mail", name="uq_mail")), [RENAME, DROP, ADD])
    assert [type(getattr(block, "step", None)).__name__ for block in phases.migrate] == [
        "Backfill",
        "BuildIndex",
        "NoneType",
    ]
    made = phases.migrate[-1]
    assert isinstance(made, Hold)
    assert isinstance(made.steps[0], MakeConstraints)
    for hold in (phases.contract[-1], phases.rollback[0]):
        assert isinstance(hold, Hold)
        kinds = [type(step) for step in hold.steps]
        assert kinds.index(DropIndexes) < kinds.index(DropColumns)


def test_what_is_installed_is_read_again_from_the_journal() -> None:
    (installed,) = planned(users(UNIQUE("mail", name="uq_mail")), [RENAME, DROP, ADD]).installed
    assert Installed.from_dict(installed.as_dict()) == installed
    assert installed.replaced == (Index(name="uq_mail", columns=("mail",), unique=True, constraint=True),)
    earlier = {name: value for name, value in installed.as_dict().items() if name not in ("built", "replaced")}
    assert Installed.from_dict(earlier).built == ()


def test_contract_builds_before_it_takes_anything_away() -> None:
    (installed,) = planned(users(), [RENAME, ADD]).installed
    builds = plan_builds([installed], late=True)
    assert builds
    assert plan_end([installed])[0][: len(builds)] == builds
    assert plan_builds([installed]) == ()


@pytest.mark.parametrize(
    ("items", "operations", "late"),
    [
        ([UNIQUE("mail")], [RENAME, DROP, ADD], False),
        ([], [RENAME, ADD], True),
        ([UNIQUE("mail", "realm")], [RENAME, DropUnique(table="users", columns=["mail", "realm"]), ADD], True),
        ([UNIQUE("realm")], [RENAME, AddUnique(table="users", name="u", columns=["realm", "email"])], False),
        ([], [AddUnique(table="users", name="u", columns=["id", "city"])], False),
        ([], [AddUnique(table="users", name="u", columns=["city"])], True),
        ([], [CreateIndex(table="users", name="u", columns=["city"], unique=True)], True),
        ([], [CreateIndex(table="users", name="u", columns=["city"])], False),
        ([sa.Index("old", "city", unique=True)], [AddUnique(table="users", name="u", columns=["city", "mail"])], False),
        (
            [sa.Index("old", "city", unique=True, postgresql_where=sa.text("id > 7"))],
            [AddUnique(table="users", name="u", columns=["city", "mail"])],
            True,
        ),
        (
            [sa.Index("old", sa.text("lower(city)"), unique=True)],
            [AddUnique(table="users", name="u", columns=["city"])],
            True,
        ),
    ],
)
def test_a_unique_index_waits_for_contract_if_the_old_release_could_violate_it(
    items: Sequence[sa.schema.SchemaItem], operations: Sequence[Operation], late: bool
) -> None:
    phases = planned(users(*items), operations)
    (index,) = phases.installed[0].built
    assert index.late is late
    assert [item.name for item in built(phases)] == ([] if late else [index.name])


def test_a_column_of_another_type_or_computed_is_no_copy() -> None:
    for image in (lambda row: {"email": row.mail}, lambda row: {"email": lower(row.mail)}):
        wider = TransformColumns(
            table="users",
            columns=[sa.Column("email", sa.String(90))],
            lens=Lens(old=["mail"], new=["email"], forward=image),
            keep=["mail"],
        )
        phases = planned(users(UNIQUE("mail")), [wider, ADD])
        assert built(phases) == []


def test_a_column_the_old_release_does_not_write_is_unique_at_once() -> None:
    token = AddColumn(table="users", column=sa.Column("token", sa.String(9)))
    phases = planned(users(), [token, AddUnique(table="users", name="u", columns=["token"])])
    assert [index.name for index in built(phases)] == ["u"]


def test_what_holds_a_column_is_named_with_the_operation_to_write() -> None:
    found = refused(users(UNIQUE("mail", name="uq_mail")), RENAME)
    assert 'DropUnique(table="users", columns=["mail"])' in found["CF111"]
    found = refused(users(sa.Index("ix_mail", "mail", "city")), RENAME)
    assert 'DropIndex(table="users", name="ix_mail")' in found["CF111"]
    found = refused(users(sa.CheckConstraint("length(mail) > 2", name="ck_mail")), RENAME)
    assert 'DropCheck(table="users", name="ck_mail")' in found["CF111"]
    assert list(found) == ["CF111"]
    found = refused(users(sa.Index("ix_low", sa.text("lower(mail)"))), RENAME)
    assert "the index ix_low" in found["CF111"]
    found = refused(users(sa.Index("ix_part", "city", postgresql_where=sa.text("mail <> ''"))), RENAME)
    assert "the index ix_part" in found["CF111"]


def test_a_name_inside_of_a_literal_is_no_column() -> None:
    texts = {
        "city IN ('mail', 'no mail', 'it''s mail')": False,
        r"city <> 'mail\' OR mail <> ''": True,
        r"city <> 'it\'s' AND mail <> ''": True,
        r"city <> 'mail'": False,
        "\"mail\" <> 'x'": True,
    }
    for text, holds in texts.items():
        table = users(sa.CheckConstraint(text, name="ck"))
        if holds:
            assert "the check constraint ck" in refused(table, RENAME)["CF111"]
        else:
            assert planned(table, [RENAME])


def test_an_index_of_this_upgrade_needs_its_columns() -> None:
    first: list[Operation] = [CreateIndex(table="users", name="ix_mail", columns=["mail"])]
    with pytest.raises(ProblemError, match=r"CF111.*ix_mail, which this upgrade builds"):
        planned(users(), first, [RENAME])
    later: list[Operation] = [
        RENAME,
        DropIndex(table="users", name="ix_mail"),
        CreateIndex(table="users", name="ix_email", columns=["email"]),
    ]
    phases = planned(users(), first, later)
    assert [index.name for index in built(phases)] == ["ix_email"]
    assert phases.installed[0].replaced == ()


def test_an_image_under_a_unique_constraint_must_be_a_copy() -> None:
    change = TransformColumns(
        table="users",
        columns=[sa.Column("email", sa.String(60), nullable=False)],
        lens=Lens(
            old=["mail"],
            new=["email"],
            forward=lambda row: {"email": row.mail},
            backward=lambda row: {"mail": lower(row.email)},
            lossy=True,
        ),
    )
    found = refused(users(UNIQUE("mail", name="uq_mail")), change, DROP)
    assert "the unique constraint uq_mail" in found["CF109"]
    # One problem a key: that to drop it in this upgrade would not help is what counts.
    assert list(refused(users(UNIQUE("mail", name="uq_mail")), change)) == ["CF109"]
    constant = DropColumn(table="users", column="mail", value=lambda _row: "")
    assert "CF109" in refused(users(UNIQUE("mail")), constant, DROP)


def test_an_image_on_an_old_unique_column_is_refused() -> None:
    change = TransformColumns(
        table="users",
        columns=[],
        lens=Lens(old=["mail"], new=["city"], forward=lambda row: {"city": row.mail}),
        keep=["mail"],
    )
    assert "users.city is computed from mail" in refused(users(UNIQUE("city"), UNIQUE("mail")), change)["CF109"]


def test_one_default_for_all_new_rows_under_a_unique_constraint_is_refused() -> None:
    table = users(sa.Column("code", sa.String(9), server_default="x"), UNIQUE("code", name="uq_code"))
    drop = DropUnique(table="users", columns=["code"])
    assert "uq_code" in refused(table, DropColumn(table="users", column="code"), drop)["CF109"]
    table = users(sa.Column("code", sa.String(9)), UNIQUE("code", name="uq_code"))
    assert planned(table, [DropColumn(table="users", column="code"), drop])


def test_an_insert_that_leaves_a_column_out_is_decided_where_both_readings_are_one() -> None:
    def table(default: str | None) -> sa.Table:
        return users(sa.Column("code", sa.String(9), nullable=False, server_default=default))

    drop = DropColumn(table="users", column="code", value=lambda _row: "x")
    assert planned(table("x"), [drop])
    assert "the old release's default of code may have been meant" in refused(table("y"), drop)["CF106"]
    nullable = users(sa.Column("code", sa.String(9), server_default="x"))
    rename = RenameColumn(table="users", old="code", new="kind")
    assert "NULL in code" in refused(nullable, rename)["CF106"]


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([DropIndex(table="users", name="nothing")], "CF101"),
        ([DropUnique(table="users", columns=["city"])], "CF101"),
        ([DropUnique(table="users", columns=["mail"])] * 2, "CF101"),
        ([DropIndex(table="people", name="x")], "CF101"),
        ([CreateIndex(table="users", name="x", columns=["nothing"])], "CF101"),
        ([CreateIndex(table="users", name="uq_mail", columns=["city"])], "CF117"),
        ([CreateIndex(table="users", name="x", columns=[name]) for name in ("city", "realm")], "CF117"),
    ],
)
def test_names_are_checked(operations: Sequence[Operation], code: str) -> None:
    assert code in refused(users(UNIQUE("mail", name="uq_mail")), *operations)


@pytest.mark.parametrize("arguments", [{"name": "x" * 64}, {"name": ""}, {"columns": []}, {"columns": ["a", "a"]}])
def test_a_declaration_is_complete(arguments: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"table": "users", "name": "x", "columns": ["mail"], **arguments}
    for operation in (CreateIndex, AddUnique):
        with pytest.raises(ProblemError, match="CF116"):
            operation(**whole)


def test_the_fingerprint_tells_declarations_apart() -> None:
    operations: list[Operation] = [
        CreateIndex(table="users", name="x", columns=["mail"]),
        CreateIndex(table="users", name="x", columns=["mail"], unique=True),
        AddUnique(table="users", name="x", columns=["mail"]),
        AddUnique(table="users", name="x", columns=["mail", "city"]),
        DropIndex(table="users", name="x"),
        DropUnique(table="users", columns=["mail"]),
    ]
    prints = {Declared(revision="r", operations=(operation,)).fingerprint for operation in operations}
    assert len(prints) == len(operations)


def test_a_name_that_differs_in_case_only() -> None:
    assert "CF112" in refused(users(), RenameColumn(table="users", old="mail", new="Mail"))


@pytest.mark.parametrize("renamed", [False, True])
def test_what_follows_from_a_column_that_is_filled_once_is_filled_once_too(renamed: bool) -> None:
    slug = AddColumn(
        table="users",
        column=sa.Column("slug", sa.String(60), nullable=False),
        reads=["mail"],
        value=lambda row: lower(row.mail),
        keep="fill",
    )
    code = DropColumn(
        table="users",
        column="code" if renamed else "city",
        reads=["realm"],
        value=lambda row: lower(row.realm),
        keep="fill",
    )
    before = [RenameColumn(table="users", old="city", new="code")] if renamed else []
    after = [RenameColumn(table="users", old="slug", new="title")] if renamed else []
    sync = installed_sync(planned(users(), [slug], [*before, *after, code]))
    once = {name for group in sync.groups for name in group.once}
    assert once == {"title" if renamed else "slug", "city"}


def test_what_follows_from_a_column_that_is_filled_once_and_another_one_is_refused() -> None:
    slug = AddColumn(
        table="users",
        column=sa.Column("slug", sa.String(60), nullable=False),
        reads=["mail"],
        value=lambda row: lower(row.mail),
        keep="fill",
    )
    both = Lens(
        old=["slug", "city"],
        new=["page"],
        forward=lambda row: {"page": concat(row.slug, row.city)},
        backward=lambda row: {"city": row.page},
    )
    change = TransformColumns(table="users", columns=[sa.Column("page", sa.Text, nullable=False)], lens=both)
    assert "page is computed from slug, which is filled once, and from city" in refused(users(), slug, change)["CF116"]


def installed_sync(phases: Phases) -> Sync:
    (hold,) = [block for block in phases.expand if isinstance(block, Hold)]
    (sync,) = [step.sync for step in hold.steps if isinstance(step, InstallSync)]
    return sync
