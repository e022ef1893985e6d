"""Faults are planned from a seed, written down and read again."""

from __future__ import annotations

import pytest

from contraflow.problems import ProblemError
from contraflow.rehearsal.faults import KINDS, VERBS, Fault, asked, left_out, parse, plan

SERVERS = ("sqlite", "postgresql", "mariadb", "mysql", "galera")


def test_the_same_seed_plans_the_same_faults() -> None:
    assert plan(7, server="postgresql") == plan(7, server="postgresql")
    assert plan(7, server="postgresql") != plan(8, server="postgresql")


def test_a_kind_left_out_moves_no_other() -> None:
    whole = plan(3, server="postgresql")
    assert plan(3, ["lock-storm", "runner-killed"], server="postgresql") == tuple(
        fault for fault in whole if fault.kind in ("lock-storm", "runner-killed")
    )


@pytest.mark.parametrize("where", SERVERS)
def test_every_kind_is_planned_or_left_out_with_a_reason(where: str) -> None:
    planned = {fault.kind for fault in plan(1, server=where)}
    reasons = left_out(KINDS, server=where)
    assert planned | set(reasons) == set(KINDS)
    assert not planned & set(reasons)
    assert all(reasons.values())


def test_a_server_of_somebody_elses_is_not_killed() -> None:
    kinds = {fault.kind for fault in plan(1, server="postgresql", ours=False)}
    assert kinds.isdisjoint({"server-killed", "server-restarted", "out-of-connections"})
    assert "runner-killed" in kinds


def test_the_runner_is_killed_in_every_phase() -> None:
    assert [fault.phase for fault in plan(1, ["runner-killed"], server="sqlite", each=2)] == [*VERBS, *VERBS]


@pytest.mark.parametrize("where", SERVERS)
def test_every_planned_fault_survives_being_written_down(where: str) -> None:
    for seed in range(50):
        for fault in plan(seed, server=where):
            assert parse(str(fault)) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("runner-killed@expand:7", Fault(kind="runner-killed", phase="expand", statement=7)),
        (
            "server-killed@migrate:7~+0.25s",
            Fault(kind="server-killed", phase="migrate", statement=7, inside=True, seconds=0.25),
        ),
        ("lock-storm@both:0.4+1.5s", Fault(kind="lock-storm", phase="both", share=0.4, seconds=1.5)),
        ("clock-step@verify:1-3600.0s", Fault(kind="clock-step", phase="verify", statement=1, seconds=-3600.0)),
    ],
)
def test_short_forms(text: str, fault: Fault) -> None:
    assert parse(text) == fault
    assert str(fault) == text


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "meteor@expand:1",
        "runner-killed@lunch:1",
        "runner-killed@expand:0.5",
        "runner-killed@both:0.5",
        "lock-storm@both:3",
        "lock-storm@both:1.5",
    ],
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|phase|statement|strikes|share"):
        parse(text)


def test_what_a_person_asks_for() -> None:
    exact = parse("runner-killed@expand:7")
    assert asked("none", 1, server="sqlite") == ()
    assert asked("all", 1, server="sqlite") == plan(1, server="sqlite")
    assert asked("lock-storm, runner-killed@expand:7", 1, server="sqlite") == (
        *plan(1, ["lock-storm"], server="sqlite"),
        exact,
    )


def test_what_is_asked_for_by_name_and_cannot_strike_is_refused() -> None:
    for text in ("runner-cut@expand:7", "runner-cut", "all,runner-cut"):
        with pytest.raises(ProblemError, match=r"CF209: runner-cut cannot strike on sqlite"):
            asked(text, 1, server="sqlite")
    with pytest.raises(ProblemError, match="not a cluster") as caught:
        asked("node-killed,flow-control@both:0.5+1s", 1, server="mysql")
    assert [problem.code for problem in caught.value.problems] == ["CF209", "CF209"]
    assert asked("node-killed", 1, server="galera")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="meteor"):
        plan(1, ["meteor"], server="sqlite")
