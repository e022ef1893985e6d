"""An upgrade of several tables, from expand to contract and back, as its operator sees it."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa

from contraflow.engine import Options, Progress, Runner, State
from contraflow.engine.journal import Journal, Tables
from contraflow.operations.planning import Upgrade
from contraflow.problems import Interrupted, ProblemError
from tests.engine import service
from tests.servers.shared import Database


def due(runner: Runner) -> tuple[State | None, str, int]:
    status = runner.status()
    return status.state, status.due, status.exit_code


def test_through_all_phases(database: Database) -> None:
    service.make_tables(database.engine)
    writers = service.Writers(engine=database.engine)
    told: list[Progress] = []
    with service.runner(database.url, service.upgrade(), progress=told.append) as runner:
        assert runner.check() == []
        assert due(runner) == (State.PENDING, "expand", 2)
        runner.expand()
        assert due(runner) == (State.EXPANDED, "migrate", 3)
        assert runner.status().rows_left == {"users": 10, "items": 10, "notes": 10, "hollow": 0}
        writers.old()
        runner.migrate()
        assert due(runner) == (State.MIGRATED, "verify", 3)
        writers.new()
        runner.verify()
        assert due(runner) == (State.VERIFIED, "contract", 4)
        writers.old()
        writers.check_old()
        writers.check_new()
        runner.contract()
        assert due(runner) == (State.CONTRACTED, "nothing", 0)
        assert all(phase.status == "done" for phase in runner.status().phases)
    writers.new()
    writers.check_new()
    names = {table: {c["name"] for c in sa.inspect(database.engine).get_columns(table)} for table in service.TABLES}
    assert names == {
        "users": {"id", "email", "visits", "first_name", "last_name"},
        "items": {"shelf", "place", "title"},
        "notes": {"id", "text", "stars"},
        "hollow": {"id", "term"},
    }
    with database.engine.connect() as connection:
        notes = connection.execute(sa.text("SELECT id, text FROM notes ORDER BY id")).all()
    assert [tuple(row) for row in notes] == [(n, f"body {n}") for n in range(10)]
    backfills = [progress for progress in told if progress.phase == "migrate" and progress.finished]
    assert {progress.title for progress in backfills} == {f"backfill {table}" for table in service.TABLES}


def test_every_verb_twice_is_as_once(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        for verb in ("expand", "migrate", "verify", "contract"):
            getattr(runner, verb)()
            once = service.snapshot(database.engine), service.contents(database.engine), runner.status().state
            getattr(runner, verb)()
            assert (service.snapshot(database.engine), service.contents(database.engine), runner.status().state) == once
        runner.run("contract")
        runner.upgrade()
        assert runner.status().state is State.CONTRACTED


@pytest.mark.parametrize("verbs", [("expand",), ("expand", "migrate"), ("expand", "migrate", "verify")])
def test_rolled_back_from_each_state_and_begun_anew(database: Database, verbs: tuple[str, ...]) -> None:
    service.make_tables(database.engine)
    start = service.snapshot(database.engine)
    rows = service.contents(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        for verb in verbs:
            getattr(runner, verb)()
        runner.rollback()
        now = runner.status()
        assert (now.state, now.due) == (State.ROLLED_BACK, "expand")
        assert now.rolled_back is not None
        assert service.snapshot(database.engine) == start
        assert service.contents(database.engine) == rows
        runner.rollback()
        runner.run("contract")
        assert runner.status().state is State.CONTRACTED
        assert runner.status().rolled_back is None


def test_a_verification_done_again_is_told_by_itself(database: Database) -> None:
    service.make_tables(database.engine, tables=("users",))
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        runner.upgrade()
        (first,) = [phase for phase in runner.status().phases if phase.name == "verify"]
        runner.verify()
        (second,) = [phase for phase in runner.status().phases if phase.name == "verify"]
    assert first.finished is not None
    assert second.started is not None
    assert second.started >= first.finished


def test_a_phase_that_is_found_done_keeps_its_times(database: Database) -> None:
    """As when an upgrade that was interrupted in migrate is begun again."""
    service.make_tables(database.engine, tables=("users",))
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        runner.expand()
        expanded = runner.status().phases
        runner.expand()
        assert runner.status().phases == expanded
        runner.upgrade()
        assert runner.status().phases[0] == expanded[0]
    assert expanded[0].finished is not None


def test_what_the_new_release_wrote_is_there_after_a_rollback(database: Database) -> None:
    service.make_tables(database.engine)
    writers = service.Writers(engine=database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        runner.upgrade()
        writers.new()
        writers.old()
        runner.rollback()
    writers.check_old()


def test_the_journal_alone_is_enough_after_expand(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        runner.expand()
    with service.runner(database.url) as alone:
        alone.migrate()
        alone.verify()
        assert set(alone.plan().phases) >= {"contract", "rollback"}
        alone.contract()
        assert alone.status().state is State.CONTRACTED


def test_grown_while_expanded_is_as_if_planned_whole(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        runner.expand()
    whole = service.snapshot(database.engine)
    service.start_over(database.engine)
    service.make_tables(database.engine)
    writers = service.Writers(engine=database.engine)
    with service.runner(database.url, service.upgrade(until=1)) as first:
        first.expand()
    writers.old()
    with service.runner(database.url, service.upgrade(until=2)) as second:
        assert second.status().due == "expand"
        second.expand()
    writers.old()
    with service.runner(database.url, service.upgrade()) as third:
        third.expand()
        assert third.status().revisions == ("r1", "r2", "r3")
        assert service.snapshot(database.engine) == whole
        third.run("contract")
    writers.check_new()


def test_killed_while_it_grows(database: Database) -> None:
    tables = ("notes",)
    service.make_tables(database.engine, tables=tables)
    start = service.snapshot(database.engine)
    whole = service.upgrade(tables=tables)
    with service.runner(database.url, whole) as runner:
        runner.expand()
    expanded = service.snapshot(database.engine)
    # Where DDL takes long, every third statement: test_kills has them all for each phase by itself.
    step = 3 if database.kind.startswith(("mysql", "mariadb")) else 1
    for survive in range(0, 100, step):
        service.start_over(database.engine)
        service.make_tables(database.engine, tables=tables)
        with service.runner(database.url, service.upgrade(until=2, tables=tables)) as runner:
            runner.expand()
        killer = service.run_killed(database.url, whole, ("expand",), survive=survive)
        with service.runner(database.url, whole) as runner:
            if survive % 2:
                runner.rollback()
                assert service.snapshot(database.engine) == start, killer.seen[-1:]
            runner.expand()
        assert service.snapshot(database.engine) == expanded, killer.seen[-1:]
        if not killer.dead:
            break
    assert survive > 8


def test_what_is_left_of_a_set_belongs_to_it(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        runner.upgrade()
    rest = Upgrade(old="r1", new="r3", changes=service.changes()[1:])
    with service.runner(database.url, rest) as runner:
        assert runner.status().state is State.VERIFIED
        runner.upgrade()
        runner.contract()
        assert runner.status().state is State.CONTRACTED


def test_the_next_upgrade_follows_the_contracted_one(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade(until=1)) as runner:
        runner.run("contract")
    following = Upgrade(old="r1", new="r2", changes=service.changes()[1:2])
    with service.runner(database.url, following) as runner:
        runner.run("contract")
        assert runner.status().upgrade == "r1:r2"
        assert runner.status().state is State.CONTRACTED


def test_interrupted_between_batches_goes_on_at_the_checkpoint(database: Database) -> None:
    tables = ("users",)
    service.make_tables(database.engine, tables=tables, rows=40)
    batches: list[Progress] = []
    options = Options(batch_size=4, max_batch_size=4, latency_budget=5.0)
    with service.runner(
        database.url,
        service.upgrade(tables=tables),
        options=options,
        progress=batches.append,
        should_stop=lambda: len(batches) >= 4,
    ) as runner:
        runner.expand()
        with pytest.raises(Interrupted):
            runner.migrate()
        assert runner.status().pending == "migrate"
        left = runner.status().rows_left["users"]
    assert 0 < left < 40
    batches.clear()
    with service.runner(database.url, options=options, progress=batches.append) as runner:
        runner.migrate()
    assert batches[0].done == 40 - left + 4  # went on where it stood
    assert batches[-1].done == 40


def test_a_backfill_that_hardly_writes_foretells_no_end(database: Database) -> None:
    tables = ("users",)
    service.make_tables(database.engine, tables=tables)
    seconds = itertools.count(step=1_000_000)
    told: list[Progress] = []
    with service.runner(
        database.url, service.upgrade(tables=tables), clock=lambda: float(next(seconds)), progress=told.append
    ) as runner:
        runner.expand()
        runner.migrate()
    batches = [one for one in told if one.title == "backfill users"]
    assert [one.eta for one in batches] == [None] * (len(batches) - 1) + [0.0]


def test_ctrl_c_is_an_interruption(database: Database) -> None:
    service.make_tables(database.engine, tables=("users",))

    def press(_progress: Progress) -> None:
        raise KeyboardInterrupt

    with (
        service.runner(database.url, service.upgrade(tables=("users",)), progress=press) as runner,
        pytest.raises(Interrupted, match="goes on"),
    ):
        runner.expand()
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        assert runner.status().runner is None
        runner.run("contract")


def test_every_step_is_in_the_journal(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        runner.run("contract")
    journal = Journal(tables=Tables(), runner="")
    with database.engine.connect() as connection:
        (entry,) = journal.entries(connection)
        events = journal.events(connection, entry)
    done = [event for event in events if event.kind == "done"]
    for block in ("expand users", "backfill items", "contract notes", "expand", "migrate", "verify", "contract"):
        assert block in [event.title for event in done]
        assert block in [event.title for event in events if event.kind == "begun"]
    holds = [event for event in done if event.title == "expand users"]
    assert holds[0].statements is not None
    assert holds[0].statements >= 3
    assert holds[0].tries == 1
    assert holds[0].stall is not None
    assert [event.at for event in events] == sorted(event.at for event in events)


@pytest.mark.parametrize(
    ("prepare", "verb", "code"),
    [
        ((), "migrate", "CF004"),
        ((), "verify", "CF004"),
        ((), "contract", "CF004"),
        (("expand",), "verify", "CF004"),
        (("expand",), "contract", "CF004"),
        (("run",), "rollback", "CF303"),
    ],
)
def test_verbs_out_of_order(database: Database, prepare: tuple[str, ...], verb: str, code: str) -> None:
    service.make_tables(database.engine, tables=("users",))
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        for step in prepare:
            getattr(runner, step)()
        before = service.snapshot(database.engine)
        with pytest.raises(ProblemError) as raised:
            getattr(runner, verb)()
        assert [problem.code for problem in raised.value.problems] == [code]
        assert service.snapshot(database.engine) == before


def test_no_way_back_once_contract_began(database: Database) -> None:
    upgrade = service.upgrade(tables=("users",))
    service.make_tables(database.engine, tables=("users",))
    service.run_killed(database.url, upgrade, ("upgrade",))
    for survive in range(50):
        service.run_killed(database.url, upgrade, ("contract",), survive=survive)
        with service.runner(database.url) as runner:
            if runner.status().pending == "contract":
                break
    with service.runner(database.url) as runner:
        with pytest.raises(ProblemError) as raised:
            runner.rollback()
        assert raised.value.problems[0].code == "CF004"
        assert runner.status().due == "contract"
        runner.contract()
        with pytest.raises(ProblemError) as raised:
            runner.rollback()
        assert raised.value.problems[0].code == "CF303"
