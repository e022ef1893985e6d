"""The demo's oracle: what it expects, and that it sees what is wrong."""

import datetime as dt
import random
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.demo import rows
from contraflow.rehearsal.demo.load import Sample
from contraflow.rehearsal.demo.oracle import ProjectModel, Since, TokenModel, UserModel, utc_now
from contraflow.rehearsal.demo.verdict import Verdict, reports

BEGAN = dt.datetime.fromisoformat("2026-01-01")


def user(*writes: tuple[int, dict[str, Any]]) -> UserModel:
    model = UserModel(id="1", name="ann")
    for release, body in writes:
        model.write(release, body, BEGAN)
    return model


@pytest.mark.parametrize(
    ("writes", "old", "new"),
    [
        (
            [(1, {"full_name": "Ann van Lee", "email_addr": "a@b", "quota": "007"})],
            {"full_name": "Ann van Lee", "email_addr": "a@b", "quota": "007"},
            {"first_name": "Ann", "last_name": "van Lee", "email": "a@b", "quota_limit": 7},
        ),
        (
            [(2, {"first_name": "Cher", "last_name": "", "email": None, "quota_limit": 7})],
            {"full_name": "Cher", "email_addr": None, "quota": "7"},
            {"first_name": "Cher", "last_name": "", "email": None, "quota_limit": 7},
        ),
        # A value that is written again was not written: the other side keeps what only it can hold.
        (
            [(1, {"full_name": "Ann  Lee", "quota": "007"}), (2, {"first_name": "Ann", "quota_limit": 7})],
            {"full_name": "Ann  Lee", "quota": "007"},
            {"first_name": "Ann", "last_name": " Lee", "quota_limit": 7},
        ),
        (
            [(2, {"first_name": " A", "last_name": "B "}), (1, {"full_name": "A B"})],
            {"full_name": "A B"},
            {"first_name": " A", "last_name": "B "},
        ),
        (
            [(2, {"disabled_at": "2020-01-01T00:00:00"}), (1, {"enabled": False})],
            {"enabled": False},
            {"disabled_at": dt.datetime.fromisoformat("2020-01-01")},
        ),
        ([(1, {"enabled": False}), (1, {"enabled": True})], {"enabled": True}, {"disabled_at": None}),
        ([(1, {"enabled": False})], {"enabled": False}, {"disabled_at": Since(earliest=BEGAN)}),
    ],
)
def test_a_user_has_both_shapes(
    writes: list[tuple[int, dict[str, Any]]], old: dict[str, object], new: dict[str, object]
) -> None:
    model = user(*writes)
    assert {key: model.shape(1)[key] for key in old} == old
    assert {key: model.shape(2)[key] for key in new} == new


def test_a_noted_moment_is_bounded_and_then_fixed() -> None:
    model = user((1, {"enabled": False}))
    found = {**model.shape(2), "disabled_at": BEGAN - dt.timedelta(minutes=1)}
    assert [one.field for one in model.compare(2, found, "")] == ["disabled_at"]
    found["disabled_at"] = utc_now() + dt.timedelta(minutes=1)
    assert [one.field for one in model.compare(2, found, "")] == ["disabled_at"]
    found["disabled_at"] = None
    assert [one.field for one in model.compare(2, found, "")] == ["disabled_at"]
    found["disabled_at"] = BEGAN + dt.timedelta(minutes=1)
    assert model.compare(2, found, "") == []
    found["disabled_at"] = BEGAN + dt.timedelta(minutes=2)
    assert [one.field for one in model.compare(2, found, "")] == ["disabled_at"]


@pytest.mark.parametrize("found", ["Lee", "ann lee", None, b"Ann Lee"])
def test_a_difference_says_who_wrote_what(found: object) -> None:
    model = user((1, {"full_name": "Ann Lee", "password": "secret"}))
    (difference,) = model.compare(1, {**model.shape(1), "full_name": found}, "read through release 1")
    assert str(difference) == (
        f"user ann: full_name is {found!r}, not 'Ann Lee' (read through release 1); "
        "written: update by release 1: full_name='Ann Lee'"
    )


def test_true_is_not_1() -> None:
    model = user()
    assert [one.field for one in model.compare(1, {**model.shape(1), "enabled": 1}, "")] == ["enabled"]


def test_a_project_keeps_what_the_other_release_does_not_know() -> None:
    old, new = ProjectModel(id="1", name="Lab"), ProjectModel(id="2", name="Pub")
    old.create(1, {"cost_code": "C1"})
    new.create(2, {"handle": "bar"})
    assert (old.cost_code, old.handle) == ("C1", "lab")
    assert (new.cost_code, new.handle) == ("none", "bar")
    old.update(2, {"handle": "x", "description": "y"})
    new.update(1, {"cost_code": "C2"})
    assert (old.cost_code, old.handle, old.description) == ("C1", "x", "y")
    assert (new.cost_code, new.handle, new.description) == ("C2", "bar", None)


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE users (id, name, full_name, email_addr, enabled BOOLEAN, quota, created_at)",
            "CREATE TABLE projects (id TEXT, name TEXT, description TEXT, cost_code TEXT, created_at)",
            "CREATE TABLE role_assignments (project_id TEXT, user_id TEXT, role TEXT)",
            "CREATE TABLE tokens (id TEXT, user_id TEXT, project_id TEXT, revoked_at TEXT)",
        ):
            connection.exec_driver_sql(statement)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", []),
        ("UPDATE users SET full_name = full_name || ' ' WHERE name = 'user-000003'", ["full_name"]),
        ("UPDATE projects SET cost_code = 'X' WHERE name = 'Project-000003'", ["cost_code"]),
        ("DELETE FROM users WHERE name = 'user-000003'", ["row"]),
        ("INSERT INTO projects (id) VALUES ('stray')", ["row"]),
        ("DELETE FROM role_assignments", ["row"]),
        ("INSERT INTO tokens (id) VALUES ('stray')", ["row"]),
    ],
)
def test_every_row_is_held_against_its_model(engine: sa.Engine, statement: str, expected: list[str]) -> None:
    users, projects = rows.seed(engine, users=5, rng=random.Random(0))
    projects[0].roles[users[0].id] = {"member"}
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO role_assignments VALUES (?, ?, 'member')", (projects[0].id, users[0].id)
        )
        connection.exec_driver_sql(statement)
    looked_at, differences = rows.check_rows(
        engine, releases=(1,), users=users, projects=projects, tokens=[], complete=True, moment="now"
    )
    assert [difference.field for difference in differences] == expected
    assert looked_at >= 5 * 5 + 30 * 4


def test_a_lost_token_is_found(engine: sa.Engine) -> None:
    users, projects = rows.seed(engine, users=1, rng=random.Random(0))
    _, differences = rows.check_rows(
        engine,
        releases=(1,),
        users=users,
        projects=projects,
        tokens=[TokenModel(token="t", user=users[0], project=None)],
        complete=False,
        moment="now",
    )
    assert [difference.found for difference in differences] == ["absent"]


def sample(sent: float, seconds: float, *, write: bool = False, release: int = 1) -> Sample:
    return Sample(sent=sent, seconds=seconds, release=release, write=write)


def test_a_stall_counts_for_every_phase_it_reaches_into() -> None:
    samples = [sample(0.0, 0.1), sample(0.9, 1.5, write=True), sample(2.1, 0.2)]
    first, second, third, idle = reports(
        [("first", 0.0, 1.0), ("second", 1.0, 2.0), ("third", 2.0, 3.0), ("idle", 5.0, 6.0)], samples
    )
    assert (first.requests, first.worst_ms, first.worst_read_ms) == (2, 1500.0, 100.0)
    assert (second.requests, second.worst_ms, second.worst_read_ms) == (1, 1500.0, 0.0)
    assert (third.requests, third.worst_ms, third.worst_read_ms) == (2, 1500.0, 200.0)
    assert (idle.requests, idle.worst_ms) == (0, 0.0)


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({}, True),
        ({"failed": 1}, False),
        ({"differing": 1}, False),
        ({"problems": ("CF012",)}, False),
        ({"served": {1: 10, 2: 0}}, False),
    ],
)
def test_a_verdict_passes_only_without_a_blemish(change: dict[str, Any], passed: bool) -> None:
    facts: dict[str, Any] = {
        "server": "sqlite 3",
        "served": {1: 10, 2: 10},
        "failed": 0,
        "differing": 0,
        "values_checked": 10,
        "phases": (),
        "seconds": 1.0,
    }
    verdict = Verdict(**{**facts, **change})
    assert verdict.passed is passed
    assert verdict.as_dict()["passed"] is passed
