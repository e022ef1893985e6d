"""A rehearsal notices every sabotage, and nothing where there is none: its mutation score is 100 %."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from contraflow.rehearsal.rehearse import Rehearsal
from contraflow.rehearsal.servers import Server
from tests.rehearsal import sabotage
from tests.rehearsal.sabotage import DATA, PAIRS, RELATED, SCHEMA, UNSPOILT, Spoiler

PATIENCE = 300.0
SEVERAL = 3
SUFFIX = re.compile("_(more|to|of|by)$")


def wait_until_felt(connection: sa.Connection, spoilers: Sequence[Spoiler]) -> None:
    """Hold the rehearsal until each spoiler has met writes, of several rows at once: the clients go on meanwhile, and
    a later write may make good what an earlier one spoilt.
    """
    limit = time.monotonic() + PATIENCE
    while unfelt := [spoiler.name for spoiler in spoilers if not _is_felt(connection, spoiler)]:
        assert time.monotonic() < limit, f"not felt: {unfelt}"
        time.sleep(0.05)


def _is_felt(connection: sa.Connection, spoiler: Spoiler) -> bool:
    if spoiler.felt is None:
        return True
    felt = spoiler.felt.format(t=spoiler.table, image=sabotage.image_of(spoiler.table))
    query = f"SELECT count(*) FROM {spoiler.table} WHERE {felt}"
    return int(connection.exec_driver_sql(query).scalar_one()) >= SEVERAL


@pytest.mark.parametrize("spoilers", [DATA, PAIRS, RELATED, SCHEMA], ids=["data", "pairs", "related", "schema"])
def test_every_sabotage_is_noticed(
    server: Server,
    tmp_path: Path,
    spoilers: Sequence[Spoiler],
    record_property: Callable[[str, object], None],
) -> None:
    project = sabotage.project(tmp_path / "service", spoilers)

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if phase == sabotage.CHECK and spoilers is not SCHEMA:
                wait_until_felt(connection, spoilers)
            if phase == sabotage.CHECK and spoilers is DATA:
                sabotage.take_back(connection, "update_taken_back")
            for spoiler in spoilers:
                if spoiler.phase == phase:
                    spoiler.spoil(connection, spoiler.table)

    url = server.address.render_as_string(hide_password=False)
    record = Rehearsal(config=project.ini, url=url, seconds=0.5, rows=6, workers=3).run(meanwhile=meanwhile)
    found: dict[str, set[str]] = defaultdict(set)
    for finding in record.findings:
        table = finding.table or finding.what.partition(":")[0]
        found[SUFFIX.sub("", table)].add(finding.kind)
    noticed = [spoiler.name for spoiler in spoilers if found[spoiler.table] & set(spoiler.kinds)]
    record_property("mutation score", f"{len(noticed)} of {len(spoilers)}")
    assert noticed == [spoiler.name for spoiler in spoilers], record.reason
    assert record.verdict == "failed"
    # A transaction over several tables fails in all of them where it fails in one.
    names = [spoiler.table for spoiler in spoilers]
    elsewhere = [finding for finding in record.findings if finding.table in UNSPOILT]
    false_alarms = [
        finding for finding in elsewhere if finding.kind != "failed" or not any(name in finding.what for name in names)
    ]
    assert false_alarms == []


def test_rows_that_only_seem_filled_are_refused(server: Server, tmp_path: Path) -> None:
    """What spoils a phase before the new release serves is found by the upgrade itself, and fails the rehearsal."""
    project = sabotage.project(tmp_path / "service", [])

    def meanwhile(phase: str, engine: sa.Engine) -> None:
        if phase == "migrate":
            with engine.begin() as connection:
                connection.exec_driver_sql("UPDATE unspoilt SET cf_marker = 1")

    url = server.address.render_as_string(hide_password=False)
    # More rows than the old release's worker writes, and the sync so fills, before migrate.
    record = Rehearsal(config=project.ini, url=url, seconds=0.3, rows=400, workers=1).run(meanwhile=meanwhile)
    assert record.verdict == "failed"
    assert record.tries[-1].verb == "verify"
