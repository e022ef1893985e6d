"""Rows that refer, on every server, agree with the model under interleaved writers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.references.bench import SCENES, Bench, Scene
from tests.references.machine import machine_for
from tests.servers.shared import Database

SETTINGS = settings(
    deadline=None,  # timings decide nothing
    database=None,
    print_blob=True,
    derandomize=True,
    max_examples=6,
    stateful_step_count=15,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_references_agree_with_the_model(database: Database, scene: Scene) -> None:
    bench = Bench.made(database, scene)
    try:
        run_state_machine_as_test(machine_for(bench), settings=SETTINGS)
    finally:
        bench.close()
