"""Exclusion constraints: on PostgreSQL through their whole life, elsewhere refused."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddExclusion,
    AddUnique,
    CreateTable,
    Declared,
    DropExclusion,
    Fault,
    Options,
    ProblemError,
    RenameColumn,
    Runner,
    State,
    Upgrade,
    classify,
)
from contraflow.constraints import Exclusion, constraint_from_dict
from contraflow.installed import Installed
from contraflow.operations.base import Operation
from contraflow.operations.planning import plan
from tests.operations.lives import exact, send, writing
from tests.servers.shared import Database

CREATE = (
    "CREATE TABLE bookings (id INTEGER NOT NULL PRIMARY KEY, room VARCHAR(9) NOT NULL, first INTEGER, last INTEGER)"
)
DAYS = sa.text("int4range(first, last, '[]')")
ONE_AT_A_TIME = AddExclusion(
    table="bookings",
    name="ex_bookings_days",
    elements=[(sa.text("int4range(hashtext(room), hashtext(room), '[]')"), "&&"), (DAYS, "&&")],
    where=sa.text("last > 0"),
    blocks=True,
)


def upgrade_of(*operations: Operation, number: int = 1) -> Upgrade:
    changes = (Declared(revision=f"r{number}", operations=operations),)
    return Upgrade(old=f"r{number - 1}", new=f"r{number}", changes=changes)


def runner(database: Database, *operations: Operation, number: int = 1) -> Runner:
    return Runner(database.url, upgrade_of(*operations, number=number), options=Options(lock_timeout=0.3))


def constraints(engine: sa.Engine) -> dict[str, str]:
    query = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'x'"
    with engine.connect() as connection:
        return {str(name): str(text) for name, text in connection.exec_driver_sql(query)}


@pytest.mark.only_on("postgresql", "postgresql15")
def test_a_life(database: Database) -> None:
    engine = database.engine
    send(engine, [CREATE, "INSERT INTO bookings VALUES (1, 'a', 1, 3), (2, 'b', 1, 3), (3, 'a', 4, 6)"])
    start = exact(engine, "bookings")
    overlaps = "INSERT INTO bookings VALUES (9, 'a', 6, 7)"
    with runner(database, ONE_AT_A_TIME) as run:
        assert run.check() == []
        run.upgrade()
        assert constraints(engine) == {}, "the old release may write rows that exclude each other"
        run.rollback()
        assert exact(engine, "bookings") == start
        run.upgrade()
        send(
            engine,
            [overlaps, "INSERT INTO bookings VALUES (4, 'a', -3, 0)", "INSERT INTO bookings VALUES (5, 'a', -3, 0)"],
        )
        with pytest.raises(ProblemError, match=r"(?s)CF016: .* 2 rows .* ex_bookings_days.*id=3.*id=9"):
            run.verify()
        with pytest.raises(ProblemError, match="CF016"):
            run.contract()
        assert constraints(engine) == {}
        send(engine, ["DELETE FROM bookings WHERE id = 9"])
        run.verify()
        run.contract()
    assert "EXCLUDE USING gist" in constraints(engine)["ex_bookings_days"]
    with pytest.raises(sa.exc.DBAPIError) as refusal:
        send(engine, [overlaps])
    assert classify(refusal.value) is Fault.EXCLUSION

    # A column under it is renamed: it goes, and another one comes.
    rename = RenameColumn(table="bookings", old="last", new="until")
    with runner(database, rename, number=2) as run:
        found = run.check()
        assert [problem.code for problem in found] == ["CF111"], found
        assert "DropExclusion" in found[0].instead
    drop = DropExclusion(table="bookings", name="ex_bookings_days")
    again = AddExclusion(
        table="bookings",
        name="ex_bookings_until",
        elements=[(sa.text("int4range(first, until, '[]')"), "&&")],
        where=sa.text("room = 'a' AND until > 0"),
        blocks=True,
    )
    writes = ["INSERT INTO bookings VALUES (8, 'c', 1, 3)", "DELETE FROM bookings WHERE id = 8"]
    with runner(database, rename, drop, again, number=2) as run:
        assert run.check() == []
        with writing(engine, writes):
            run.upgrade()
        assert set(constraints(engine)) == {"ex_bookings_days"}
        run.contract()
        assert run.status().state is State.CONTRACTED
    assert set(constraints(engine)) == {"ex_bookings_until"}


@pytest.mark.only_on("postgresql", "postgresql15")
def test_one_that_the_old_release_cannot_violate_stands_before_the_new_one_writes(database: Database) -> None:
    engine = database.engine
    send(engine, [CREATE, "INSERT INTO bookings VALUES (1, 'a', 1, 3), (2, 'b', 1, 3)"])
    add = AddColumn(table="bookings", column=sa.Column("seat", sa.Integer))
    seats = AddExclusion(
        table="bookings", name="ex_bookings_seat", elements=[("seat", "=")], using="btree", blocks=True
    )
    with runner(database, add, seats) as run:
        run.upgrade()
        assert "ex_bookings_seat" in constraints(engine)
        send(engine, ["UPDATE bookings SET seat = id"])
        run.rollback()
        assert constraints(engine) == {}
        run.upgrade()
        run.contract()


def test_it_is_refused_without_consent_and_where_there_is_none(database: Database) -> None:
    send(database.engine, [CREATE])
    plain = AddExclusion(table="bookings", name="ex", elements=[("first", "=")], using="btree")
    with runner(database, plain) as run:
        (problem,) = run.check()
    assert problem.code == "CF205"
    word = "blocks=True" if database.kind.startswith("postgresql") else "no exclusion constraints"
    assert word in str(problem)
    with runner(database, DropExclusion(table="bookings", name="nothing")) as run:
        (problem,) = run.check()
    assert problem.code == "CF101"


def test_what_is_declared_wrongly() -> None:
    table = sa.Table("bookings", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    wrongs: list[dict[str, Any]] = [
        {"elements": []},
        {"elements": [("id", "= 1) --")]},
        {"elements": [("id", "=")], "using": "gist (id)"},
        {"elements": [(sa.text("id = :x"), "=")]},
    ]
    for wrong in wrongs:
        with pytest.raises(ProblemError, match="CF116"):
            AddExclusion(table="bookings", name="ex", **wrong)
    new = CreateTable(definition=table)
    with pytest.raises(ProblemError, match="ExcludeConstraint"):
        plan(upgrade_of(new, AddExclusion(table="bookings", name="ex", elements=[("id", "=")])), {})
    with pytest.raises(ProblemError, match="CF101"):
        plan(upgrade_of(AddExclusion(table="bookings", name="ex", elements=[("x", "=")])), {(None, "bookings"): table})


def test_it_is_kept_in_the_journal_and_told_apart() -> None:
    table = sa.Table(
        "bookings",
        sa.MetaData(),
        *(sa.Column(name, sa.Integer, primary_key=name == "id") for name in ("id", "room", "first", "last")),
    )
    upgrade = upgrade_of(ONE_AT_A_TIME, AddUnique(table="bookings", name="uq", columns=["room"]))
    (installed,) = plan(upgrade, {(None, "bookings"): table}).installed
    assert Installed.from_dict(installed.as_dict()) == installed
    (made,) = installed.constrained
    assert isinstance(made, Exclusion)
    assert made.late
    assert made.columns == ("room", "first", "last")
    assert constraint_from_dict(made.as_dict()) == made
    assert (
        plan(
            upgrade_of(ONE_AT_A_TIME, DropExclusion(table="bookings", name="ex_bookings_days")),
            {(None, "bookings"): table},
        )
        .installed[0]
        .constrained
        == ()
    )
