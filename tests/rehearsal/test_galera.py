"""A rehearsal on a Galera cluster, both releases spread over its nodes. Runs where MariaDB is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from contraflow.rehearsal.faults import parse
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from tests.alembic.project import two_changes
from tests.rehearsal.test_rehearse import explain
from tests.servers.misread import unless_triggers_are_misread

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]


def test_an_upgrade_of_a_cluster_that_loses_nodes_passes(tmp_path: Path) -> None:
    project = two_changes(tmp_path / "service", "sqlite://")
    faults = (
        "runner-killed@migrate:4",
        "serialization-failed@both:0.05+0.5s",
        "node-killed@both:0.3+0.5s",
        "node-partitioned@both:0.6+1s",
    )
    rehearsal = Rehearsal(
        config=project.ini, on="galera", seconds=4.0, rows=20, workers=4, faults=tuple(map(parse, faults))
    )
    records: list[Record] = []

    def passes() -> None:
        records.append(rehearsal.run())
        refused = [finding.what for finding in records[-1].findings if finding.kind == "failed"]
        assert records[-1].verdict == "passed", "\n".join([explain(records[-1]), *refused])

    unless_triggers_are_misread(passes)
    record = records[-1]
    assert record.server == "galera"
    assert sorted(fault.kind for fault in record.faults) == sorted(fault.partition("@")[0] for fault in faults)
    assert not [fault.detail for fault in record.faults if "broken off" in fault.detail]
    assert record.counts["retried: deadlock"] > 0
    assert record.counts["acknowledged writes"] > 100
