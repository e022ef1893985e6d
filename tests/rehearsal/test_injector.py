"""An upgrade that is struck goes on to its end, and loses nothing; what no fault explains is not passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from contraflow.engine import Runner, State
from contraflow.problems import ProblemError
from contraflow.rehearsal import servers
from contraflow.rehearsal.faults import VERBS, Fault, parse, plan
from contraflow.rehearsal.injector import Injector, RunnerBroken
from contraflow.rehearsal.runner_process import Source
from tests.rehearsal.stage import SOURCE, Load, SmallStage, small_stage
from tests.servers.shared import new_engine

NETWORK = pytest.mark.only_on("postgresql", "postgresql15", "mariadb", "mysql")


@pytest.fixture
def stage(server: servers.Server) -> Iterator[SmallStage]:
    with small_stage(server) as made:
        yield made


def carry_out_all(stage: SmallStage, *texts: str) -> None:
    """The whole upgrade, struck; nothing is found, everything struck, and the new release's data is right."""
    faults = [parse(text) for text in texts]
    with stage.injector(*faults) as injector:
        for verb in VERBS:
            injector.carry_out(verb)  # type: ignore[arg-type]
    check_contracted(stage)
    assert sorted(fault.kind for fault in stage.faults) == sorted(fault.kind for fault in faults)


def check_contracted(stage: SmallStage) -> None:
    assert stage.findings == []
    with Runner(stage.url) as runner:
        assert runner.status().state is State.CONTRACTED
    engine = new_engine(stage.url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT id, first_name, last_name FROM users WHERE id < 1000")).all()
    engine.dispose()
    assert sorted(tuple(row) for row in rows) == [(n, f"First{n}", f"Last{n}") for n in range(30)]


def details(stage: SmallStage, kind: str) -> list[str]:
    return [fault.detail for fault in stage.faults if fault.kind == kind]


def test_killed_before_and_inside_of_statements_and_at_the_end(stage: SmallStage) -> None:
    carry_out_all(stage, "runner-killed@expand:7", "runner-killed@migrate:20~", "runner-killed@contract:999")
    assert stage.outcomes[:2] == ["killed at statement 7", "done"]
    assert re.match(r"before statement 7: \w+", details(stage, "runner-killed")[0])
    # Inside, or where the statement was over sooner than the kill came, after it.
    killed = re.fullmatch(r"killed at statement (\d+)", stage.outcomes[2])
    assert killed is not None
    assert int(killed[1]) >= 20
    assert details(stage, "runner-killed")[2] == "before nothing more: the verb was done"
    assert stage.outcomes[-1] == "done"


def test_rolled_back_half_way_and_forward_again(stage: SmallStage) -> None:
    carry_out_all(stage, "rolled-back@verify:2")
    assert [one.verb for one in stage.tries if one.outcome == "done"] == [
        *("expand", "migrate"),
        *("rollback", "expand", "migrate", "verify", "contract"),
    ]


def test_a_second_runner_and_a_clock_that_is_set(stage: SmallStage) -> None:
    carry_out_all(stage, "second-runner@migrate:6", "clock-step@migrate:9-4000s", "clock-step@contract:12+4000s")
    assert re.search(r"CF001|done", details(stage, "second-runner")[0])


@NETWORK
def test_the_runners_connection_is_cut(stage: SmallStage) -> None:
    carry_out_all(stage, "runner-cut@expand:9", "runner-cut@migrate:12~", "runner-cut@contract:10~")
    assert [outcome for outcome in stage.outcomes if outcome != "done"] == [
        "ended by CF201 at statement 9",
        "ended by CF201 at statement 12",
        "ended by CF201 at statement 10",
    ]


@pytest.mark.only_on("sqlite")
def test_the_disk_is_full(stage: SmallStage) -> None:
    carry_out_all(stage, "disk-full@expand:0", "disk-full@expand:4", "runner-killed@expand:3")
    assert [outcome.partition(" at ")[0] for outcome in stage.outcomes[:3]] == ["ended by CF009"] * 2 + ["killed"]
    assert all("full" in detail for detail in details(stage, "disk-full"))


@NETWORK
def test_the_server_refuses_a_statement_because_its_disk_is_full(stage: SmallStage) -> None:
    carry_out_all(stage, "disk-full@expand:9", "disk-full@migrate:8", "disk-full@contract:6")
    # It ends after some statements more that clean up.
    ended = [outcome.partition(" at ")[0] for outcome in stage.outcomes]
    assert ended.count("ended by CF009") == 3
    assert set(ended) == {"ended by CF009", "done"}
    assert all(detail.startswith("in place of statement") for detail in details(stage, "disk-full"))


def test_struck_on_all_sides_under_load(private_server: servers.Server) -> None:
    with small_stage(private_server) as stage:
        kinds = ["black-hole", "commit-lost", "idle-in-transaction", "lock-storm", "server-killed"]
        faults = plan(5, [*kinds, "runner-killed"], server=private_server.kind)
        # The old release's worker does not outlive contract.
        faults = tuple(fault for fault in faults if fault.phase != "contract")
        with stage.injector(*faults) as injector:
            with Load(stage=stage).running() as load:
                for verb in VERBS[:-1]:
                    injector.carry_out(verb)  # type: ignore[arg-type]
                injector.pass_time("both", 1.0)
            injector.carry_out("contract")
        assert load.failed == []
        check_contracted(stage)
        assert sorted(fault.kind for fault in stage.faults) == sorted(fault.kind for fault in faults)
        engine = new_engine(stage.url)
        with engine.connect() as connection:
            query = sa.text("SELECT id, first_name, last_name FROM users WHERE id >= 1000")
            rows = {tuple(row) for row in connection.execute(query)}
        engine.dispose()
        assert rows == {(n, "Old", f"N{n}") for n in load.written}


def test_what_no_fault_explains_is_raised(stage: SmallStage) -> None:
    faults = parse("runner-killed@contract:4"), parse("second-runner@contract:1")
    with stage.injector(*faults) as injector, pytest.raises(ProblemError) as caught:
        injector.carry_out("contract")  # before it was expanded
    assert {problem.code for problem in caught.value.problems} == {"CF004"}


@pytest.mark.only_on("sqlite")
def test_a_runner_that_breaks_is_told(stage: SmallStage) -> None:
    broken = Source(upgrade="tests.engine.service:nobody", folder=SOURCE.folder)
    with Injector([], stage, source=broken) as injector, pytest.raises(RunnerBroken, match="nobody"):
        injector.carry_out("expand")


def test_time_without_a_runner_passes(stage: SmallStage) -> None:
    waits: list[float] = []
    fault = Fault(kind="lock-storm", phase="both", share=0.5, seconds=0.05)
    with Injector([fault], stage, source=SOURCE, sleep=waits.append) as injector:
        injector.pass_time("both", 10_000.0)
        injector.pass_time("new", 5_000.0)
    assert [round(wait, -3) for wait in waits] == [5_000, 10_000, 5_000]  # less what it took itself
    assert [found.kind for found in stage.faults] == ["lock-storm"]
