"""Changes of several operations that are drawn at random, through their whole lives, one after the other.

``CONTRAFLOW_COMPOSED=100:400`` tries those of other seeds, by hand. What is refused is shown with ``-rP``.
"""

from __future__ import annotations

import os
import random

import pytest
import sqlalchemy as sa

from tests.composed.changes import Composition, start
from tests.composed.lives import Life
from tests.composed.tables import Row, build
from tests.servers.shared import Database

FIRST, _, LAST = os.environ.get("CONTRAFLOW_COMPOSED", "0:3").partition(":")


@pytest.mark.parametrize("seed", range(int(FIRST), int(LAST)))
def test_changes_are_carried_through_or_refused_before_anything_is_changed(
    database: Database, seed: int, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(seed)
    tables = start(rng)
    rows: dict[int, dict[int, Row]] = {}
    build(tables, metadata := sa.MetaData())
    if database.kind == "sqlite":
        sa.event.listen(database.engine, "connect", _enforce_keys)
    metadata.create_all(database.engine)
    for number in (1, 2):
        composition = Composition(rng=rng, old=tables, number=number)
        declared = "\n".join(map(repr, composition.operations))
        request.node.add_report_section("call", f"change {number}", declared)
        refused, rows = Life(database, composition, rng, rows).carry()
        if refused:
            request.node.add_report_section("call", f"change {number} is refused", "\n".join(map(str, refused)))
        else:
            tables = composition.new


def _enforce_keys(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
