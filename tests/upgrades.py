"""An upgrade of some operations, and a runner for it: what most tests of an operation begin with."""

from __future__ import annotations

from typing import Any

from contraflow import Declared, Options, Runner, Upgrade
from contraflow.operations.base import Operation
from tests.servers.shared import Database

__all__ = ["runner_of", "upgrade_of"]


def upgrade_of(*operations: Operation, old: str | None = None, new: str = "r1") -> Upgrade:
    """One revision that declares the operations."""
    return Upgrade(old=old, new=new, changes=(Declared(revision=new, operations=operations),))


def runner_of(database: Database, *operations: Operation, **options: Any) -> Runner:
    """A runner of their upgrade, which tries again sooner than an operator's would; with other `Options`."""
    return Runner(database.url, upgrade_of(*operations), options=Options(**{"lock_timeout": 0.3, **options}))
