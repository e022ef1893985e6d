"""Plans and states as plain data, for people and for ``--json``."""

from __future__ import annotations

import json

from tests.engine import service
from tests.servers.shared import Database


def test_the_plan_shows_every_phase_and_shrinks_as_phases_are_done(database: Database) -> None:
    service.make_tables(database.engine)
    with service.runner(database.url, service.upgrade()) as runner:
        before = service.snapshot(database.engine)
        plan = runner.plan()
        assert service.snapshot(database.engine) == before
        phases = {phase: [planned.statement.sql for planned in found] for phase, found in plan.phases.items()}
        assert list(phases) == ["expand", "migrate", "verify", "contract", "rollback"]
        assert all(phases.values())
        text = {phase: "\n".join(statements) for phase, statements in phases.items()}
        assert "first_name" in text["expand"]
        assert "CREATE" in text["expand"]
        assert "UPDATE" in text["migrate"]
        assert "SELECT" in text["verify"]
        assert "full_name" in text["contract"]
        assert "DROP" in text["contract"]
        assert "DROP" in text["rollback"]
        locks = [planned.statement.lock for planned in plan.phases["expand"] if "ADD" in planned.statement.sql]
        assert locks
        assert all(locks)
        assert {planned.table for planned in plan.phases["contract"]} == set(service.TABLES)
        document = json.loads(json.dumps(plan.as_dict()))
        assert document["upgrade"] == "r0:r3"
        assert document["server"]["product"] == runner.profile.product
        runner.expand()
        assert runner.plan().phases["expand"] == ()
        assert runner.plan().phases["contract"]


def test_what_was_planned_is_what_is_sent(database: Database) -> None:
    tables = ("users",)
    service.make_tables(database.engine, tables=tables)
    upgrade = service.upgrade(tables=tables)
    sent: list[str] = []
    with service.runner(database.url, upgrade, before_statement=lambda statement: sent.append(statement.sql)) as runner:
        planned = [item.statement.sql for item in runner.plan().phases["expand"]]
        sent.clear()
        runner.expand()
    if database.kind.startswith("sqlite"):
        # The number of the schema's version: the journal's own tables have moved it on.
        planned, sent = ([sql for sql in found if "schema_version" not in sql] for found in (planned, sent))
    assert planned
    assert set(planned) <= set(sent)


def test_the_status_is_plain_data_at_every_stage(database: Database) -> None:
    service.make_tables(database.engine, tables=("users",))
    with service.runner(database.url) as nothing:
        status = nothing.status()
        assert (status.state, status.due, status.exit_code) == (None, "nothing", 0)
        json.dumps(status.as_dict())
    with service.runner(database.url, service.upgrade(tables=("users",))) as runner:
        for verb in ("expand", "migrate", "verify", "contract"):
            document = json.loads(json.dumps(runner.status().as_dict()))
            assert document["due"] == verb
            (phase,) = [phase for phase in document["phases"] if phase["name"] == verb]
            assert phase["status"] == "due"
            getattr(runner, verb)()
        phases = runner.status().phases
        assert [phase.status for phase in phases] == ["done"] * 4
        assert all(phase.seconds is not None and phase.seconds >= 0 for phase in phases)
