"""Profiles of the property tests, chosen by the environment variable ``CONTRAFLOW_HYPOTHESIS``.

``ci`` (the default) tries the same examples in every run and does not shrink, so that its cost is known;
``shrink`` is the same with shrinking, to understand a failure; ``thorough`` tries many more, others each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = settings(
    deadline=None,  # timings decide nothing
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
_SAME = settings(_COMMON, derandomize=True, max_examples=12, stateful_step_count=15)
PROFILES = {
    "ci": settings(_SAME, phases=(Phase.explicit, Phase.generate)),
    "shrink": _SAME,
    "thorough": settings(_COMMON, max_examples=300, stateful_step_count=40),
}


def profile(*, cheap: bool = False) -> settings:
    """The chosen profile; a ``cheap`` server (without a process of its own) tries more examples."""
    chosen = PROFILES[os.environ.get("CONTRAFLOW_HYPOTHESIS", "ci")]
    return settings(chosen, max_examples=chosen.max_examples * (2 if cheap else 1))
