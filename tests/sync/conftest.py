"""Profiles of the property tests, chosen by the environment variable ``CONTRAFLOW_HYPOTHESIS``.

``ci`` (the default) tries the same examples in every run and does not shrink, so that its cost is known;
``shrink`` is the same with shrinking, to understand a failure; ``thorough`` tries many more, others each time.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.sync.scenarios import by_name

_COMMON = settings(
    deadline=None,  # timings decide nothing
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
_SAME = settings(_COMMON, derandomize=True, max_examples=8, stateful_step_count=15)
PROFILES = {
    "ci": settings(_SAME, phases=(Phase.explicit, Phase.generate)),
    "shrink": _SAME,
    "thorough": settings(_COMMON, max_examples=300, stateful_step_count=40),
}


def profile(*, cheap: bool = False) -> settings:
    """The chosen profile; a ``cheap`` server (without a process of its own) tries more examples."""
    chosen = PROFILES[os.environ.get("CONTRAFLOW_HYPOTHESIS", "ci")]
    return settings(chosen, max_examples=chosen.max_examples * (2 if cheap else 1))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out pairs of scenario and server that are not meant for each other."""
    elsewhere = [item for item in items if not _is_meant(item)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def _is_meant(item: pytest.Item) -> bool:
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    scenario, mutant = parameters.get("scenario"), parameters.get("mutant")
    kind = (parameters.get("server") or "").rstrip("+").removesuffix("-url")
    product = "postgresql" if kind.startswith("postgresql") else kind
    if mutant is not None:
        if mutant.patch is not None and kind not in ("sqlite", "postgresql"):
            return False  # the rule is one for all servers: one of each form of trigger is enough
        return product in mutant.products and by_name(mutant.scenario).runs_on(kind, product)
    return scenario is None or scenario.runs_on(kind, product)
