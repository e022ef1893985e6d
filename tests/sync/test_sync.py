"""The sync of every scenario, on every server, agrees with the oracle under interleaved writers."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.servers.shared import Database
from tests.sync.bench import Bench
from tests.sync.conftest import profile
from tests.sync.machine import machine_for
from tests.sync.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*does \\*not\\* support Decimal")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda found: found.name)
def test_sync_agrees_with_oracle(database: Database, scenario: Scenario) -> None:
    bench = Bench.expanded(database, scenario)
    try:
        run_state_machine_as_test(machine_for(bench), settings=profile(cheap=database.kind == "sqlite"))
    finally:
        bench.connection.close()
