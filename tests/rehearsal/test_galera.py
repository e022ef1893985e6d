"""A rehearsal on a Galera cluster, both releases spread over its nodes. Runs where MariaDB is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from contraflow.rehearsal.faults import parse
from contraflow.rehearsal.record import Record
from contraflow.rehearsal.rehearse import Rehearsal
from tests.alembic.project import two_changes
from tests.rehearsal.test_rehearse import explain

pytestmark = [pytest.mark.only_on("mariadb"), pytest.mark.usefixtures("server")]


def a_node_got_a_trigger_wrong(record: Record) -> bool:
    """Whether a fault of the server's own was met that docs/operations.md tells of, on a Galera cluster."""
    refused = [finding.what for finding in record.findings if finding.kind == "failed"]
    return any("has an error in its body" in what or "1054" in what for what in refused)


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
    record = rehearsal.run()
    for _ in range(3):
        if not a_node_got_a_trigger_wrong(record):
            break
        record = rehearsal.run()
    assert record.verdict == "passed", explain(record)
    assert record.server == "galera"
    assert sorted(fault.kind for fault in record.faults) == sorted(fault.partition("@")[0] for fault in faults)
    assert not [fault.detail for fault in record.faults if "broken off" in fault.detail]
    assert record.counts["retried: deadlock"] > 0
    assert record.counts["acknowledged writes"] > 100
