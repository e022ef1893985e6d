"""The demo: the example service upgraded live, under load, with every value checked.

>>> from contraflow.rehearsal import demo
>>> verdict = demo.run(demo.Options(on="sqlite"))
>>> verdict.passed
True
"""

from __future__ import annotations

from contraflow.rehearsal.demo.harness import Options, run
from contraflow.rehearsal.demo.verdict import PhaseReport, Verdict, table

__all__ = ["Options", "PhaseReport", "Verdict", "run", "table"]
