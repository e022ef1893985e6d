"""``contraflow.install``: what an application does once with its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine

from contraflow import faults
from contraflow.engine.nodes import Heartbeat

if TYPE_CHECKING:  # needs greenlet, which SQLAlchemy 2.1 installs on request only
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["install"]


def install(
    engine: Engine | AsyncEngine,
    *,
    release: str | None = None,
    interval: float = 10.0,
    name: str | None = None,
    schema: str | None = None,
) -> Heartbeat | None:
    """Raise this engine's errors as typed faults, and announce this process in the node registry.

    Errors become subclasses of the SQLAlchemy classes they had (:mod:`contraflow.faults`), so existing
    handlers keep working. With
    ``release`` (the revision id this code was released with), a background thread writes a heartbeat every
    ``interval`` seconds, so
    that contract can refuse while an old node lives; the returned object can be stopped early. ``name`` is
    shown by ``contraflow
    nodes``; ``schema`` is where the journal's tables live, None for the connection's own. Nothing of this is
    needed for correctness.
    """
    faults.install(engine)
    if release is None:
        return None
    return Heartbeat(engine, release=release, interval=interval, name=name, schema=schema)
