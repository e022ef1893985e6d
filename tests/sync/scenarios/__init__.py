"""Lenses as they are declared, each beside its meaning written by hand in plain Python.

The oracle sees only the handwork. Nothing on that side calls the library.
"""

from __future__ import annotations

from tests.sync.scenarios import groups, several, single, values  # noqa: F401 - each adds its scenarios
from tests.sync.scenarios.base import KEY, NOTE, SCENARIOS, Scenario, by_name
from tests.sync.scenarios.single import PREFIX

__all__ = ["KEY", "NOTE", "PREFIX", "SCENARIOS", "Scenario", "by_name"]
