"""The history of one row that was found wrong, replayed alone and made small."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.counterexample import Bench, Case, Step, Write, find, script, shrink
from contraflow.rehearsal.record import Finding, Record
from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.alembic.project import two_changes
from tests.rehearsal.test_rehearse import drop_triggers, rehearse, until_apart


def write(number: int) -> Write:
    return Write(release="old", verb="update", values={"number": number, "other": "x"})


def case(*steps: Step) -> Case:
    return Case(rehearsal=Rehearsal(), table="t", key={"id": 1}, steps=steps)


def test_what_does_not_matter_is_left_out() -> None:
    first = Write(release="old", verb="insert", values={"number": 0, "other": "x"})
    whole = case(first, write(1), "expand", write(2), "migrate", "verify", write(3), write(4), "contract", write(5))
    tried: list[Case] = []

    def fails(one: Case) -> bool:
        tried.append(one)
        numbers = [step.values.get("number") for step in one.steps if isinstance(step, Write)]
        return 2 in numbers and "migrate" in one.steps

    least = shrink(whole, fails)
    update = Write(release="old", verb="update", values={"number": 2})
    assert least.steps[1:] == ["expand", update, "migrate"]
    assert isinstance(least.steps[0], Write)
    assert len(tried) < 40


def test_a_script_holds_every_kind_of_value() -> None:
    values = {
        "a": decimal.Decimal("1.50"),
        "b": dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.timezone.utc),
        "c": b"\x00'",
        "d": None,
        "e": "it's",
    }
    steps: list[Step] = [Write(release="new", verb="insert", values=values), "expand"]
    record = Record(
        started=dt.datetime.now(dt.timezone.utc),
        seconds=1.0,
        seed=1,
        command="",
        server="sqlite",
        server_version="3",
        old="1",
        new="2",
        verdict="failed",
        reason="",
    )
    finding = Finding(kind="lost", what="gone\nfor good", table="t", key="id=1")
    text = script(case(*steps), finding, record)
    namespace: dict[str, object] = {}
    exec(compile(text.partition("\nraise SystemExit")[0], "script", "exec"), namespace)
    made = namespace["case"]
    assert isinstance(made, Case)
    assert made.steps == steps


@pytest.mark.only_on("sqlite", "postgresql", "mariadb")
def test_a_row_is_replayed_through_every_phase(server: Server, tmp_path: Path) -> None:
    """Nothing is wrong with it, whichever release writes when."""
    rehearsal = rehearse(server, two_changes(tmp_path / "service", "sqlite://").ini)
    steps: list[Step] = [
        Write(release="old", verb="insert", values={"fullname": "One", "mail": "m"}),
        "expand",
        Write(release="old", verb="update", values={"fullname": "Two"}),
        "migrate",
        "verify",
        Write(release="new", verb="update", values={"display_name": "Three"}),
        Write(release="old", verb="update", values={"fullname": "Four"}),
        "rollback",
        "expand",
        "migrate",
        "verify",
        "contract",
        Write(release="new", verb="update", values={"display_name": "Five"}),
        Write(release="new", verb="delete"),
    ]
    told: list[str] = []
    with Bench(rehearsal) as bench:
        assert bench.replay(Case(rehearsal=rehearsal, table="users", key={"id": 7}, steps=steps), told.append) is None
    assert len(told) == len(steps)


@pytest.mark.only_on("sqlite")
def test_a_row_that_a_revision_makes_is_not_taken_for_a_wrong_one(server: Server, tmp_path: Path) -> None:
    """The project's first revision inserts the user 1; the case makes its own."""
    rehearsal = rehearse(server, two_changes(tmp_path / "service", "sqlite://").ini)
    steps: list[Step] = ["expand", "migrate", "verify", Write(release="old", verb="insert", values={"fullname": "One"})]
    with Bench(rehearsal) as bench:
        assert bench.replay(Case(rehearsal=rehearsal, table="users", key={"id": 1}, steps=steps)) is None


@pytest.mark.only_on("sqlite")
def test_what_one_row_does_not_show_alone_is_said(server: Server, tmp_path: Path) -> None:
    """Triggers that somebody dropped behind the rehearsal's back are there again in a replay."""
    rehearsal = rehearse(server, two_changes(tmp_path / "service", "sqlite://").ini, seconds=0.5, rows=4)

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "both releases":
            drop_triggers(engine, "users")
        if phase == "checking every row before contract":
            until_apart(engine)

    record = rehearsal.run(meanwhile=meanwhile)
    assert record.verdict == "failed"
    assert any(finding.row for finding in record.findings)
    shown = find(rehearsal, record, most=3)
    assert shown is None, shown
