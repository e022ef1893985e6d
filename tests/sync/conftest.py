"""Profiles of the property tests: reproducible in CI; thorough when asked."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

COMMON = settings(
    deadline=None,  # timings decide nothing
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("contraflow", COMMON, derandomize=True, max_examples=12, stateful_step_count=14)
settings.register_profile("contraflow-thorough", COMMON, max_examples=400, stateful_step_count=40)
PROFILE = os.environ.get("CONTRAFLOW_HYPOTHESIS", "contraflow")
"""``contraflow`` (the same examples in every run) or ``contraflow-thorough`` (many, and others each time)."""
FIND = (Phase.explicit, Phase.generate, Phase.shrink)
