"""The engine: carries an upgrade through its phases on a live database."""

from __future__ import annotations

from contraflow.engine.nodes import Heartbeat
from contraflow.engine.report import (
    Node,
    Options,
    PhaseReport,
    PlannedStatement,
    PlanReport,
    Progress,
    State,
    Status,
)
from contraflow.engine.runner import Runner

__all__ = [
    "Heartbeat",
    "Node",
    "Options",
    "PhaseReport",
    "PlanReport",
    "PlannedStatement",
    "Progress",
    "Runner",
    "State",
    "Status",
]
